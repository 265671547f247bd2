"""Which certificates of an agent are trusted: the same ones by calls and by the event stream."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack, suppress
from threading import Thread
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme
from tests.hermes_backend_nomad.web_servers import QuietHandler, serving
from tests.stand_ins.nomad.fixtures import running_stand_in

from hermes_backend_nomad import NomadConfig
from hermes_backend_nomad._address import Address, find_address
from hermes_backend_nomad._changes import Changes
from hermes_backend_nomad._cluster import Cluster
from hermes_backend_nomad._errors import stream_error
from hermes_backend_nomad._trust import tls_context
from hermes_core.exceptions import ConfigError, HermesError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

NAME = "server.global.nomad"
WAYS = ("calls", "events")


class Party:
    """Who speaks TLS, and the files of it.

    Attributes:
        ca: Of the authority that counts.
        other: Of another one.
        between: Of the one that signed the agent's certificate, whose own is signed by `ca`.
        server: Of the agent: certificate and key.
        client: Of a client: certificate and key.
    """

    def __init__(self, folder: Path) -> None:
        self.ca, self.other, self.between = folder / "ca.pem", folder / "other.pem", folder / "between.pem"
        self.server = folder / "server.pem", folder / "server.key"
        self.client = folder / "client.pem", folder / "client.key"
        root = trustme.CA()
        root.cert_pem.write_to_path(self.ca)
        trustme.CA().cert_pem.write_to_path(self.other)
        between = root.create_child_ca()
        between.cert_pem.write_to_path(self.between)
        for (certificate, key), name in ((self.server, NAME), (self.client, "client.global.nomad")):
            issued = between.issue_cert(name, "127.0.0.1")
            issued.private_key_pem.write_to_path(key)
            # The authority as well, by which the stand-in's own client knows it.
            for number, pem in enumerate((*issued.cert_chain_pems, root.cert_pem)):
                pem.write_to_path(certificate, append=number > 0)


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> Party:
    return Party(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def agent(party: Party) -> Iterator[str]:
    """The address of an agent that speaks TLS."""
    with running_stand_in(docker=False, tls_cert=party.server[0], tls_key=party.server[1]) as started:
        yield started.cluster.address


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


async def ask(way: str, address: str) -> str | None:
    """Ask an agent by calls, or for its events; return why that cannot be."""
    try:
        found = find_address(NomadConfig(nomad_address=address))
        if way == "calls":
            async with Cluster(found, patience_s=0):
                return None
        cluster = Cluster(found)
        lines = Changes(cluster, "none-")._lines(cluster.agent, 0)
        try:
            assert await anext(lines) == b"{}"
        except (httpx.HTTPError, OSError) as error:
            raise stream_error(error, found) from error
        finally:
            await lines.aclose()
    except HermesError as error:
        return error.message
    return None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "NOMAD_CACERT"])
async def test_an_authority_of_this_machine_or_one_that_is_named(
    way: str, variable: str, agent: str, party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is not trusted" in str(await ask(way, agent))
    monkeypatch.setenv(variable, str(party.ca))
    assert await ask(way, agent) is None
    monkeypatch.setenv(variable, str(party.other))
    assert "is not trusted" in str(await ask(way, agent))


@pytest.mark.parametrize("way", WAYS)
async def test_one_that_is_named_is_trusted_instead_of_this_machines(
    way: str, agent: str, party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(party.ca))
    monkeypatch.setenv("NOMAD_CACERT", str(party.other))
    assert "is not trusted" in str(await ask(way, agent))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_what_other_programs_trust_does_not_count(
    way: str, variable: str, agent: str, party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Address, "here", False)  # so that the environment has a say
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv(variable, str(party.ca))
    assert "is not trusted" in str(await ask(way, agent))


@pytest.mark.parametrize("way", WAYS)
async def test_a_folder_of_authorities_whatever_its_files_are_called(
    way: str, agent: str, party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "nomad-ca").write_bytes(party.ca.read_bytes())
    (tmp_path / "another.pem").write_bytes(party.other.read_bytes())
    monkeypatch.setenv("NOMAD_CAPATH", str(tmp_path))
    assert await ask(way, agent) is None


@pytest.mark.parametrize("way", WAYS)
async def test_an_authority_in_between_is_enough(
    way: str, agent: str, party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMAD_CACERT", str(party.between))
    assert await ask(way, agent) is None


@pytest.mark.parametrize("way", WAYS)
async def test_the_name_in_the_certificate(way: str, agent: str, party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_CACERT", str(party.ca))
    by_name = agent.replace("127.0.0.1", "localhost")
    assert "is not trusted" in str(await ask(way, by_name))
    monkeypatch.setenv("NOMAD_TLS_SERVER_NAME", NAME)
    assert await ask(way, by_name) is None
    monkeypatch.setenv("NOMAD_TLS_SERVER_NAME", "server.mars.nomad")
    assert "is not trusted" in str(await ask(way, by_name))
    assert "is not trusted" in str(await ask(way, agent)), "its number is in there, and was not asked for"


def carry(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes from one to the other until one of them has ended, and end both."""
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(agent: str) -> Iterator[str]:
    """A proxy that leads to the agent, whatever it is asked for."""

    class Handler(QuietHandler):
        def do_CONNECT(self) -> None:
            with socket.create_connection(("127.0.0.1", int(agent.rpartition(":")[2]))) as outer:
                self.send_response(200)
                self.end_headers()
                back = Thread(target=carry, args=(outer, self.connection))
                back.start()
                carry(self.connection, outer)
                back.join()

    with serving(Handler) as address:
        yield address


@pytest.mark.parametrize("way", WAYS)
async def test_a_proxy_between_changes_nothing(
    way: str, proxy: str, party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    address = "https://nomad.invalid:4646"
    monkeypatch.setenv("NOMAD_TLS_SERVER_NAME", NAME)
    assert "is not trusted" in str(await ask(way, address))
    monkeypatch.setenv("NOMAD_CACERT", str(party.ca))
    assert await ask(way, address) is None
    monkeypatch.delenv("NOMAD_TLS_SERVER_NAME")
    assert "is not trusted" in str(await ask(way, address))


@pytest.mark.parametrize("way", WAYS)
async def test_any_at_all_if_the_user_says_so(way: str, agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_SKIP_VERIFY", "true")
    assert await ask(way, agent) is None


async def test_a_certificate_of_our_own(party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = {"tls_cert": party.server[0], "tls_key": party.server[1], "tls_ca": party.ca}
    monkeypatch.setenv("NOMAD_CACERT", str(party.ca))
    with ExitStack() as stack:
        address = stack.enter_context(running_stand_in(docker=False, **tls)).cluster.address
        assert [await ask(way, address) is None for way in WAYS] == [False, False]
        monkeypatch.setenv("NOMAD_CLIENT_CERT", str(party.client[0]))
        monkeypatch.setenv("NOMAD_CLIENT_KEY", str(party.client[1]))
        assert [await ask(way, address) for way in WAYS] == [None, None]


def test_of_this_machine_everything_is_trusted_that_openssl_finds() -> None:
    context = tls_context(Address("https://nomad.example:4646"))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats() == ssl.create_default_context().cert_store_stats()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"NOMAD_CACERT": "server.key"}, "server.key cannot be read as certificates"),
        ({"NOMAD_CLIENT_CERT": "client.pem", "NOMAD_CLIENT_KEY": "server.key"}, "are no certificate and its key"),
    ],
)
def test_files_that_are_something_else_are_named(
    variables: dict[str, str], said: str, party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in variables.items():
        monkeypatch.setenv(name, str(party.ca.parent / file))
    with pytest.raises(ConfigError, match=said) as raised:
        Cluster(find_address(NomadConfig(nomad_address="https://127.0.0.1:1")))
    assert "NOMAD_" in str(raised.value.hint)
