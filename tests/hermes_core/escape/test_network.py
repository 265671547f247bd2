"""Sockets of the host and of other slots, from a slot without network."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hermes_core.escape.conftest import Attacker, Secret

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.fixture
def touched() -> list[object]:
    return []


def listen(listener: socket.socket, touched: list[object]) -> None:
    listener.listen()

    def accept() -> None:
        try:
            while True:
                touched.append(listener.accept())
        except OSError:
            pass

    threading.Thread(target=accept, daemon=True).start()


def close(listener: socket.socket) -> None:
    # Wakes the thread that accepts.
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def port(touched: list[object]) -> Iterator[int]:
    """A server on the host's loopback, and on every other address of it."""
    listener = socket.socket()
    listener.bind(("0.0.0.0", 0))
    listen(listener, touched)
    yield int(listener.getsockname()[1])
    close(listener)
    assert not touched


def addresses() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            outward = probe.getsockname()[0]
        except OSError:
            outward = "10.0.2.15"
    return ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::ffff:127.0.0.1", outward, "169.254.169.254", "192.0.2.1"]


async def test_servers_of_the_host_are_not_reached(attacker: Attacker, port: int) -> None:
    await attacker.fails(
        f"for address in {addresses()!r}:\n    attempt(address, lambda: socket.create_connection((address, {port}), 1))"
    )


async def test_datagrams_do_not_leave(attacker: Attacker) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("0.0.0.0", 0))
        receiver.settimeout(0.2)
        number = receiver.getsockname()[1]
        await attacker.python(
            f"for address in {[a for a in addresses() if ':' not in a]!r}:\n"
            f"    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"    attempt(address, sender.sendto, b'x', (address, {number}))"
        )
        with pytest.raises(TimeoutError):
            receiver.recv(1)


async def test_abstract_sockets_of_the_host_are_not_there(attacker: Attacker, touched: list[object]) -> None:
    name = f"hermes-{uuid.uuid4().hex}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{name}")
    listen(listener, touched)
    await attacker.fails(f"attempt('connect', socket.socket(socket.AF_UNIX).connect, '\\0{name}')")
    assert name not in (await attacker.sh("cat /proc/net/unix")).stdout
    close(listener)
    assert not touched


async def test_named_sockets_of_the_host_are_not_there(
    attacker: Attacker, secret: Secret, touched: list[object]
) -> None:
    path = str(secret.path.parent / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o777)
    listen(listener, touched)
    await attacker.sh(f"ln -s {path} link")
    await attacker.fails(
        f"for path in ({path!r}, 'link', '/proc/1/root{path}', '/run/docker.sock', '/var/run/docker.sock',\n"
        f"             '/run/dbus/system_bus_socket', '/run/systemd/private', '/tmp/.X11-unix/X0'):\n"
        f"    attempt(path, socket.socket(socket.AF_UNIX).connect, path)"
    )
    close(listener)
    os.unlink(path)
    assert not touched


@pytest.mark.parametrize("address", ["('127.0.0.1', 4242)", "'\\\\0hermes'", "'/tmp/socket'", "'/dev/shm/socket'"])
async def test_servers_of_another_slot_are_not_reached(attacker: Attacker, victim: Attacker, address: str) -> None:
    family = "AF_INET" if "127" in address else "AF_UNIX"
    serve = (
        "import os, socket\n"
        f"server = socket.socket(socket.{family}); server.bind({address}); server.listen()\n"
        "if os.fork() == 0:\n"
        "    server.accept(); open('touched', 'w')\n"
    ).replace("\\\\", "\\")
    await victim.slot.write_file("serve.py", serve)
    await victim.sh("python3 serve.py > /dev/null 2>&1")
    await attacker.fails(f"attempt('connect', socket.socket(socket.{family}).connect, {address})".replace("\\\\", "\\"))
    assert (await victim.sh("ls")).stdout == "serve.py\n"
    # It was there all the time.
    mine = await victim.python(f"socket.socket(socket.{family}).connect({address})".replace("\\\\", "\\"))
    assert mine.exit_code == 0


@pytest.mark.parametrize(
    "attempts",
    [
        "attempt('raw', socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)",
        "attempt('raw6', socket.socket, socket.AF_INET6, socket.SOCK_RAW, 58)",
        "attempt('packet', socket.socket, 17, socket.SOCK_RAW, 0x0300)",
        "attempt('packet datagram', socket.socket, 17, socket.SOCK_DGRAM, 0x0300)",
        "attempt('mark', socket.socket().setsockopt, socket.SOL_SOCKET, 36, 1)",
    ],
)
async def test_raw_sockets_are_refused(attacker: Attacker, attempts: str) -> None:
    await attacker.fails(attempts)


async def test_routes_and_links_are_not_changed(attacker: Attacker) -> None:
    await attacker.fails(
        """
def ask(kind, body):
    # NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    sock.send(struct.pack('IHHII', 16 + len(body), kind, 0x405, 1, 0) + body)
    code = struct.unpack('i', sock.recv(4096)[16:20])[0]
    if code < 0:
        raise OSError(-code, '')
attempt('link down', ask, 16, struct.pack('BBHiII', 0, 0, 0, 1, 0, 1))
attempt('new link', ask, 16, struct.pack('BBHiII', 0, 0, 0, 0, 0, 0) + struct.pack('HH', 4, 3))
attempt('route', ask, 24, struct.pack('BBBBBBBBI', 2, 0, 0, 0, 254, 4, 0, 1, 0) + struct.pack('HHi', 8, 4, 1))
attempt('address', ask, 20, struct.pack('BBBBi', 2, 8, 0, 0, 1) + struct.pack('HH4s', 8, 2, bytes([10, 0, 0, 1])))
attempt('promiscuous', fcntl.ioctl, socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x100))
"""
    )


async def test_descriptors_do_not_travel_out(attacker: Attacker) -> None:
    done = await attacker.sh("ls -l /proc/self/fd /proc/$$/fd | grep -v pipe: | grep -v /dev/null | grep -- '->'")
    assert "socket:" not in done.stdout
    assert "anon_inode" not in done.stdout
