"""What is secret about a sandbox is in its variable and nowhere else, and goes with it."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import anyio.lowlevel
import pytest
from tests.hermes_backend_nomad.belongings import jobs_of, variables_of, wait_until
from tests.hermes_backend_nomad.processes import command_line, having

from hermes_backend_nomad._sandbox import NomadSandbox
from hermes_core import Hermes
from hermes_core.exceptions import HermesError
from hermes_core.sandbox import SandboxSpec, connect_tcp, greet

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import ByteStream
    from tests.hermes_backend_nomad.conftest import Backend
    from tests.hermes_backend_nomad.witness import Witness
    from tests.stand_ins.nomad.cluster import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.nomad, pytest.mark.docker, pytest.mark.apptainer]


@pytest.fixture
def anyio_backend(backend_name: str) -> str:
    """One event loop for each backend."""
    return {"nomad": "asyncio", "nomad-singularity": "trio"}[backend_name]


async def started(backend: Backend) -> NomadSandbox:
    """A sandbox, and that of the backend's own class."""
    sandbox = await backend.start(SandboxSpec(slots=1), "owner", "owner-0")
    assert isinstance(sandbox, NomadSandbox)
    return sandbox


def told(cluster: Cluster, sandbox: NomadSandbox) -> str:
    """Everything that the cluster says of a sandbox, but its variable."""
    job, allocation = sandbox.job_id, sandbox.allocation_id
    paths = (f"job/{job}", f"job/{job}/allocations", f"job/{job}/evaluations", f"allocation/{allocation}")
    said = [json.dumps(cluster.call("GET", f"/v1/{path}")) for path in paths]
    said += [json.dumps(cluster.call("GET", "/v1/jobs", prefix=job, meta="true"))]
    for stream in ("stdout", "stderr"):
        query = {"task": "daemon", "type": stream, "plain": "true"}
        said.append(cluster.answer("GET", f"/v1/client/fs/logs/{allocation}", **query).text)
    return "\n".join(said)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_the_token_is_in_the_variable_of_the_job_alone(
    backend_name: str, tls: bool, cluster: Cluster, witness: Witness, make: Callable[..., Backend]
) -> None:
    async with make(backend_name, tls=tls) as backend:
        sandbox = await started(backend)
        assert sandbox.allocation_id is not None
        items: dict[str, str] = cluster.call("GET", f"/v1/var/nomad/jobs/{sandbox.job_id}")["Items"]
        assert items["token"] == sandbox.token
        assert ({"tls", "client"} <= items.keys()) is tls
        secrets = [items["token"], *(items[name] for name in ("tls", "client") if tls)]
        said = told(cluster, sandbox)
        assert "running" in said
        commands = b"\n".join(command_line(pid) for pid in having(sandbox.allocation_id)).decode()
        assert "hermes_sandboxd" in commands
        wait_until(lambda: any("running" in line for line in witness.lines), "the events do not tell of it")
        for secret in secrets:
            assert secret not in said
            assert secret not in commands
            assert not [line for line in witness.lines if secret in line]
        # Slots are others' programs.
        async with Hermes(backend=make(backend_name, tls=tls)) as hermes, hermes.lease() as slot:
            assert "HERMES_SANDBOX" not in (await slot.exec("env; cat /proc/[0-9]*/environ 2>/dev/null")).stdout
    assert not variables_of(cluster, witness.job_id)
    assert not jobs_of(cluster, witness.job_id)


class Stranger:
    """Somebody who knows where a sandbox is."""

    def __init__(self, sandbox: NomadSandbox, port: int, token: str, tls: ssl.SSLContext | None = None) -> None:
        self.name, self.capacity, self.token = sandbox.name, sandbox.capacity, token
        self._port = port
        self._tls = tls

    async def connect(self) -> ByteStream:
        return await connect_tcp("127.0.0.1", self._port, tls=self._tls)

    async def alive(self) -> str | None:
        return None

    async def stop(self) -> None:
        await anyio.lowlevel.checkpoint()


def port_of(cluster: Cluster, sandbox: NomadSandbox) -> int:
    """Where the daemon listens."""
    allocation: dict[str, Any] = cluster.call("GET", f"/v1/allocation/{sandbox.allocation_id}")
    [port] = [one for one in allocation["AllocatedResources"]["Shared"]["Ports"] if one["Label"] == "rpc"]
    return int(port["Value"])


async def test_a_wrong_token_is_refused(backend_name: str, cluster: Cluster, make: Callable[..., Backend]) -> None:
    async with make(backend_name) as backend:
        sandbox = await started(backend)
        port = port_of(cluster, sandbox)
        for wrong in ("", "wr0ng", sandbox.token[:-1]):
            with pytest.raises(HermesError, match=r"token|unauthorized"):
                await greet(Stranger(sandbox, port, wrong), reconnect_s=0.1)
        assert (await greet(Stranger(sandbox, port, sandbox.token))).capacity == 1


async def test_with_tls_only_who_has_a_certificate_gets_in(
    backend_name: str, cluster: Cluster, make: Callable[..., Backend]
) -> None:
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    async with make(backend_name, tls=True) as backend:
        sandbox = await started(backend)
        port = port_of(cluster, sandbox)
        for tls in (None, anybody):
            with pytest.raises(HermesError):
                await greet(Stranger(sandbox, port, sandbox.token, tls), reconnect_s=0.1)
        assert (await greet(sandbox)).capacity == 1


async def test_slots_work_over_tls(backend_name: str, make: Callable[..., Backend]) -> None:
    data = bytes(range(256)) * 10_000
    async with Hermes(backend=make(backend_name, tls=True)) as hermes, hermes.lease() as slot:
        assert (await slot.exec("echo $((6 * 7))")).stdout == "42\n"
        await slot.write_file("file", data)
        assert await slot.read_file("file") == data
        slot.lease.client.sandbox.reconnect()
        assert (await slot.exec("wc -c < file")).stdout.strip() == str(len(data))
