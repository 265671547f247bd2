"""A daemon for tests, and a small blocking client of its protocol."""

# ruff: noqa: ANN401 - parameters are whatever the protocol, or a test that breaks it, wants

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hermes_sandboxd
from hermes_sandboxd import CHUNK_BYTES, WINDOW_BYTES, FrameDecoder, daemon_arguments, encode_frame, find_bubblewrap

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

WAIT_S = 20.0
PACKAGE = Path(hermes_sandboxd.__file__).parent


@dataclass
class Answer:
    """What came for one request."""

    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    bodies: dict[str, bytes] = field(default_factory=dict)
    live: list[tuple[str, int, bytes]] = field(default_factory=list)

    @property
    def kind(self) -> str | None:
        return None if self.error is None else self.error["data"]["kind"]

    def __getitem__(self, name: str) -> Any:
        assert self.result is not None, self.error
        return self.result[name]

    @property
    def stdout(self) -> bytes:
        return self.bodies["stdout"]

    @property
    def stderr(self) -> bytes:
        return self.bodies["stderr"]


class Client:
    """One connection; requests may be sent ahead and their answers awaited in any order."""

    def __init__(
        self,
        address: str | tuple[str, int],
        session: str = "test",
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.session = session
        self._socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self._socket.settimeout(WAIT_S)
        self._socket.connect(address)
        self._decoder = FrameDecoder()
        self._frames: list[tuple[dict[str, Any], bytes | None]] = []
        self._answers: dict[int, Answer] = {}
        self._windows: dict[int, int] = {}
        # The answer to hello is not acknowledged: a refused connection may be gone by then.
        self.auto_ack = False
        self.auto_credit = True
        self.next_id = 1
        try:
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname="sandbox.example")
            self.hello = self.wait(self.send("hello", protocol=1, token=token, session=session, features=[]))
        except BaseException:
            self.close()
            raise
        self.auto_ack = True

    def close(self) -> None:
        """Drop the connection without a word."""
        self._socket.close()

    def raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def notify(self, method: str, _body: bytes | None = None, **params: Any) -> None:
        self.raw(encode_frame({"jsonrpc": "2.0", "method": method, "params": params}, _body))

    def send(self, method: str, _body: bytes | None = None, _resume: object = None, **params: Any) -> int:
        """Send a request; return its id."""
        request_id, self.next_id = self.next_id, self.next_id + 1
        self.send_as(request_id, method, _body, _resume, **params)
        return request_id

    def send_as(
        self, request_id: int, method: str, _body: bytes | None = None, _resume: object = None, **params: Any
    ) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        if _resume is not None:
            message["resume"] = _resume
        self.raw(encode_frame(message, _body))

    def receive(self) -> tuple[dict[str, Any], bytes | None]:
        """Return the next frame."""
        while not self._frames:
            data = self._socket.recv(262144)
            if not data:
                raise EOFError
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    def answer(self, request_id: int) -> Answer:
        return self._answers.setdefault(request_id, Answer())

    def has_answer(self, request_id: int) -> bool:
        answer = self._answers.get(request_id)
        return answer is not None and (answer.result is not None or answer.error is not None)

    def take_over(self, old: Client) -> None:
        """Go on where another connection of the session stopped."""
        self.next_id = old.next_id
        self._answers.update({key: answer for key, answer in old._answers.items() if old.has_answer(key)})

    def step(self) -> None:
        """Take one frame."""
        message, body = self.receive()
        if "method" not in message:
            self._settle(message, body)
            return
        params = message["params"]
        answer = self.answer(params["id"])
        if message["method"] == "credit":
            self._windows[params["id"]] = self._windows.get(params["id"], 0) + params["bytes"]
            return
        assert body is not None
        if message["method"] == "data":
            have = answer.bodies.get(params["channel"], b"")
            assert params["offset"] == len(have), (params, len(have))
            answer.bodies[params["channel"]] = have + body
        else:
            answer.live.append((params["stream"], params["offset"], body))
        if self.auto_credit:
            self.notify("credit", id=params["id"], bytes=len(body))

    def _settle(self, message: dict[str, Any], body: bytes | None) -> None:
        answer = self.answer(message["id"])
        answer.result, answer.error = message.get("result"), message.get("error")
        if answer.result is not None and body is not None:
            position = 0
            for name, size in answer.result["bodies"].items():
                answer.bodies[name] = body[position : position + size]
                position += size
        elif answer.result is not None:
            for name, size in answer.result.get("bodies", {}).items():
                assert len(answer.bodies.setdefault(name, b"")) == size
        if self.auto_ack:
            # The daemon that has just answered `shutdown` may be gone.
            with suppress(BrokenPipeError):
                self.notify("ack", ids=[message["id"]])

    def wait(self, request_id: int) -> Answer:
        """Take frames until the request is answered."""
        while True:
            if self.has_answer(request_id):
                return self._answers.pop(request_id)
            self.step()

    def call(self, method: str, _body: bytes | None = None, **params: Any) -> Answer:
        return self.wait(self.send(method, _body, **params))

    def upload(self, method: str, body: bytes, **params: Any) -> Answer:
        """Make a request whose body travels in pieces, with credit."""
        request_id = self.send(method, body={"size": len(body)}, **params)
        self.feed(request_id, body)
        return self.wait(request_id)

    def feed(self, request_id: int, body: bytes, offset: int = 0) -> None:
        """Send a body from `offset` with a fresh window, until it is through or the request is answered."""
        self._windows[request_id] = WINDOW_BYTES
        while True:
            size = min(CHUNK_BYTES, len(body) - offset, self._windows[request_id])
            end = offset + size == len(body)
            if size or end:
                chunk = body[offset : offset + size]
                self.notify(
                    "data", chunk, id=request_id, channel="body", offset=offset, **({"end": True} if end else {})
                )
                self._windows[request_id] -= size
                offset += size
            if end:
                return
            while self._windows[request_id] <= 0:
                self.step()
                if self.has_answer(request_id):
                    return

    def open(self, slot: int = 0, **params: Any) -> None:
        answer = self.call("slot.open", slot=slot, **params)
        assert answer.error is None, answer.error

    def sh(self, command: str, slot: int = 0, **params: Any) -> Answer:
        """Run a shell command."""
        return self.call("slot.exec", slot=slot, argv=["/bin/sh", "-c", command], **params)

    def send_sh(self, command: str, slot: int = 0, **params: Any) -> int:
        return self.send("slot.exec", slot=slot, argv=["/bin/sh", "-c", command], **params)


class Daemon:
    """A `hermes-sandboxd serve` in folders of its own."""

    def __init__(
        self,
        *options: str,
        capacity: int = 8,
        command: Sequence[str] | None = None,
        user: int | None = None,
        env: Mapping[str, str] | None = None,
        orphan_grace_s: float = 60.0,
        folder: str | None = None,
        bwrap: str | None = find_bubblewrap(),
    ) -> None:
        self.folder = folder or tempfile.mkdtemp(prefix="hermes-test-", dir="/tmp")
        os.chmod(self.folder, 0o755)
        if user is not None:
            os.chown(self.folder, user, user)
        self.socket = os.path.join(self.folder, "s")
        self.state = os.path.join(self.folder, "state")
        self._clients: list[Client] = []
        reading, self.lifeline = os.pipe()
        arguments = daemon_arguments(
            socket=self.socket,
            state=self.state,
            capacity=capacity,
            lifeline_fd=reading,
            orphan_grace_s=orphan_grace_s,
            bwrap=bwrap,
        )
        if command is not None:
            arguments[:4] = command
        identity: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        self.process = subprocess.Popen(
            [*arguments, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[reading],
            cwd="/",
            env={"PATH": os.environ["PATH"], **(env or {})},
            **identity,
        )
        os.close(reading)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.ready: dict[str, Any] = json.loads(line) if line else {}

    def client(self, session: str = "test", *, token: str | None = None) -> Client:
        """Connect; the connection is closed with the daemon at the latest."""
        self._clients.append(Client(self.socket, session, token=token))
        return self._clients[-1]

    def tcp_client(
        self, session: str = "test", *, token: str | None = None, tls: ssl.SSLContext | None = None
    ) -> Client:
        self._clients.append(Client(("127.0.0.1", self.ready["tcp"]), session, token=token, tls=tls))
        return self._clients[-1]

    def hang_up(self) -> None:
        """Close every client's connection."""
        for client in self._clients:
            client.close()

    def descendants(self) -> list[int]:
        """The processes below the daemon, whichever namespace they are in."""
        return sorted(filter(is_alive, _below(self.process.pid, _parents())))

    @property
    def zygote(self) -> int:
        """The daemon's only child."""
        (zygote,) = self._children(self.process.pid)
        return zygote

    def supervisors(self) -> set[int]:
        """The zygote's children."""
        return self._children(self.zygote)

    def _children(self, pid: int) -> set[int]:
        return {child for child, parent in _parents().items() if parent == pid and is_alive(child)}

    def stop(self) -> None:
        """End the daemon by its lifeline; see that it leaves nothing behind."""
        processes = self.descendants()
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1
        self.process.wait(WAIT_S)
        self.assert_gone(processes)
        self.discard()

    def assert_gone(self, processes: Sequence[int]) -> None:
        """See that none of `processes` lives, and that neither a mount nor a folder is left."""
        wait_until(lambda: not any(map(is_alive, processes)))
        wait_until(lambda: not os.path.exists(self.state) and not os.path.exists(self.socket))
        assert self.folder not in Path("/proc/self/mounts").read_text()

    def discard(self) -> None:
        """Kill the daemon if it still runs, and close everything here."""
        self.hang_up()
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in b"ZX"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def processes_with(marker: str) -> list[int]:
    """The living processes of this machine whose command line has `marker` in it."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line and is_alive(int(name)):
                found.append(int(name))
    return found


def _parents() -> dict[int, int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = int(Path(f"/proc/{name}/stat").read_bytes().rpartition(b") ")[2].split()[1])
            except OSError:
                continue
    return parents


def _below(pid: int, parents: dict[int, int]) -> set[int]:
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level} - found
        found |= level
    return found
