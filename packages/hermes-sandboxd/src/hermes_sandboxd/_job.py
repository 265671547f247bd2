"""One background process of a slot, on pipes or in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable

from hermes_sandboxd._output import RecentOutput
from hermes_sandboxd._reactor import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Container

    from hermes_sandboxd._surroundings import Surroundings

_READ_BYTES = 65536
_QUEUE_BYTES = 1 << 20
# The most that a pipe can hold of what the process itself has written.
_LAST_BYTES = 1 << 20
_TERM = "xterm-256color"
# The line discipline erases whole characters; the number is missing in the module termios.
_IUTF8 = 0o40000


class Job:
    """A process that no request waits for; its output is read all the time.

    Args:
        around: Where it is started.
        params: Those of `slot.start`.
        leaders: Inner pids of the jobs that run.

    Raises:
        LaunchError: It cannot be started.
        OSError: No terminal can be had for it.
    """

    def __init__(self, around: Surroundings, params: dict[str, Any], leaders: Container[int]) -> None:
        self._around = around
        self._reactor = around.reactor
        self.argv: list[str] = params["argv"]
        self.output = RecentOutput(params["output_cap"])
        self.limit: str | None = None
        """The limit that it breached, known once it has ended."""
        self.on_change: Callable[[], None] | None = None
        """Called when there is new output, its input took something, or it ended."""
        self.has_terminal = params["pty"] is not None
        """Whether it has a terminal of its own; its input and its output are one descriptor then."""
        self._status: int | None = None
        self._source = -1
        self._sink = -1
        self._held = -1
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        self._input_ended = False
        self._started = time.monotonic()
        self._pid = self._spawn(params)
        self._pidfd = os.pidfd_open(self._pid)
        self.leader = around.processes.find_new(leaders)
        self._reactor.add(self._pidfd, READ, lambda _: self.reap())
        self._watch()

    # Its start.

    def _spawn(self, params: dict[str, Any]) -> int:
        start = self._spawn_in_terminal if self.has_terminal else self._spawn_on_pipes
        try:
            return start(params)
        except Exception:
            self._release()
            self._close_input()
            self._close_output()
            raise

    def _spawn_on_pipes(self, params: dict[str, Any]) -> int:
        reading, self._sink = os.pipe()
        self._source, writing = os.pipe()
        for descriptor in (self._sink, self._source):
            os.set_blocking(descriptor, False)
        try:
            return self._around.launch(params["argv"], params["cwd"], params["env"], [reading, writing, writing])
        finally:
            os.close(reading)
            os.close(writing)

    def _spawn_in_terminal(self, params: dict[str, Any]) -> int:
        # Kept open while the process runs, so that the terminal outlives moments in which nobody else has it open.
        master, self._held = os.openpty()
        self._source = self._sink = master
        os.set_blocking(master, False)
        attributes = termios.tcgetattr(self._held)
        attributes[0] |= _IUTF8
        termios.tcsetattr(self._held, termios.TCSANOW, attributes)
        self.resize(params["pty"]["rows"], params["pty"]["columns"])
        environment = {"TERM": _TERM, **params["env"]}
        return self._around.launch(params["argv"], params["cwd"], environment, [], os.ttyname(self._held))

    # What is known of it.

    @property
    def running(self) -> bool:
        """Whether the process that was started runs; what it started itself may outlive it."""
        return self._status is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and when a signal ended it."""
        return os.WEXITSTATUS(self._status) if self._status is not None and os.WIFEXITED(self._status) else None

    @property
    def signal(self) -> int | None:
        """The signal that ended it."""
        return os.WTERMSIG(self._status) if self._status is not None and os.WIFSIGNALED(self._status) else None

    @property
    def age_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    @property
    def foreground(self) -> bool | None:
        """Whether it is itself in the foreground of its terminal; None without one, and when it has ended."""
        return self._foreground_group() == self._pid if self.has_terminal and self.running else None

    def _foreground_group(self) -> int:
        try:
            return os.tcgetpgrp(self._source)
        except OSError:
            # No session has it as its terminal.
            return 0

    # Its output and its end.

    def _watch(self) -> None:
        if self._source >= 0:
            waiting = WRITE if self._queue and self._sink == self._source else 0
            self._reactor.add(self._source, READ | waiting, self._ready)
        if self._sink >= 0 and self._sink != self._source:
            if self._queue:
                self._reactor.add(self._sink, WRITE, self._ready)
            else:
                # A reader that went away would be reported again and again.
                self._reactor.remove(self._sink)

    def _ready(self, events: int) -> None:
        if self._queue:
            self._write()
        if events & ~WRITE:
            self._read()

    def _read(self) -> bool:
        """Read once; return whether there may be more at once."""
        if self._source < 0:
            return False
        try:
            data = os.read(self._source, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: nobody has the terminal open any more.
            data = b""
        if not data:
            self._close_output()
            return False
        self.output.add(data, self.age_s)
        self._changed()
        return True

    def reap(self) -> None:
        """Take note of its end, if it has ended."""
        if self._status is not None:
            return
        pid, status, usage = os.wait4(self._pid, os.WNOHANG)
        if not pid:
            return
        self._around.children.discard(pid)
        if os.WIFSIGNALED(status) and self._around.processes.are_ending():
            # Not its own end but the slot's.
            self._around.give_up()
            return
        self._reactor.remove(self._pidfd)
        os.close(self._pidfd)
        self._release()
        # What it wrote itself is there by now, and is told before its end. Its children may write on without end.
        last = self.output.total + _LAST_BYTES
        while self.output.total < last and self._read():
            pass
        self._status = status
        self.limit = self._around.observed.named(status, usage)
        self._close_input()
        self._changed()

    def forget(self) -> None:
        """Let go of a job that has ended; what it left running keeps a working output."""
        if self._source >= 0 and not self.has_terminal:
            source, self._source = self._source, -1
            self._reactor.remove(source)
            self._around.drain(source)
        self._close_output()

    def _close_output(self) -> None:
        if self._source < 0:
            return
        if self.has_terminal:
            self._drop_input()
            self._sink = -1
        self._reactor.remove(self._source)
        os.close(self._source)
        self._source = -1

    def _release(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    # Its input.

    @property
    def takes_input(self) -> bool:
        """Whether there is anyone to read what is typed or sent."""
        return self._sink >= 0 and not self._input_ended

    @property
    def has_room(self) -> bool:
        """Whether more input may be queued."""
        return self._queued < _QUEUE_BYTES

    def put(self, data: bytes) -> None:
        """Queue input."""
        if data:
            self._queue.append(memoryview(data))
            self._queued += len(data)
            self._watch()

    def end_input(self) -> None:
        """Close its standard input after what is queued; in a terminal, type the end-of-file character."""
        if self.has_terminal:
            self.put(termios.tcgetattr(self._sink)[6][termios.VEOF])
            return
        self._input_ended = True
        if not self._queue:
            self._close_input()

    def _write(self) -> None:
        chunk = self._queue[0]
        try:
            written = os.write(self._sink, chunk)
        except BlockingIOError:
            return
        except OSError:
            # It does not read its input to the end, which is its own affair.
            self._close_input()
            self._changed()
            return
        self._queued -= written
        if written < len(chunk):
            self._queue[0] = chunk[written:]
        else:
            self._queue.popleft()
        if not self._queue:
            self._watch()
            if self._input_ended:
                self._close_input()
        self._changed()

    def _close_input(self) -> None:
        self._drop_input()
        if self._sink >= 0 and self._sink != self._source:
            self._reactor.remove(self._sink)
            os.close(self._sink)
        self._sink = -1

    def _drop_input(self) -> None:
        self._queue.clear()
        self._queued = 0

    # What is done to it.

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal; whoever is in the foreground is told."""
        if self._source >= 0:
            fcntl.ioctl(self._source, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def kill(self) -> None:
        """Kill its session and all its descendants; also what of them has outlived it."""
        if not self._around.processes.kill_session(self.leader):
            # What cannot be killed from here ends with the whole slot.
            self._around.give_up()
        self.reap()

    def send_signal(self, number: int) -> None:
        """Send a signal to the foreground of its terminal, or to its own process group without one."""
        if not self.running:
            # Its number may mean another process by now.
            return
        group = self._foreground_group() if self.has_terminal else 0
        try:
            os.killpg(group or self._pid, number)
        except ProcessLookupError:
            pass
