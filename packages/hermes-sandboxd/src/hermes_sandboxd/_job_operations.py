"""The requests about background processes: `slot.start`, `slot.poll`, `slot.input` and the like."""

from __future__ import annotations

import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable

from hermes_sandboxd._link import Outflow
from hermes_sandboxd._protocol import INLINE_BYTES, Refusal, answer, notification, refusal
from hermes_sandboxd._surroundings import LaunchError

if TYPE_CHECKING:
    from hermes_sandboxd._job import Job
    from hermes_sandboxd._surroundings import Surroundings

_LONGEST_LISTING = 100
"""Characters of a program and its arguments that `slot.jobs` tells: 64 jobs must fit into a frame."""


class _JobOperation:
    """What the operations here have in common."""

    def __init__(
        self, around: Surroundings, request_id: int, params: dict[str, Any], body: bytes, done: Callable[[], None]
    ) -> None:
        self._around = around
        self._id = request_id
        self._params = params
        self._body = body
        self._done = done

    def _answer(self, result: dict[str, Any], body: bytes | None = None) -> None:
        self._around.link.send(answer(self._id, result), body)
        self._done()

    def _refuse(self, error: Refusal) -> None:
        self._around.link.send(refusal(self._id, error))
        self._done()

    def _find(self) -> Job:
        return self._around.jobs.find(self._params["job"])

    def data(self, body: bytes, end: bool) -> None:
        """Ignore what comes: most have no request body."""

    def credit(self, count: int) -> None:
        """Ignore it: most send no body."""

    def resume(self) -> None:
        """Do nothing: most never wait for the link."""

    def cancel(self) -> None:
        """Do nothing: most are answered at once."""


class JobStart(_JobOperation):
    """One `slot.start`."""

    def start(self) -> None:
        """Start the job."""
        try:
            number = self._around.jobs.start(self._params)
        except LaunchError as error:
            raise Refusal("cannot_start", str(error), exit_code=error.exit_code) from None
        except OSError as error:
            raise Refusal("cannot_start", f"no pipe or terminal can be had: {error.strerror}", exit_code=126) from None
        self._answer({"job": number})


class JobPoll(_JobOperation):
    """One `slot.poll`."""

    def start(self) -> None:
        """Answer, or wait for something to tell."""
        self._job = self._find()
        self._flow = Outflow(self._around.link, self._id)
        self._result: dict[str, Any] | None = None
        self._inline: bytes | None = None
        if self._params["wait_s"] == 0 or self._has_news():
            self._report()
            return
        self._job.on_change = self._look
        self._around.reactor.set_timer(time.monotonic() + self._params["wait_s"], self._report)

    def _has_news(self) -> bool:
        return self._job.output.total > self._params["offset"] or not self._job.running

    def _look(self) -> None:
        if self._has_news():
            self._report()

    def _report(self) -> None:
        job = self._job
        job.on_change = None
        self._around.reactor.clear_timer(self._report)
        offset, body = job.output.part(self._params["offset"], self._params["max_bytes"])
        self._result = {
            "running": job.running,
            "exit_code": job.exit_code,
            "signal": job.signal,
            "limit": job.limit,
            "offset": offset,
            "end": job.output.total,
            "foreground": job.foreground,
            "times": job.output.times(offset, offset + len(body)),
            "bodies": {"output": len(body)},
        }
        if len(body) <= INLINE_BYTES:
            self._inline = body
        else:
            self._flow.push("data", "output", 0, body)
        self._send_rest()

    def _send_rest(self) -> None:
        self._flow.pump()
        if self._result is not None and self._flow.empty:
            self._answer(self._result, self._inline)

    def credit(self, count: int) -> None:
        """Take credit for the output."""
        self._flow.credit(count)
        self._send_rest()

    def resume(self) -> None:
        """Go on sending."""
        self._send_rest()

    def cancel(self) -> None:
        """Answer with what there is; what is too long for that is taken back."""
        if self._result is None:
            self._report()
        else:
            self._refuse(Refusal("cancelled", "cancelled while its output was being sent"))


class JobInput(_JobOperation):
    """One `slot.input`: answered when all of it is queued, which a job that does not read holds up."""

    def start(self) -> None:
        """Queue what came with the request."""
        self._job = self._find()
        self._chunks = deque([self._body] if self._body else [])
        self._ended = "body" not in self._params
        self._size = 0
        self._job.on_change = self._go_on
        self._go_on()

    def data(self, body: bytes, end: bool) -> None:
        """Take a chunk of the input."""
        if body:
            self._chunks.append(body)
        self._ended = self._ended or end
        self._go_on()

    def _go_on(self) -> None:
        job = self._job
        if not job.takes_input:
            self._leave()
            self._refuse(Refusal("input_closed", f"job {self._params['job']}: has ended, or its input is closed"))
            return
        while self._chunks and job.has_room:
            chunk = self._chunks.popleft()
            self._size += len(chunk)
            job.put(chunk)
            if "body" in self._params:
                self._around.link.send(notification("credit", id=self._id, bytes=len(chunk)))
        if self._ended and not self._chunks:
            self._leave()
            if self._params["end"]:
                job.end_input()
            self._answer({"size": self._size})

    def _leave(self) -> None:
        self._job.on_change = None

    def cancel(self) -> None:
        """Queue no more; what is queued stays so."""
        self._leave()
        self._refuse(Refusal("cancelled", f"cancelled after {self._size} bytes were queued"))


class JobResize(_JobOperation):
    """One `slot.resize`."""

    def start(self) -> None:
        """Change the size of the terminal."""
        job = self._find()
        if not job.has_terminal:
            raise Refusal("no_terminal", f"job {self._params['job']}: was not started in a terminal")
        job.resize(self._params["rows"], self._params["columns"])
        self._answer({})


class JobKill(_JobOperation):
    """One `slot.kill`."""

    def start(self) -> None:
        """Kill the session, or send the signal."""
        job = self._find()
        if self._params["signal"] == signal.SIGKILL:
            job.kill()
        else:
            job.send_signal(self._params["signal"])
        self._answer({})


class JobList(_JobOperation):
    """One `slot.jobs`."""

    def start(self) -> None:
        """Tell all jobs that are remembered."""
        self._answer({"jobs": [_describe(number, job) for number, job in self._around.jobs.items()]})


def _describe(number: int, job: Job) -> dict[str, Any]:
    return {
        "job": number,
        "argv": _shortened(job.argv),
        "running": job.running,
        "exit_code": job.exit_code,
        "signal": job.signal,
        "age_s": round(job.age_s, 3),
    }


def _shortened(argv: list[str]) -> list[str]:
    told: list[str] = []
    room = _LONGEST_LISTING
    for argument in argv:
        if room <= 0:
            return [*told, "…"]
        told.append(argument if len(argument) <= room else argument[:room] + "…")
        room -= len(argument) + 1
    return told
