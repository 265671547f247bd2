"""TCP that is served by TLS alone, to clients with a certificate."""

from __future__ import annotations

import base64
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from hermes_sandboxd import daemon_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd_client import Daemon

pytestmark = pytest.mark.namespaces

TOKEN = "token"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def material(authority: trustme.CA, clients: trustme.CA | None = None) -> str:
    own = authority.issue_cert("sandbox.example")
    signer = (clients or authority).cert_pem.bytes()
    return base64.b64encode(own.private_key_and_cert_chain_pem.bytes() + signer).decode()


def client_context(authority: trustme.CA, signer: trustme.CA | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if signer is not None:
        signer.issue_cert("client.example").configure_cert(context)
    return context


@pytest.fixture
def secured(start: Callable[..., Daemon], authority: trustme.CA) -> Daemon:
    variables = {"HERMES_SANDBOX_TOKEN": TOKEN, "MATERIAL": material(authority)}
    return start("--tcp", "127.0.0.1:0", "--tls-env", "MATERIAL", env=variables)


def test_clients_with_a_certificate_are_served(secured: Daemon, authority: trustme.CA) -> None:
    client = secured.tcp_client(token=TOKEN, tls=client_context(authority, authority))
    client.open(0)
    data = os.urandom(3_000_000)
    assert client.upload("slot.write", data, slot=0, path="file").error is None
    assert client.call("slot.read", slot=0, path="file").bodies["content"] == data
    assert client.sh("env").stdout.count(b"MATERIAL") == 0
    assert secured.tcp_client(tls=client_context(authority, authority)).hello.kind == "unauthorized"
    secured.stop()


def test_others_are_turned_away_and_disturb_nobody(secured: Daemon, authority: trustme.CA) -> None:
    client = secured.tcp_client(token=TOKEN, tls=client_context(authority, authority))
    client.open(0)
    for signer in (None, trustme.CA()):
        with pytest.raises((OSError, EOFError)):
            secured.tcp_client("other", token=TOKEN, tls=client_context(authority, signer))
    with pytest.raises((OSError, EOFError)):
        secured.tcp_client("other", token=TOKEN)
    old = client_context(authority, authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):
        secured.tcp_client("other", token=TOKEN, tls=old)
    assert client.sh("echo hi").stdout == b"hi\n"


def test_the_key_is_on_no_disk(secured: Daemon) -> None:
    assert secured.ready["tcp"]
    found = [path for path in Path(secured.folder).rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()]
    open_files = [os.readlink(path) for path in Path(f"/proc/{secured.process.pid}/fd").iterdir()]
    assert found == []
    assert not any("memfd" in target for target in open_files)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "needs key and certificates"),
        ("", "needs key and certificates"),
        ("not base64", "not PEM in base64"),
        (base64.b64encode(b"nothing").decode(), "must hold a key"),
    ],
)
def test_missing_material_is_told(
    start: Callable[..., Daemon], capfd: pytest.CaptureFixture[str], value: str | None, said: str
) -> None:
    variables = {"HERMES_SANDBOX_TOKEN": TOKEN, **({} if value is None else {"MATERIAL": value})}
    daemon = start("--tcp", "127.0.0.1:0", "--tls-env", "MATERIAL", env=variables)
    assert daemon.process.wait(10) == 2
    error = capfd.readouterr().err
    assert error.startswith("hermes-sandboxd: ")
    assert said in error
    assert "MATERIAL" in error


def test_a_key_of_another_certificate_is_told(
    start: Callable[..., Daemon], capfd: pytest.CaptureFixture[str], authority: trustme.CA
) -> None:
    key = authority.issue_cert("other.example").private_key_pem.bytes()
    own = authority.issue_cert("sandbox.example").cert_chain_pems[0].bytes()
    mixed = base64.b64encode(key + own + authority.cert_pem.bytes()).decode()
    daemon = start(
        "--tcp", "127.0.0.1:0", "--tls-env", "MATERIAL", env={"HERMES_SANDBOX_TOKEN": TOKEN, "MATERIAL": mixed}
    )
    assert daemon.process.wait(10) == 2
    assert "KEY_VALUES_MISMATCH" in capfd.readouterr().err


def test_without_tcp_it_is_refused(start: Callable[..., Daemon], capfd: pytest.CaptureFixture[str]) -> None:
    assert start("--tls-env", "MATERIAL").process.wait(10) == 2
    assert "--tls-env" in capfd.readouterr().err


def test_its_argument() -> None:
    arguments = daemon_arguments(socket="s", state="d", capacity=1, tcp=":1", tls_env="MATERIAL")
    assert arguments[-2:] == ["--tls-env", "MATERIAL"]
