"""Routes of jobs and evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import jobs
from .documents import RequestError
from .hcl import parse_job
from .routes_allocations import allocation_stub
from .state import key_of
from .web import Asked, answer, check_id, listed, shown

if TYPE_CHECKING:
    from starlette.responses import Response

__all__ = ["ROUTES"]

FIELDS = frozenset(
    (
        *("ID", "Name", "Namespace", "Datacenters", "NodePool", "Type", "Priority", "Stop", "Status", "Meta", "Region"),
        *("StatusDescription", "TaskGroups", "Constraints", "CreateIndex", "ModifyIndex", "JobModifyIndex"),
        *("SubmitTime", "Version", "ParentID", "Stable", "Dispatched", "AllAtOnce", "Affinities", "Spreads"),
    )
)
"""What a filter of jobs may refer to."""


async def register(asked: Asked) -> Response:
    """`PUT /v1/jobs`, `PUT /v1/job/ID`."""
    body = await asked.body()
    name = asked.request.path_params.get("job_id")
    if name is not None and (body.get("Job") or {}).get("ID") != name:
        raise RequestError(400, "Job ID does not match name")
    return answer(asked, asked.agent.register(body, asked.namespace))


async def list_jobs(asked: Asked) -> Response:
    """`GET /v1/jobs`."""
    await asked.wait("jobs")
    found = listed(asked, asked.agent.state.tables["jobs"].values(), fields=FIELDS)
    stubs = [jobs.stub(job, asked.agent.summary(job), meta=asked.flag("meta")) for job in found]
    return answer(asked, stubs, "jobs")


async def parse(asked: Asked) -> Response:
    """`POST /v1/jobs/parse`."""
    body = await asked.body()
    if not body.get("JobHCL"):
        raise RequestError(400, "Job spec is empty")
    job = parse_job(body["JobHCL"])
    return answer(asked, jobs.canonical(job) if body.get("Canonicalize") else job)


async def show_job(asked: Asked) -> Response:
    """`GET /v1/job/ID`."""
    await asked.wait("jobs")
    return answer(asked, asked.agent.job(asked.namespace, asked.request.path_params["job_id"]), "jobs")


async def deregister(asked: Asked) -> Response:
    """`DELETE /v1/job/ID`."""
    name = asked.request.path_params["job_id"]
    return answer(asked, asked.agent.deregister(asked.namespace, name, purge=asked.flag("purge")))


async def allocations_of_job(asked: Asked) -> Response:
    """`GET /v1/job/ID/allocations`."""
    await asked.wait("allocations")
    state, name = asked.agent.state, asked.request.path_params["job_id"]
    key = key_of(asked.namespace, name)
    job = state.tables["jobs"].get(key)
    own = list(state.of_job[key].values())
    if job is not None and not asked.flag("all"):
        own = [one for one in own if one["Job"]["CreateIndex"] == job["CreateIndex"]]
    return answer(asked, [allocation_stub(one, resources=False) for one in own], "allocations")


async def evaluations_of_job(asked: Asked) -> Response:
    """`GET /v1/job/ID/evaluations`."""
    await asked.wait("evaluations")
    key = key_of(asked.namespace, asked.request.path_params["job_id"])
    own = sorted(asked.agent.state.evaluations_of_job[key].values(), key=lambda one: str(one["ID"]))
    return answer(asked, [shown(one) for one in own], "evaluations")


async def summary(asked: Asked) -> Response:
    """`GET /v1/job/ID/summary`."""
    job = asked.agent.job(asked.namespace, asked.request.path_params["job_id"])
    return answer(asked, asked.agent.summary(job), "jobs")


async def evaluate(asked: Asked) -> Response:
    """`PUT /v1/job/ID/evaluate`."""
    agent = asked.agent
    job = agent.job(asked.namespace, asked.request.path_params["job_id"])
    with agent.state.change("EvaluationUpdated") as transaction:
        evaluation = agent.scheduler.evaluate(transaction, job, "job-register")
    return answer(asked, {"EvalID": evaluation["ID"], "Index": agent.state.index, "JobModifyIndex": 0})


async def scale(asked: Asked) -> Response:
    """`PUT /v1/job/ID/scale`: services have deployments, which the stand-in has not."""
    asked.agent.job(asked.namespace, asked.request.path_params["job_id"])
    raise RequestError(400, "job scaling blocked due to active deployment")


async def list_evaluations(asked: Asked) -> Response:
    """`GET /v1/evaluations`."""
    await asked.wait("evaluations")
    found = listed(asked, asked.agent.state.tables["evaluations"].values())
    status, job = asked.query.get("status"), asked.query.get("job")
    found = [one for one in found if status in (None, "", one["Status"]) and job in (None, "", one["JobID"])]
    return answer(asked, [shown(one) for one in found], "evaluations")


async def show_evaluation(asked: Asked) -> Response:
    """`GET /v1/evaluation/ID`."""
    await asked.wait("evaluations")
    name = asked.request.path_params["evaluation_id"]
    check_id(name, "failed to lookup eval: eval lookup failed")
    found = asked.agent.state.tables["evaluations"].get(name)
    if found is None:
        raise RequestError(404, "eval not found")
    return answer(asked, shown(found), "evaluations")


async def allocations_of_evaluation(asked: Asked) -> Response:
    """`GET /v1/evaluation/ID/allocations`."""
    name = asked.request.path_params["evaluation_id"]
    own = [one for one in asked.agent.state.tables["allocations"].values() if one.get("EvalID") == name]
    return answer(asked, [allocation_stub(one, resources=False) for one in own], "allocations")


JOB = "/v1/job/{job_id:path}"
ROUTES = (
    ("/v1/jobs/parse", "POST PUT", parse),
    ("/v1/jobs", "PUT POST", register),
    ("/v1/jobs", "GET", list_jobs),
    (f"{JOB}/allocations", "GET", allocations_of_job),
    (f"{JOB}/evaluations", "GET", evaluations_of_job),
    (f"{JOB}/summary", "GET", summary),
    (f"{JOB}/evaluate", "PUT POST", evaluate),
    (f"{JOB}/scale", "PUT POST", scale),
    (JOB, "GET", show_job),
    (JOB, "PUT POST", register),
    (JOB, "DELETE", deregister),
    ("/v1/evaluations", "GET", list_evaluations),
    ("/v1/evaluation/{evaluation_id}/allocations", "GET", allocations_of_evaluation),
    ("/v1/evaluation/{evaluation_id}", "GET", show_evaluation),
)
