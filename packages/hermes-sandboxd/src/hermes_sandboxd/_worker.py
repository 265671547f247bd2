"""Requests whose work is done in a child of the supervisor, which meanwhile serves the link.

The child is born inside the slot, with its user's rights and no others, so that whatever an agent has prepared for it
can lead nowhere that the agent could not go itself. The agent can kill or stop the child, too; that is its own doing.
It runs code that was imported before: the slot does not see the daemon's files, and what it sees may be the agent's.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Callable, NoReturn

from hermes_sandboxd._inflow import Inflow
from hermes_sandboxd._link import Outflow
from hermes_sandboxd._protocol import CHUNK_BYTES, INLINE_BYTES, Refusal, answer, notification, refusal
from hermes_sandboxd._reactor import READ
from hermes_sandboxd._spawning import DEFAULT_SIGNALS

if TYPE_CHECKING:
    from hermes_sandboxd._surroundings import Surroundings

_LOOK_S = 0.5
_CANCELLED = Refusal("cancelled", "cancelled while it was under way")
# In the child: the body comes in on descriptor 0, goes out on 1, and what is to be said of it on 3.
_REPORT = 3


class Worker:
    """Does the work of one request in a child, and answers when the child is over.

    Args:
        around: What the operations of the slot share.
        request_id: The request.
        params: Its parameters.
        body: The body that came inside its frame.
        done: Called after the answer.
    """

    channel: str | None = None
    """The channel of the answer's body, if it has one."""
    takes_body = False

    def __init__(
        self, around: Surroundings, request_id: int, params: dict[str, Any], body: bytes, done: Callable[[], None]
    ) -> None:
        self._around = around
        self._reactor = around.reactor
        self._id = request_id
        self._done = done
        self._flow = Outflow(around.link, request_id)
        self.params = params
        self.path = around.path(params["path"])
        self.workspace = around.workspace
        ended = "body" not in params
        self._input = Inflow(around.reactor, body if self.takes_body else b"", ended, self._credit)
        self.body_size: int = len(body) if ended else params["body"]["size"]
        self._first: list[bytes] | None = []
        """The beginning of the answer's body, as long as it fits into the answer's frame; None once it does not."""
        self._sent = 0
        self._pid = 0
        self._pidfd = self._stdout = self._report = -1
        self._result: dict[str, Any] | None = None
        self._cancelled = False

    def work(self, write: Callable[[bytes], None]) -> dict[str, Any]:
        """Do the work, in the child, and return the result.

        Args:
            write: Takes the answer's body, in pieces.

        Raises:
            Refusal: It cannot be done.
        """
        raise NotImplementedError

    def start(self) -> None:
        """Fork the child."""
        stdin, body = os.pipe()
        self._stdout, stdout = os.pipe()
        self._report, report = os.pipe()
        try:
            self._pid = self._around.fork()
        except OSError as error:
            for descriptor in (stdin, stdout, report, body, self._stdout, self._report):
                os.close(descriptor)
            raise Refusal("interrupted", f"no process can be started in the slot: {error.strerror}") from None
        if self._pid == 0:
            _serve(self, stdin, stdout, report, self._around.null)
        for descriptor in (stdin, stdout, report):
            os.close(descriptor)
        self._input.write_to(body)
        for descriptor in (self._stdout, self._report):
            os.set_blocking(descriptor, False)
        self._pidfd = os.pidfd_open(self._pid)
        self._reactor.add(self._pidfd, READ, lambda _: self._ended(self._around.reap(self._pid)[0]))
        self._watch_output()
        self._input.watch()
        self._reactor.set_timer(time.monotonic() + _LOOK_S, self._look)

    # The request's body, on its way to the child.

    def data(self, body: bytes, end: bool) -> None:
        """Take a chunk of the request's body."""
        if self._input.open:
            self._input.add(body, end)

    def _credit(self, count: int) -> None:
        if "body" in self.params:
            self._around.link.send(notification("credit", id=self._id, bytes=count))

    # The answer's body, on its way from the child.

    def _watch_output(self) -> None:
        if self._stdout >= 0 and not self._reactor.watches(self._stdout):
            self._reactor.add(self._stdout, READ, lambda _: self._readable())

    def _readable(self) -> None:
        if self._first is None and not self._flow.open:
            # Nobody takes it: the pipe fills, and the child waits.
            self._reactor.remove(self._stdout)
            return
        try:
            data = os.read(self._stdout, CHUNK_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._close_output()
            self._answer()
        else:
            self._send(data)

    def _send(self, data: bytes) -> None:
        if self._first is not None:
            self._first.append(data)
            if sum(map(len, self._first)) <= INLINE_BYTES:
                return
            data, self._first = b"".join(self._first), None
        self._flow.push("data", self.channel or "", self._sent, data)
        self._sent += len(data)

    def _close_output(self) -> None:
        if self._stdout >= 0:
            self._reactor.remove(self._stdout)
            os.close(self._stdout)
            self._stdout = -1

    def credit(self, count: int) -> None:
        """Take credit for the answer's body."""
        self._flow.credit(count)
        self.resume()

    def resume(self) -> None:
        """Go on sending after the receiver or the link made room."""
        self._flow.pump()
        if self._stdout >= 0:
            if self._flow.open:
                self._watch_output()
        else:
            self._answer()

    # The end.

    def cancel(self) -> None:
        """Kill the child, or take back what it has done."""
        self._cancelled = True
        if self._result is None:
            self._kill()
        else:
            self._refuse(_CANCELLED)

    def _kill(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _look(self) -> None:
        """See that nobody has stopped the child, so that it would never end."""
        status = self._around.look_at(self._pid)
        if status is not None:
            self._ended(status)
        else:
            self._reactor.set_timer(time.monotonic() + _LOOK_S, self._look)

    def _ended(self, status: int) -> None:
        self._reactor.clear_timer(self._look)
        self._reactor.remove(self._pidfd)
        os.close(self._pidfd)
        self._input.close()
        outcome = self._read_report()
        if self._cancelled:
            self._refuse(_CANCELLED)
        elif os.WIFSIGNALED(status) and self._around.processes.are_ending():
            # Not the child's own end but the slot's.
            self._around.give_up()
        elif "result" in outcome:
            self._result = outcome["result"]
            self._answer()
        elif "refusal" in outcome:
            self._refuse(Refusal(*outcome["refusal"]))
        else:
            how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "no reason given"
            self._refuse(Refusal("interrupted", f"the process inside the slot that did this was ended: {how}"))

    def _read_report(self) -> dict[str, Any]:
        pieces = []
        try:
            while True:
                pieces.append(os.read(self._report, CHUNK_BYTES))
                if not pieces[-1]:
                    break
        except BlockingIOError:
            pass
        os.close(self._report)
        try:
            outcome: dict[str, Any] = json.loads(b"".join(pieces) or b"{}")
        except ValueError:
            # It was killed while it wrote.
            return {}
        return outcome

    def _answer(self) -> None:
        if self._result is None or self._stdout >= 0 or not self._flow.empty:
            return
        result, body = dict(self._result), None
        if self.channel is not None:
            body = None if self._first is None else b"".join(self._first)
            result["bodies"] = {self.channel: self._sent if body is None else len(body)}
        self._around.link.send(answer(self._id, result), body)
        self._done()

    def _refuse(self, error: Refusal) -> None:
        self._close_output()
        self._around.link.send(refusal(self._id, error))
        self._done()


def _serve(worker: Worker, stdin: int, stdout: int, report: int, null: int) -> NoReturn:
    """Be the child."""
    try:
        gc.disable()
        os.setsid()
        for descriptor, target in ((stdin, 0), (stdout, 1), (null, 2), (report, _REPORT)):
            os.dup2(descriptor, target)
        # The link above all: as long as it is open here, the daemon would not notice that the supervisor has died.
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > _REPORT:
                _close(descriptor)
        for number in DEFAULT_SIGNALS:
            _reset(number)
        outcome = _outcome(worker)
        os.write(_REPORT, json.dumps(outcome).encode())
    finally:
        # Neither are handlers run nor is anything flushed that the supervisor has.
        os._exit(0)


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        # The one that listed the folder.
        pass


def _reset(number: int) -> None:
    try:
        signal.signal(number, signal.SIG_DFL)
    except (OSError, ValueError):
        # One that the C library keeps to itself.
        pass


def _outcome(worker: Worker) -> dict[str, Any]:
    output = _Output()
    try:
        result = worker.work(output.write)
        output.flush()
    except Refusal as error:
        return {"refusal": [error.kind, error.message[:2000]]}
    except MemoryError:
        return {"refusal": ["too_large", f"{worker.path}: there is not enough memory in the slot"]}
    except Exception as error:
        return {"refusal": ["internal", repr(error)[:2000]]}
    return {"result": result}


class _Output:
    """Writes to the pipe in large pieces."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def write(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        while self._waiting:
            del self._waiting[: os.write(1, self._waiting)]
