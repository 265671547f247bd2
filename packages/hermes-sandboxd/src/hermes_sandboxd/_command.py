"""One running command of a slot (`slot.exec`)."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from hermes_sandboxd._inflow import Inflow
from hermes_sandboxd._limits import limited_argv
from hermes_sandboxd._link import Outflow
from hermes_sandboxd._output import KeptOutput
from hermes_sandboxd._protocol import INLINE_BYTES, answer, notification
from hermes_sandboxd._reactor import READ
from hermes_sandboxd._surroundings import LaunchError

if TYPE_CHECKING:
    from resource import struct_rusage

    from hermes_sandboxd._killing import Processes
    from hermes_sandboxd._surroundings import Surroundings

_READ_BYTES = 65536
_STREAMS = ("stdout", "stderr", "report")
_REPORT = 2


class Command:
    """Runs one command and answers its request when it is over; `done` is called after the answer."""

    def __init__(
        self, around: Surroundings, request_id: int, params: dict[str, Any], body: bytes, done: Callable[[], None]
    ) -> None:
        self._around = around
        self._reactor = around.reactor
        self._id = request_id
        self._params = params
        self._done = done
        self._flow = Outflow(around.link, request_id)
        self._names = _STREAMS if params["report"] else _STREAMS[:_REPORT]
        self._kept = [KeptOutput(params["output_cap"]) for _ in self._names]
        self._pipes = [-1 for _ in self._names]
        self._input = Inflow(around.reactor, body, "body" not in params, self._credit, self._credit)
        self._pid = 0
        self._pidfd = -1
        self._started = 0.0
        self._ended_by: str | None = None
        self._spared: Processes = {}
        self._answer: dict[str, Any] | None = None

    def start(self) -> None:
        """Spawn the command."""
        self._spared = self._around.processes.survivors()
        self._started = time.monotonic()
        try:
            self._spawn()
        except LaunchError as error:
            self._finish_unstarted(error)
            return
        self._pidfd = os.pidfd_open(self._pid)
        self._reactor.add(self._pidfd, READ, lambda _: self._exited())
        self._watch_output()
        if self._input.open:
            self._input.watch()
        self._reactor.set_timer(self._started + self._params["timeout_s"], self._time_out)

    def _spawn(self) -> None:
        params = self._params
        outputs = [self._open_pipe(index) for index in range(len(self._names)) if not self._is_merged(index)]
        streams = [self._around.null, *outputs]
        if params["merge"]:
            streams.insert(2, outputs[0])
        if not self._input.empty:
            streams[0], stdin = os.pipe()
            self._input.write_to(stdin)
        argv = limited_argv(params["argv"], params["cpu_s"])
        try:
            self._pid = self._around.launch(argv, params["cwd"], params["env"], streams)
        finally:
            for descriptor in set(streams) - {self._around.null}:
                os.close(descriptor)

    def _is_merged(self, index: int) -> bool:
        return self._params["merge"] and _STREAMS[index] == "stderr"

    def _open_pipe(self, index: int) -> int:
        self._pipes[index], writing = os.pipe()
        os.set_blocking(self._pipes[index], False)
        return writing

    def _finish_unstarted(self, error: LaunchError) -> None:
        for descriptor in self._pipes:
            if descriptor >= 0:
                os.close(descriptor)
        self._input.close()
        self._take(0 if self._params["merge"] else 1, f"hermes: {error}\n".encode(errors="replace"))
        self._report(error.exit_code << 8, self._around.observed.take())

    def _watch_output(self) -> None:
        for index, descriptor in enumerate(self._pipes):
            if descriptor >= 0 and not self._reactor.watches(descriptor):
                self._reactor.add(descriptor, READ, partial(self._readable, index))

    def _readable(self, index: int, events: int) -> None:
        if not events & READ:
            # Hung up and empty.
            self._close_pipe(index)
            return
        if self._params["stream"] and not self._flow.open:
            # Nobody takes the live output: the pipe fills, and the command waits.
            self._reactor.remove(self._pipes[index])
            return
        self._read(index)

    def _read(self, index: int) -> int:
        """Read once; return how much, -1 if there is nothing now, 0 at the end (the pipe is then closed)."""
        descriptor = self._pipes[index]
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return -1
        if not data:
            self._close_pipe(index)
            return 0
        self._take(index, data)
        return len(data)

    def _take(self, index: int, data: bytes) -> None:
        kept = self._kept[index]
        if self._params["stream"]:
            self._flow.push("output", _STREAMS[index], kept.total, data)
        kept.add(data)

    def _close_pipe(self, index: int) -> None:
        self._reactor.remove(self._pipes[index])
        os.close(self._pipes[index])
        self._pipes[index] = -1

    def data(self, body: bytes, end: bool) -> None:
        """Take a chunk of standard input."""
        if self._pid and not self._input.open:
            self._credit(len(body))
        else:
            self._input.add(body, end)

    def _credit(self, count: int) -> None:
        if count and "body" in self._params:
            self._around.link.send(notification("credit", id=self._id, bytes=count))

    def credit(self, count: int) -> None:
        """Take credit for outgoing bodies."""
        self._flow.credit(count)
        self.resume()

    def resume(self) -> None:
        """Go on sending after the receiver or the link made room."""
        self._flow.pump()
        if self._answer is not None:
            self._send_rest()
        elif self._pid and self._flow.open:
            self._watch_output()

    def cancel(self) -> None:
        """Kill the command; it still answers."""
        self.end("cancelled")

    def _time_out(self) -> None:
        self.end("timed_out")

    def end(self, reason: str) -> None:
        """Kill everything that this command started, for `reason`: "timed_out", "cancelled" or "limit"."""
        if self._answer is not None or not self._pid:
            return
        self._ended_by = reason
        ended = self._around.processes.kill(self._spared, self._pid)
        if ended is None:
            # What cannot be killed from here ends with the whole slot.
            self._around.give_up()
            return
        self._around.children.discard(self._pid)
        self._finish(*ended)

    def _exited(self) -> None:
        status, usage = self._around.reap(self._pid)
        if os.WIFSIGNALED(status) and self._around.processes.are_ending():
            # Not the command's own end but the slot's.
            self._around.give_up()
            return
        self._finish(status, usage)

    def _finish(self, status: int, usage: struct_rusage) -> None:
        self._reactor.clear_timer(self._time_out)
        self._reactor.remove(self._pidfd)
        os.close(self._pidfd)
        for index in range(len(self._names)):
            if self._pipes[index] >= 0 and self._read(index) != 0:
                self._drain(index)
        self._input.close()
        said = self._kept[0 if self._params["merge"] else 1].end() if status else b""
        self._report(status, self._around.observed.named(status, usage, self._params["cpu_s"], said))

    def _drain(self, index: int) -> None:
        # All that the command itself wrote is in the pipe by now. Background processes may hold the pipe open and go
        # on writing, so that neither its end nor its emptiness can be waited for.
        left = struct.unpack("i", fcntl.ioctl(self._pipes[index], termios.FIONREAD, b"\0\0\0\0"))[0]
        while left > 0:
            count = self._read(index)
            if count <= 0:
                break
            left -= count
        if self._pipes[index] >= 0 and self._read(index) != 0:
            self._reactor.remove(self._pipes[index])
            self._around.drain(self._pipes[index])
            self._pipes[index] = -1

    def _report(self, status: int, limit: str | None) -> None:
        names = self._names
        bodies = [kept.body() for kept in self._kept]
        exited = os.WIFEXITED(status)
        self._answer = {
            "exit_code": os.WEXITSTATUS(status) if exited else None,
            "signal": None if exited else os.WTERMSIG(status),
            # A command that ended by itself in the last moment was not ended by anything else.
            "timed_out": self._ended_by == "timed_out" and not exited,
            "cancelled": self._ended_by == "cancelled" and not exited,
            "limit": limit or ("wall_time" if self._ended_by == "timed_out" and not exited else None),
            "truncated": any(kept.truncated for kept in self._kept),
            "stdout_bytes": self._kept[0].total,
            "stderr_bytes": self._kept[1].total,
            "duration_s": round(time.monotonic() - self._started, 6),
            "bodies": {name: len(body) for name, body in zip(names, bodies)},
        }
        self._kept = []
        self._inline: bytes | None = b"".join(bodies)
        if len(self._inline) > INLINE_BYTES:
            self._inline = None
            for name, body in zip(names, bodies):
                self._flow.push("data", name, 0, body)
        self._send_rest()
        if not self._flow.empty:
            # No deadline is held against a client that takes its time.
            self._around.link.send(notification("over", id=self._id))

    def _send_rest(self) -> None:
        self._flow.pump()
        if self._flow.empty and self._answer is not None:
            self._around.link.send(answer(self._id, self._answer), self._inline)
            self._done()
