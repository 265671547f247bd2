"""The stand-in as a whole: servers and clients in one process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from . import jobs
from .client import Client
from .docker_tasks import DockerTasks
from .documents import Doc, RequestError, now
from .events import EventBuffer
from .mock_tasks import MockTasks
from .nodes import Nodes
from .raw_exec import RawExec
from .scheduler import Scheduler
from .state import State, key_of

if TYPE_CHECKING:
    from .drivers import Driver
    from .options import Options

__all__ = ["Agent"]


class Agent:
    """Holds the parts together, and does what concerns jobs as a whole."""

    def __init__(self, options: Options) -> None:
        self.options = options
        options.data_dir.mkdir(parents=True, exist_ok=True)
        options.data_dir.chmod(0o755)
        (options.data_dir / "alloc").mkdir(exist_ok=True)
        (options.data_dir / "alloc").chmod(0o711)
        (options.data_dir / "server").mkdir(exist_ok=True)
        (options.data_dir / "server").chmod(0o700)
        self.events = EventBuffer(options.event_buffer)
        self.state = State(options.data_dir / "server" / "state.db", self.events)
        self.docker = DockerTasks(options)
        self.mock = MockTasks()
        drivers: dict[str, Driver] = {"raw_exec": RawExec(), "docker": self.docker, "mock": self.mock}
        self.client = Client(options, self.state, drivers)
        self.scheduler = Scheduler(self.state, self.client.allocations_changed, preemption=options.preemption)
        self.client.scheduler = self.scheduler
        self.nodes = Nodes(options, self.state, self.scheduler, self.client)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that exist."""
        return ("default", *self.options.namespaces)

    async def start(self) -> None:
        """Register the nodes, and take over what runs."""
        version = await asyncio.to_thread(self.docker.version) if self.options.docker else None
        self.nodes.register(version)
        self.client.resume()
        self.scheduler.resume()

    def register(self, body: Doc, namespace: str) -> Doc:
        """Register a job, new or again."""
        job: Doc | None = body.get("Job")
        if job is None:
            raise RequestError(400, "Job must be specified")
        if not job.get("ID"):
            raise RequestError(500, "2 errors occurred:\n\t* Missing job ID\n\t* Missing job name\n\n")
        job["Namespace"] = job.get("Namespace") or namespace
        jobs.canonical(job)
        jobs.check(job, self.namespaces, ("default", "all", self.options.node_pool))
        for key in ("Status", "StatusDescription", "CreateIndex", "ModifyIndex", "JobModifyIndex", "SubmitTime"):
            job.pop(key, None)
        before = self.state.tables["jobs"].get(key_of(job["Namespace"], job["ID"]))
        enforced = body.get("EnforceIndex") and body.get("JobModifyIndex", 0)
        if body.get("EnforceIndex") and enforced != (before["JobModifyIndex"] if before else 0):
            raise RequestError(500, "Enforcing job modify index " + conflict(int(enforced or 0), before))
        with self.state.change("JobRegistered") as transaction:
            job |= {"Status": "pending", "StatusDescription": "", "SubmitTime": now()}
            job |= {"JobModifyIndex": transaction.index, "Version": 0, "Stable": False}
            if before is not None:
                job |= {key: before[key] for key in ("CreateIndex", "Status", "Version")}
                job["Version"] += changed(before, job)
            transaction.put("jobs", job)
            evaluation = self.scheduler.evaluate(transaction, job, "job-register")
        return {
            **{"EvalID": evaluation["ID"], "EvalCreateIndex": transaction.index, "JobModifyIndex": transaction.index},
            **{"Warnings": "", "Index": transaction.index, "KnownLeader": False, "LastContact": 0},
        }

    def deregister(self, namespace: str, name: str, *, purge: bool) -> Doc:
        """Stop a job, and forget it if it is purged."""
        key = key_of(namespace, name)
        job = self.state.tables["jobs"].get(key)
        said: Doc = {"EvalID": "", "EvalCreateIndex": 0, "JobModifyIndex": 0, "VolumeEvalID": "", "VolumeEvalIndex": 0}
        said |= {"Index": 0, "KnownLeader": False, "LastContact": 0, "NextToken": ""}
        if job is None:
            return said
        own = list(self.state.of_job[key].values()) if purge else []
        with self.state.change("JobDeregistered") as transaction:
            if purge:
                transaction.drop("jobs", key, job)
                for allocation in own:
                    transaction.drop("allocations", allocation["ID"], allocation)
            else:
                job = job | {"Stop": True, "JobModifyIndex": transaction.index}
                transaction.put("jobs", job)
            evaluation = self.scheduler.evaluate(transaction, job, "job-deregister")
        self.client.forget(own)
        said |= dict.fromkeys(("EvalCreateIndex", "JobModifyIndex", "Index"), transaction.index)
        return said | {"EvalID": evaluation["ID"]}

    def job(self, namespace: str, name: str) -> Doc:
        """Find a job."""
        found = self.state.tables["jobs"].get(key_of(namespace, name))
        if found is None:
            raise RequestError(404, "job not found")
        return found

    def summary(self, job: Doc) -> Doc:
        """Count the allocations of a job."""
        key = key_of(job["Namespace"], job["ID"])
        own = [one for one in self.state.of_job[key].values() if one["Job"]["CreateIndex"] == job["CreateIndex"]]
        blocked = [one for one in self.state.evaluations_of_job[key].values() if one["Status"] == "blocked"]
        queued = dict.fromkeys(blocked[-1]["FailedTGAllocs"], 1) if blocked else {}
        return jobs.summary(job, own, queued)

    def stop_allocation(self, allocation: Doc) -> Doc:
        """Stop an allocation, which has it replaced."""
        evaluation = self.nodes.migrate([allocation], "alloc-stop")
        return {"EvalID": evaluation, "Index": self.state.index}

    def collect_garbage(self) -> None:
        """Forget jobs, evaluations and allocations that are over."""
        state = self.state
        with state.change("JobBatchDeregistered") as transaction:
            for key, job in list(state.tables["jobs"].items()):
                if job["Status"] == "dead":
                    transaction.drop("jobs", key, job)
            gone = {key for table, key, _, _ in transaction.changed if table == "jobs"}
            for key, allocation in list(state.tables["allocations"].items()):
                job_key = key_of(allocation["Namespace"], allocation["JobID"])
                over = allocation["ClientStatus"] in ("complete", "failed", "lost")
                if over and (job_key in gone or job_key not in state.tables["jobs"]):
                    transaction.drop("allocations", key, allocation)
            for key, evaluation in list(state.tables["evaluations"].items()):
                job_key = key_of(evaluation["Namespace"], evaluation["JobID"])
                over = evaluation["Status"] not in ("pending", "blocked")
                if over and (job_key in gone or job_key not in state.tables["jobs"]):
                    transaction.drop("evaluations", key, evaluation)
        self.client.collect()


def conflict(enforced: int, before: Doc | None) -> str:
    if before is None:
        return f"{enforced}: job does not exist"
    return f"{enforced}: job exists with conflicting job modify index: {before['JobModifyIndex']}"


def changed(before: Doc, after: Doc) -> int:
    """Tell whether a registration makes a new version: 1 or 0."""
    skipped = {"Status", "StatusDescription", "CreateIndex", "ModifyIndex", "JobModifyIndex", "SubmitTime", "Version"}
    skipped |= {"Stable"}
    return int(
        {k: v for k, v in before.items() if k not in skipped} != {k: v for k, v in after.items() if k not in skipped}
    )
