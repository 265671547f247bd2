"""A daemon that is reached by TCP and TLS, with a token, as on another machine."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio
import pytest
import trustme

from hermes_core.exceptions import ProtocolError, SandboxLostError
from hermes_core.sandbox import SandboxClient, SlotClient, connect_tcp, greet
from hermes_sandboxd import daemon_arguments, find_bubblewrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import ByteStream

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

NAME = "sandbox.example"


@dataclass(frozen=True)
class Remote:
    """A sandbox at a port."""

    port: int
    tls: ssl.SSLContext
    token: str | None = "token"
    name: str = "remote"
    capacity: int = 2

    async def connect(self) -> ByteStream:
        return await connect_tcp("127.0.0.1", self.port, tls=self.tls, server_name=NAME)

    async def alive(self) -> str | None:
        return None

    async def stop(self) -> None:
        return


@pytest.fixture
def remote() -> Iterator[Remote]:
    authority = trustme.CA()
    own = authority.issue_cert(NAME).private_key_and_cert_chain_pem.bytes()
    variables = {
        "PATH": os.environ["PATH"],
        "HERMES_SANDBOX_TOKEN": "token",
        "MATERIAL": base64.b64encode(own + authority.cert_pem.bytes()).decode(),
    }
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    authority.issue_cert("client.example").configure_cert(tls)
    with tempfile.TemporaryDirectory(prefix="hermes-test-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        arguments = daemon_arguments(
            socket=f"{folder}/s",
            state=f"{folder}/state",
            capacity=2,
            tcp="127.0.0.1:0",
            tls_env="MATERIAL",
            idle_end_s=60,
            bwrap=find_bubblewrap(),
        )
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=variables) as daemon:
            assert daemon.stdout is not None
            yield Remote(json.loads(daemon.stdout.readline())["tcp"], tls)
            daemon.terminate()


async def test_commands_and_files_go_there_and_back(remote: Remote) -> None:
    client = SandboxClient(remote)
    data = os.urandom(2_000_000)
    async with anyio.create_task_group() as tasks:
        await tasks.start(client.run)
        slot = SlotClient(client, 0)
        await slot.open()
        await slot.write("file", data)
        assert (await slot.read("file")).data == data
        client.reconnect()
        assert (await slot.exec(("wc", "-c", "file"), timeout_s=10)).stdout == b"2000000 file\n"
        await client.leave()


async def test_it_is_greeted_by_whom_it_knows(remote: Remote) -> None:
    assert (await greet(remote)).capacity == 2
    with pytest.raises(ProtocolError, match="wrong token"):
        await greet(replace(remote, token="wrong"))


async def test_a_stranger_is_told_that_it_was_hung_up_on(remote: Remote) -> None:
    strange = ssl.create_default_context()
    strange.check_hostname = False
    strange.verify_mode = ssl.CERT_NONE
    with pytest.raises(SandboxLostError, match="ended before hello was answered"):
        await greet(replace(remote, tls=strange), reconnect_s=0.2)
