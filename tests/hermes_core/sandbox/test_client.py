from __future__ import annotations

import os
import random
import ssl
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.exceptions import BackendUnavailableError, ProtocolError, SandboxLostError
from hermes_core.sandbox import SandboxClient, SandboxSpec, SlotClient, connect_tcp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hermes_core.sandbox import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@dataclass
class CutStream(ByteStream):
    """Breaks after so many bytes, in the middle of whatever is on its way."""

    inner: ByteStream
    left: int

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self.inner.receive(max_bytes)
        self.left -= len(data)
        if self.left <= 0:
            raise anyio.EndOfStream  # what was just received is lost
        return data

    async def send(self, item: bytes) -> None:
        self.left -= len(item)
        if self.left <= 0:
            await self.inner.send(item[: len(item) // 2])
            raise anyio.BrokenResourceError
        await self.inner.send(item)

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()


@dataclass
class CutSandbox:
    """A sandbox behind a bad line."""

    inner: Sandbox
    random: random.Random = field(default_factory=lambda: random.Random(7))
    connections: int = 0
    least: int = 16_000
    most: int = 60_000
    down: bool = False

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def capacity(self) -> int:
        return self.inner.capacity

    @property
    def token(self) -> str | None:
        return self.inner.token

    async def connect(self) -> ByteStream:
        if self.down:
            raise ConnectionRefusedError
        self.connections += 1
        return CutStream(await self.inner.connect(), self.random.randint(self.least, self.most))

    async def alive(self) -> str | None:
        return await self.inner.alive()

    async def stop(self) -> None:
        await self.inner.stop()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with LocalBackend() as backend:
        yield await backend.start(SandboxSpec(slots=8), f"test-{os.getpid()}", os.urandom(4).hex())


async def test_across_dropped_connections_each_call_runs_exactly_once(sandbox: Sandbox) -> None:
    bad = CutSandbox(sandbox)
    client = SandboxClient(bad)
    answered: Counter[str] = Counter()

    # What is in flight is sent again after each cut: it must fit between two of them for anything to happen at all.
    in_flight = anyio.Semaphore(40)

    async def run(slot: SlotClient, number: int) -> None:
        async with in_flight:
            await run_now(slot, number)

    async def run_now(slot: SlotClient, number: int) -> None:
        done = await slot.exec(("/bin/sh", "-c", f"echo {number} >> log; echo {number}"), timeout_s=30)
        answered[done.stdout.decode().strip()] += 1

    async with anyio.create_task_group() as tasks:
        await tasks.start(client.run)
        slots = [SlotClient(client, index) for index in range(8)]
        for slot in slots:
            await slot.open()
        async with anyio.create_task_group() as calls:
            for number in range(1000):
                calls.start_soon(run, slots[number % 8], number)
        logs = [(await slot.read("log")).data.decode() for slot in slots]
        client.close("done")
    expected = Counter(str(number) for number in range(1000))
    assert answered == expected
    assert Counter(line for log in logs for line in log.split()) == expected
    assert bad.connections > 5


async def test_bodies_survive_dropped_connections(sandbox: Sandbox) -> None:
    bad = CutSandbox(sandbox, least=300_000, most=6_000_000)
    client = SandboxClient(bad)
    data = os.urandom(3_000_000)
    live = bytearray()
    async with anyio.create_task_group() as tasks:
        await tasks.start(client.run)
        slot = SlotClient(client, 0)
        await slot.open()
        for _ in range(4):
            await slot.write("file", data)
            assert (await slot.read("file", sha256=True)).data == data
            live.clear()
            done = await slot.exec(
                ("cat", "file", "-"),
                timeout_s=30,
                stdin=data,
                on_output=lambda _, chunk: live.extend(chunk),
                output_cap=10_000_000,
            )
            assert done.stdout == data + data
            assert live == data + data
        client.close("done")
    assert bad.connections > 5


async def test_a_cancelled_request_stays_cancelled_across_a_dropped_connection(sandbox: Sandbox) -> None:
    bad = CutSandbox(sandbox, least=10**9, most=10**9)
    client = SandboxClient(bad)
    async with anyio.create_task_group() as tasks:
        await tasks.start(client.run)
        slot = SlotClient(client, 0)
        await slot.open()
        with anyio.move_on_after(0.1):
            await slot.exec(("sleep", "60"), timeout_s=60)
        bad.down = True
        client.reconnect()
        await anyio.sleep(0.05)
        with anyio.move_on_after(0.05):
            await slot.exec(("touch", "never"), timeout_s=60)
        bad.down = False
        with anyio.fail_after(10):
            done = await slot.exec(("ls", "-A"), timeout_s=10)
        assert done.stdout == b""
        client.close("done")


async def test_a_daemon_that_stays_away_is_lost(sandbox: Sandbox) -> None:
    bad = CutSandbox(sandbox, least=10**9, most=10**9)
    client = SandboxClient(bad, reconnect_s=0.2)
    async with anyio.create_task_group() as tasks:
        await tasks.start(client.run)
        slot = SlotClient(client, 0)
        await slot.open()
        bad.down = True
        client.reconnect()
        with anyio.fail_after(30), pytest.raises(SandboxLostError, match=r"could not be reached for 0\.2 s"):
            await slot.exec(("true",), timeout_s=5)
        with pytest.raises(SandboxLostError):
            await slot.exec(("true",), timeout_s=5)
        await client.wait_ended()


async def test_a_daemon_that_is_dead_is_lost_at_once(sandbox: Sandbox) -> None:
    client = SandboxClient(sandbox)
    async with anyio.create_task_group() as tasks:
        await tasks.start(client.run)
        await sandbox.stop()
        with anyio.fail_after(30), pytest.raises(SandboxLostError):
            await SlotClient(client, 0).open()


async def test_another_daemon_at_the_same_place_is_not_the_sandbox(sandbox: Sandbox) -> None:
    async with LocalBackend() as backend:
        other = await backend.start(SandboxSpec(slots=1), f"test-{os.getpid()}", os.urandom(4).hex())
        bad = CutSandbox(sandbox, least=10**9, most=10**9)
        client = SandboxClient(bad)
        async with anyio.create_task_group() as tasks:
            await tasks.start(client.run)
            bad.inner = other
            client.reconnect()
            with anyio.fail_after(30):
                await client.wait_ended()
        assert "started anew" in (client.lost or "")


class Babbling(CutSandbox):
    """Something else listens there."""

    async def connect(self) -> ByteStream:
        return Babble()


class Babble(ByteStream):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        return b"HTTP/1.1 400 Bad Request\r\n\r\n"

    async def send(self, item: bytes) -> None:
        return

    async def send_eof(self) -> None:
        return

    async def aclose(self) -> None:
        return


async def test_something_else_that_listens_there_is_recognised(sandbox: Sandbox) -> None:
    async with anyio.create_task_group() as tasks:
        with pytest.raises(ProtocolError, match="does not speak the sandbox protocol"):
            await tasks.start(SandboxClient(Babbling(sandbox)).run)


@dataclass
class Secured(CutSandbox):
    """Is spoken with by TLS, at a port of this machine."""

    port: int = 0

    async def connect(self) -> ByteStream:
        return await connect_tcp("127.0.0.1", self.port, tls=ssl.create_default_context())


async def test_tls_that_cannot_be_spoken_is_told_at_once(sandbox: Sandbox) -> None:
    async def answer(stream: ByteStream) -> None:
        async with stream:
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        client = SandboxClient(Secured(sandbox, port=listener.extra(SocketAttribute.local_port)), reconnect_s=600)
        with anyio.fail_after(60), pytest.raises(BackendUnavailableError, match="TLS cannot be spoken"):
            await tasks.start(client.run)
        tasks.cancel_scope.cancel()
