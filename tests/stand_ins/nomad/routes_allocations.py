"""Routes of allocations and of what their tasks have written."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from starlette.responses import Response

from .documents import Doc, RequestError
from .web import Asked, answer, check_id, listed, shown

__all__ = ["ROUTES", "allocation_stub"]

if TYPE_CHECKING:
    from .task_runner import TaskRunner

STUB = (
    *("ID", "EvalID", "Name", "Namespace", "NodeID", "NodeName", "JobID", "TaskGroup", "DesiredStatus"),
    *("DesiredDescription", "ClientStatus", "ClientDescription", "DesiredTransition", "TaskStates", "FollowupEvalID"),
    *("NextAllocation", "PreviousAllocation", "PreemptedAllocations", "PreemptedByAllocation"),
    *("CreateIndex", "ModifyIndex", "CreateTime", "ModifyTime"),
)
FIELDS = frozenset(
    (*STUB, "Job", "AllocatedResources", "Metrics", "DeploymentID", "NetworkStatus", "RescheduleTracker")
)
TEXTS = ("DesiredDescription", "ClientDescription", "FollowupEvalID", "NextAllocation", "PreemptedByAllocation")


def allocation_stub(allocation: Doc, *, resources: bool) -> Doc:
    """Show an allocation as lists do."""
    stub = {key: allocation.get(key, "" if key in TEXTS else None) for key in STUB}
    stub.pop("PreviousAllocation")
    job = allocation["Job"]
    stub |= {"JobType": job["Type"], "JobVersion": job["Version"], "DeploymentStatus": None}
    stub["RescheduleTracker"] = allocation.get("RescheduleTracker")
    if resources:
        stub["AllocatedResources"] = allocation["AllocatedResources"]
    return stub


def find(asked: Asked) -> Doc:
    """Find the allocation that a route names."""
    name = asked.request.path_params["allocation_id"]
    check_id(name, "alloc lookup failed")
    found = asked.agent.state.tables["allocations"].get(name)
    if found is None:
        raise RequestError(404, "alloc not found")
    return found


async def list_allocations(asked: Asked) -> Response:
    """`GET /v1/allocations`."""
    await asked.wait("allocations")
    check_id(asked.query.get("prefix", ""), "alloc lookup failed", prefix=True)
    found = listed(asked, asked.agent.state.tables["allocations"].values(), fields=FIELDS)
    resources = asked.flag("resources")
    return answer(asked, [allocation_stub(one, resources=resources) for one in found], "allocations")


async def show_allocation(asked: Asked) -> Response:
    """`GET /v1/allocation/ID`."""
    await asked.wait("allocations")
    return answer(asked, shown(find(asked)), "allocations")


async def stop_allocation(asked: Asked) -> Response:
    """`PUT /v1/allocation/ID/stop`."""
    return answer(asked, asked.agent.stop_allocation(find(asked)))


def task_of(asked: Asked) -> tuple[TaskRunner, str]:
    """Find the task whose output is asked for, and which."""
    name = asked.query.get("task")
    if not name:
        raise RequestError(400, "must provide task name")
    kind = asked.query.get("type", "")
    if kind not in ("stdout", "stderr"):
        raise RequestError(400, "must provide log type (stdout/stderr)")
    if asked.query.get("origin", "start") not in ("start", "end"):
        raise RequestError(400, "origin must be start or end")
    allocation = asked.request.path_params["allocation_id"]
    runner = asked.agent.client.runners.get(allocation)
    if runner is None:
        raise RequestError(404, f'Unknown allocation "{allocation}"')
    task = runner.tasks.get(name)
    if task is None:
        raise RequestError(400, f'unknown task name "{name}"')
    if not task.state.started:
        raise RequestError(404, f'task "{name}" not started yet. No logs available')
    return task, kind


async def read_logs(asked: Asked) -> Response:
    """`GET /v1/client/fs/logs/ID`: the output of a task, or a part that is counted from its start or its end."""
    task, kind = task_of(asked)
    file = asked.agent.client.runners[asked.request.path_params["allocation_id"]].folder.task(task.name).log(kind)
    if task.handle is not None:
        text = await task.driver.read_logs(task.handle, kind, file)
    else:
        text = file.read_bytes() if file.exists() else b""
    offset, size = asked.number("offset") or 0, len(text)
    text = text[-offset:] if asked.query.get("origin") == "end" else text[offset:]
    if asked.flag("plain"):
        return Response(text, media_type="text/plain")
    frame = {"File": f"alloc/logs/{file.name}", "Offset": size, "Data": base64.b64encode(text).decode()}
    return Response(json.dumps(frame) if text else "{}", media_type="application/json")


ROUTES = (
    ("/v1/allocations", "GET", list_allocations),
    ("/v1/allocation/{allocation_id}", "GET", show_allocation),
    ("/v1/allocation/{allocation_id}/stop", "PUT POST", stop_allocation),
    ("/v1/client/fs/logs/{allocation_id}", "GET", read_logs),
)
