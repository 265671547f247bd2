"""Where the cluster is, by settings and by Nomad's own variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hermes_backend_nomad import NomadConfig
from hermes_backend_nomad._address import Address, find_address
from hermes_core.config import configured
from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLES = (
    *("NOMAD_ADDR", "NOMAD_TOKEN", "NOMAD_NAMESPACE", "NOMAD_REGION", "NOMAD_CACERT", "NOMAD_CAPATH"),
    *("NOMAD_CLIENT_CERT", "NOMAD_CLIENT_KEY", "NOMAD_TLS_SERVER_NAME", "NOMAD_SKIP_VERIFY", "NOMAD_HTTP_AUTH"),
)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_by_default_it_is_the_agent_of_this_machine() -> None:
    assert find_address(NomadConfig()) == Address("http://127.0.0.1:4646")


def test_variables_of_nomad_count_where_the_settings_say_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).touch()
    monkeypatch.setenv("NOMAD_ADDR", "https://nomad.example:4647/")
    monkeypatch.setenv("NOMAD_TOKEN", "t0ken")
    monkeypatch.setenv("NOMAD_NAMESPACE", "research")
    monkeypatch.setenv("NOMAD_REGION", "eu")
    monkeypatch.setenv("NOMAD_CACERT", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("NOMAD_CLIENT_CERT", str(tmp_path / "client.pem"))
    monkeypatch.setenv("NOMAD_CLIENT_KEY", str(tmp_path / "client.key"))
    monkeypatch.setenv("NOMAD_TLS_SERVER_NAME", "server.global.nomad")
    found = find_address(NomadConfig())
    assert found == Address(
        "https://nomad.example:4647",
        "research",
        "eu",
        "t0ken",
        str(tmp_path / "ca.pem"),
        (str(tmp_path / "client.pem"), str(tmp_path / "client.key")),
        "server.global.nomad",
    )
    assert not found.here
    given = find_address(NomadConfig(nomad_address="http://localhost:1", namespace="mine", region="us"))
    assert (given.url, given.namespace, given.region, given.here) == ("http://localhost:1", "mine", "us", True)


def test_certificates_are_verified_unless_the_user_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_address(NomadConfig()).authorities is True
    monkeypatch.setenv("NOMAD_SKIP_VERIFY", "1")
    assert find_address(NomadConfig()).authorities is False
    assert "is not verified" in caplog.text


@pytest.mark.parametrize("text", ["unix:///run/nomad.sock", "ftp://x:1", "http://", "http://x:port", "http://x:1/path"])
def test_an_address_that_is_none_is_refused_with_the_way_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match="the address of Nomad") as caught:
        find_address(NomadConfig(nomad_address=text))
    assert "http://HOST:4646" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("node7", "http://node7:4646"),
        ("http://[::1]:4646", "http://[::1]:4646"),
        ("https://nomad.example/", "https://nomad.example"),  # as Nomad's own command line reads it: port 443
    ],
)
def test_short_and_numeric_addresses(text: str, url: str) -> None:
    assert find_address(NomadConfig(nomad_address=text)).url == url


def test_files_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOMAD_CACERT", str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match="NOMAD_CACERT names"):
        find_address(NomadConfig())
    monkeypatch.delenv("NOMAD_CACERT")
    (tmp_path / "client.pem").touch()
    monkeypatch.setenv("NOMAD_CLIENT_CERT", str(tmp_path / "client.pem"))
    with pytest.raises(ConfigError, match="belong together"):
        find_address(NomadConfig())


@pytest.mark.parametrize(
    "given", ["http://a:1, b,http://a:1,", ("http://a:1", "b"), ["http://a:1", " http://b:4646/ "]]
)
def test_several_agents(given: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_TOKEN", "t0ken")
    found = find_address(configured(NomadConfig, {"nomad_address": given}, what="the backend"))
    assert [(agent.url, agent.token) for agent in found.agents] == [("http://a:1", "t0ken"), ("http://b:4646", "t0ken")]
    assert str(found) == "http://a:1, http://b:4646"


def test_several_agents_are_here_if_all_of_them_are() -> None:
    assert find_address(NomadConfig(nomad_address="http://127.0.0.11:4646,localhost")).here
    assert not find_address(NomadConfig(nomad_address="localhost,http://nomad.example:4646")).here
