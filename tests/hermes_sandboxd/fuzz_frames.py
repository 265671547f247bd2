"""A coverage-guided fuzzer of what the daemon understands: `nox -s fuzz`, or this file with options of libFuzzer.

Each input is a stream of bytes, cut into pieces, on a connection of a daemon of its own; half of the inputs are a
recipe for frames that are almost right. The daemon has no slots to give away (isolation is said to be unavailable), so
that an input costs no process. Nothing may escape, and every answer must belong to a request and be the only one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import atheris

with atheris.instrument_imports(include=["hermes_sandboxd"]):
    from hermes_sandboxd._connection import Connection
    from hermes_sandboxd._daemon import Daemon, Options
    from hermes_sandboxd._frames import FrameDecoder, FrameError, encode_frame
    from hermes_sandboxd._levels import Isolation

_METHODS = [
    *("hello", "health", "shutdown", "slot.open", "slot.exec", "slot.read", "slot.write", "slot.reset", "slot.poll"),
    *("data", "credit", "cancel", "ack", "", "x"),
]
_NAMES = [
    *("slot", "argv", "timeout_s", "env", "body", "path", "limits", "network", "id", "ids", "bytes", "offset", "end"),
    *("channel", "protocol", "session", "token", "size", "x"),
]
_VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 2**31, 2**80, 0.5, 1e400, float("nan"), "", "a", "\ud800", "\0", "none"),
    *([], {}, [1], [1, 2, 3], [[]], ["true"], {"size": 3}, {"a": "b"}, {"": ""}, {"memory_bytes": 1}),
]
_HELLO: dict[str, Any] = {"protocol": 1, "token": None, "session": "s", "features": []}


class _Wire(asyncio.Transport):
    """The other end: keeps what the daemon says."""

    def __init__(self) -> None:
        super().__init__()
        self.said = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.said += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


def _recipe(data: bytes) -> bytes:
    choose = atheris.FuzzedDataProvider(data)
    stream = [_frame({"id": 1, "method": "hello", "params": _HELLO})]
    while choose.remaining_bytes() > 2:
        names = [_NAMES[choose.ConsumeIntInRange(0, len(_NAMES) - 1)] for _ in range(choose.ConsumeIntInRange(0, 4))]
        message: dict[str, Any] = {
            "method": _METHODS[choose.ConsumeIntInRange(0, len(_METHODS) - 1)],
            "params": {name: _VALUES[choose.ConsumeIntInRange(0, len(_VALUES) - 1)] for name in names},
        }
        number = choose.ConsumeIntInRange(0, 6)
        if number:
            message["id"] = number
        if choose.ConsumeBool():
            message["resume"] = _VALUES[choose.ConsumeIntInRange(0, len(_VALUES) - 1)]
        stream.append(_frame(message, choose.ConsumeBytes(choose.ConsumeIntInRange(0, 9)) or None))
    return b"".join(stream)


def _frame(message: dict[str, Any], body: bytes | None = None) -> bytes:
    return encode_frame({"jsonrpc": "2.0", **message}, body)


def _ids(stream: bytes, size: int) -> set[Any]:
    found = set()
    decoder = FrameDecoder()
    with contextlib.suppress(FrameError):
        for position in range(0, len(stream), size):
            for message, _ in decoder.feed(stream[position : position + size]):
                number = message.get("id")
                if type(number) is int:
                    found.add(number)
    return found


async def _exchange(stream: bytes, size: int) -> None:
    escaped: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
    nothing = cast("Any", None)
    isolation = Isolation("namespaces", "fuzzed", None)
    daemon = Daemon("fuzzed", Options(3, 60.0, None, None, {}), nothing, nothing, nothing, None, None, isolation, None)
    daemon.log = lambda text: None  # type: ignore[method-assign]
    connection, wire = Connection(daemon, None), _Wire()
    connection.connection_made(wire)
    for position in range(0, len(stream), size):
        piece = stream[position : position + size]
        connection.get_buffer(-1)[: len(piece)] = piece
        connection.buffer_updated(len(piece))
        await asyncio.sleep(0)
        if wire.closed:
            break
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    connection.connection_lost(None)
    for slot in range(3):
        assert daemon._slot(slot).running is None, "a request is never answered"
    assert not escaped, escaped
    answers: dict[Any, dict[str, Any]] = {}
    # The first is that to `hello`, which is not remembered: its id may be used once more.
    for message, _ in FrameDecoder().feed(bytes(wire.said))[1:]:
        if "method" not in message and message["id"] is not None:
            first = answers.setdefault(message["id"], message)
            stale = "error" in message and message["error"]["data"]["kind"] == "stale_id"
            assert first == message or stale or "stale_id" in str(first), (first, message)
    assert set(answers) <= _ids(stream, size)
    for session in daemon._sessions.values():
        if session._timer is not None:
            session._timer.cancel()


def one_input(data: bytes) -> None:
    """Try one input."""
    if len(data) < 2:
        return
    stream = _recipe(data[2:]) if data[0] % 2 else data[2:]
    _loop.run_until_complete(_exchange(stream, 1 + data[1] * data[1]))


def _seeds(folder: Path) -> None:
    hello = _frame({"id": 1, "method": "hello", "params": _HELLO})
    asked = [
        _frame({"id": 2, "method": "slot.open", "params": {"slot": 0, "env": {"A": "b"}}}),
        _frame({"id": 3, "method": "slot.exec", "params": {"slot": 0, "argv": ["true"], "body": {"size": 3}}}),
        _frame({"id": 4, "method": "health"}),
        _frame({"method": "data", "params": {"id": 2, "channel": "body", "offset": 0, "end": True}}, b"abc"),
        _frame({"method": "credit", "params": {"id": 2, "bytes": 5}}),
        _frame({"method": "cancel", "params": {"id": 2}}),
        _frame({"method": "ack", "params": {"ids": [2, 3]}}),
    ]
    for number, frame in enumerate([b"".join(asked), *asked]):
        (folder / f"raw-{number}").write_bytes(b"\0\xff" + hello + frame)
        (folder / f"recipe-{number}").write_bytes(b"\1\xff" + bytes(range(number, 60 + number)))


if __name__ == "__main__":
    _loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as made:
        _seeds(Path(made))
        # libFuzzer leaves by os._exit and would leave the folder behind.
        child = os.fork()
        if child == 0:
            atheris.Setup([sys.argv[0], "-max_len=4096", *sys.argv[1:], made], one_input)
            atheris.Fuzz()
        status = os.waitpid(child, 0)[1]
    sys.exit(os.waitstatus_to_exitcode(status))
