"""The event stream: what is delivered, to whom, from which index on."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
from tests.stand_ins.nomad_jobs import shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stand_ins.nomad.cluster import Cluster


@contextmanager
def following(cluster: Cluster, *topics: str, index: int = 0, namespace: str = "*") -> Iterator[list[dict[str, Any]]]:
    """Gather the lines of a stream while the block runs."""
    lines: list[dict[str, Any]] = []
    query: dict[str, Any] = {"topic": list(topics), "index": index, "namespace": namespace}
    opened, over = threading.Event(), threading.Event()

    def read() -> None:
        try:
            with cluster.client() as client, client.stream("GET", "/v1/event/stream", params=query) as answer:
                for line in answer.iter_lines():
                    lines.append(json.loads(line))
                    opened.set()
                    if over.is_set():
                        return
        except httpx.HTTPError:
            assert over.is_set()  # the cluster has ended

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert opened.wait(10), "not even a heartbeat"
    try:
        yield lines
    finally:
        over.set()


def current_index(cluster: Cluster) -> int:
    """Return the newest index of what streams tell about."""
    return max(
        int(cluster.answer("GET", f"/v1/{table}").headers["X-Nomad-Index"])
        for table in ("jobs", "allocations", "evaluations")
    )


def events(lines: list[dict[str, Any]], topic: str) -> list[dict[str, Any]]:
    return [event for line in lines for event in line.get("Events") or () if event["Topic"] == topic]


def test_a_life_of_an_allocation(cluster: Cluster) -> None:
    job = shell("exit 3")
    with following(cluster, "Allocation", "Job", "Evaluation", index=current_index(cluster) + 1) as lines:
        assert lines[0] == {}, "a stream begins with a heartbeat"
        answer = cluster.register(job)

        def of_job() -> list[dict[str, Any]]:
            own = [one for one in events(lines, "Allocation") if job["ID"] in one["FilterKeys"]]
            return own if own and own[-1]["Payload"]["Allocation"]["ClientStatus"] == "failed" else []

        allocations = cluster.eventually(of_job)
        try:
            first, last = allocations[0], allocations[-1]
            assert first["Type"] == "PlanResult"
            assert first["Payload"]["Allocation"]["DesiredStatus"] == "run"
            assert {one["Type"] for one in allocations[1:]} == {"AllocationUpdated"}
            assert (first["Key"], first["Namespace"]) == (first["Payload"]["Allocation"]["ID"], "default")
            assert "Job" not in last["Payload"]["Allocation"]
            assert last["Payload"]["Allocation"]["TaskStates"]["main"]["Events"][-1]["Type"] == "Not Restarting"
            assert last["Index"] == last["Payload"]["Allocation"]["ModifyIndex"]
            registered = next(one for one in events(lines, "Job") if one["Key"] == job["ID"])
            assert (registered["Type"], registered["Index"]) == ("JobRegistered", answer["JobModifyIndex"])
            kinds = [one["Type"] for one in events(lines, "Evaluation") if one["Key"] == answer["EvalID"]]
            assert (kinds[0], kinds[-1]) == ("JobRegistered", "EvaluationUpdated")
            indexes = [line["Index"] for line in lines if "Index" in line]
            assert indexes == sorted(indexes)  # an index may come in more than one line
        finally:
            cluster.purge(job["ID"])
        cluster.eventually(lambda: any(one["Payload"].get("Deleted") for one in events(lines, "Job")))


def test_only_one_job_is_followed(cluster: Cluster) -> None:
    jobs = [shell("exit 0") for _ in range(2)]
    index = current_index(cluster) + 1
    try:
        with following(cluster, f"Job:{jobs[1]['ID']}", f"Allocation:{jobs[1]['ID']}", index=index) as lines:
            for job in jobs:
                cluster.register(job)
                cluster.allocation(job["ID"], "complete")
            cluster.eventually(lambda: len(events(lines, "Allocation")) > 1)
            assert {one["Key"] for one in events(lines, "Job")} == {jobs[1]["ID"]}
            assert {one["FilterKeys"][0] for one in events(lines, "Allocation")} == {jobs[1]["ID"]}
    finally:
        for job in jobs:
            cluster.purge(job["ID"])


def test_catching_up_from_an_index(cluster: Cluster) -> None:
    job = shell("exit 0")
    try:
        index = cluster.register(job)["JobModifyIndex"]
        cluster.allocation(job["ID"], "complete")
        with following(cluster, "Allocation", "Job", index=index) as lines:

            def seen() -> list[str]:
                own = [one for one in events(lines, "Allocation") if job["ID"] in one["FilterKeys"]]
                return [one["Payload"]["Allocation"]["ClientStatus"] for one in own]

            cluster.eventually(lambda: seen()[-1:] == ["complete"] and len(seen()) >= 2)
            assert min(line["Index"] for line in lines if "Index" in line) >= index
    finally:
        cluster.purge(job["ID"])


def test_another_namespace_sees_nothing(cluster: Cluster) -> None:
    job = shell("exit 0")
    index = current_index(cluster) + 1
    try:
        with following(cluster, "*", index=index, namespace="nowhere") as lines:
            cluster.register(job)
            cluster.allocation(job["ID"], "complete")
            assert not events(lines, "Job")
            assert not events(lines, "Allocation")
    finally:
        cluster.purge(job["ID"])


def test_an_index_that_is_none(cluster: Cluster) -> None:
    assert cluster.answer("GET", "/v1/event/stream", index="x").status_code == 400
