"""The background processes that the supervisor of a slot knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hermes_sandboxd._job import Job
from hermes_sandboxd._protocol import Refusal

if TYPE_CHECKING:
    from hermes_sandboxd._surroundings import Surroundings

MOST_JOBS = 64
"""So many are remembered, ended ones included."""


class Jobs:
    """Starts jobs, and finds them again by their numbers."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._jobs: dict[int, Job] = {}
        self._latest = 0

    @property
    def running(self) -> int:
        """How many run."""
        return sum(job.running for job in self._jobs.values())

    def start(self, params: dict[str, Any]) -> int:
        """Start a job; return its number.

        Raises:
            Refusal: Too many run.
            LaunchError: It cannot be started.
            OSError: No terminal can be had for it.
        """
        ended = next((number for number, job in self._jobs.items() if not job.running), None)
        if len(self._jobs) >= MOST_JOBS and ended is None:
            raise Refusal("too_many_jobs", f"{MOST_JOBS} background processes run; kill one first")
        leaders = {job.leader[0] for job in self._jobs.values() if job.running}
        job = Job(self._around, params, leaders)
        if len(self._jobs) >= MOST_JOBS and ended is not None:
            self._jobs.pop(ended).forget()
        self._latest += 1
        self._jobs[self._latest] = job
        return self._latest

    def find(self, number: int) -> Job:
        """Return a job.

        Raises:
            Refusal: It was never started, or is forgotten.
        """
        job = self._jobs.get(number)
        if job is None:
            raise Refusal("unknown_job", f"job {number}: there is none, or it has ended and is forgotten")
        return job

    def items(self) -> list[tuple[int, Job]]:
        """Return all of them with their numbers, in order of their start."""
        return list(self._jobs.items())
