"""Registration, evaluations and what they say, capacity, the end of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.stand_ins.nomad_jobs import batch, fresh_name, shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stand_ins.nomad.cluster import Cluster


@pytest.fixture
def job(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """A job that sleeps; it is purged afterwards."""
    found = shell("exec sleep 100")
    yield found
    cluster.purge(found["ID"])


def statuses(cluster: Cluster, job: dict[str, Any]) -> list[str]:
    """Return the client statuses of a job's allocations, the oldest first."""
    return [one["ClientStatus"] for one in cluster.allocations(job["ID"])]


def failures(cluster: Cluster, job: dict[str, Any]) -> dict[str, Any]:
    """Register a job that cannot be placed, and return why; there is a blocked evaluation."""
    evaluation = cluster.evaluation(cluster.register(job)["EvalID"])
    blocked = cluster.call("GET", f"/v1/evaluation/{evaluation['BlockedEval']}")
    assert (blocked["Status"], blocked["TriggeredBy"]) == ("blocked", "queued-allocs")
    assert blocked["PreviousEval"] == evaluation["ID"]
    assert evaluation["QueuedAllocations"] == {"sandbox": 1}
    found: dict[str, Any] = evaluation["FailedTGAllocs"]["sandbox"]
    return found


def test_a_job_is_registered_evaluated_and_placed(cluster: Cluster, job: dict[str, Any]) -> None:
    answer = cluster.register(job)
    assert answer["JobModifyIndex"] == answer["EvalCreateIndex"] > 0
    evaluation = cluster.evaluation(answer["EvalID"])
    assert evaluation["TriggeredBy"] == "job-register"
    assert evaluation["JobModifyIndex"] == answer["JobModifyIndex"]
    assert evaluation.get("FailedTGAllocs") is None
    [stub] = cluster.allocations(job["ID"])
    assert (stub["EvalID"], stub["Name"]) == (answer["EvalID"], f"{job['ID']}.sandbox[0]")
    assert cluster.allocation(job["ID"], "running")["DesiredStatus"] == "run"
    assert cluster.call("GET", f"/v1/job/{job['ID']}")["Status"] == "running"


def test_a_driver_that_no_node_has(cluster: Cluster, job: dict[str, Any]) -> None:
    job["TaskGroups"][0]["Tasks"][0] |= {"Driver": "nothing", "Config": {}}
    found = failures(cluster, job)
    assert found["ConstraintFiltered"] == {"missing drivers": 1}
    assert (found["NodesEvaluated"], found["NodesFiltered"], found["NodesExhausted"]) == (1, 1, 0)


@pytest.mark.parametrize(("resource", "dimension"), [("MemoryMB", "memory"), ("CPU", "cpu")])
def test_a_node_with_too_little(cluster: Cluster, job: dict[str, Any], resource: str, dimension: str) -> None:
    job["TaskGroups"][0]["Tasks"][0]["Resources"][resource] = 10**8
    found = failures(cluster, job)
    assert found["DimensionExhausted"] == {dimension: 1}
    assert (found["NodesEvaluated"], found["NodesFiltered"], found["NodesExhausted"]) == (1, 0, 1)
    assert found["NodesAvailable"] == {"dc1": 1}


def test_a_node_with_too_little_disk(cluster: Cluster, job: dict[str, Any]) -> None:
    job["TaskGroups"][0]["EphemeralDisk"]["SizeMB"] = 10**8
    assert failures(cluster, job)["DimensionExhausted"] == {"disk": 1}


def test_no_such_datacenter(cluster: Cluster, job: dict[str, Any]) -> None:
    job["Datacenters"] = ["mars"]
    found = failures(cluster, job)
    assert (found["NodesEvaluated"], found["NodesAvailable"]) == (0, {})
    assert found["ConstraintFiltered"] is None
    assert found["DimensionExhausted"] is None


def test_a_constraint_that_no_node_fulfils(cluster: Cluster, job: dict[str, Any]) -> None:
    job["Constraints"] = [{"LTarget": "${attr.kernel.name}", "RTarget": "windows", "Operand": "="}]
    assert failures(cluster, job)["ConstraintFiltered"] == {"${attr.kernel.name} = windows": 1}


def test_a_volume_that_no_node_has(cluster: Cluster, job: dict[str, Any]) -> None:
    job["TaskGroups"][0]["Volumes"] = {"data": {"Name": "data", "Type": "host", "Source": "nothing"}}
    assert failures(cluster, job)["ConstraintFiltered"] == {"missing compatible host volumes": 1}


def test_a_static_port_that_is_taken(cluster: Cluster) -> None:
    jobs = [shell("exec sleep 100") for _ in range(3)]  # the loopback device may have two addresses
    try:
        for job in jobs:
            job["TaskGroups"][0]["Networks"][0]["ReservedPorts"] = [{"Label": "web", "Value": 18123}]
            evaluation = cluster.evaluation(cluster.register(job)["EvalID"])
            if "BlockedEval" in evaluation:
                break
            ports = cluster.allocation(job["ID"], "running")["AllocatedResources"]["Shared"]["Ports"]
            assert [port["Value"] for port in ports if port["Label"] == "web"] == [18123]
        found = evaluation["FailedTGAllocs"]["sandbox"]
        assert found["DimensionExhausted"] == {"network: reserved port collision web=18123": 1}
        cluster.purge(jobs[0]["ID"])
        cluster.allocation(job["ID"], "running")  # the blocked evaluation is placed when the port is free
    finally:
        for job in jobs:
            cluster.purge(job["ID"])


def test_a_blocked_evaluation_is_placed_when_capacity_returns(cluster: Cluster, job: dict[str, Any]) -> None:
    [node] = cluster.call("GET", "/v1/nodes", resources="true")
    most = node["NodeResources"]["Memory"]["MemoryMB"] * 2 // 3
    other = shell("exec sleep 100")
    for one in (job, other):
        one["TaskGroups"][0]["Tasks"][0]["Resources"]["MemoryMB"] = most
    cluster.register(other)
    cluster.allocation(other["ID"], "running")
    assert failures(cluster, job)["DimensionExhausted"] == {"memory": 1}
    assert cluster.allocations(job["ID"]) == []
    cluster.purge(other["ID"])
    cluster.allocation(job["ID"], "running")


def test_log_storage_must_be_smaller_than_the_disk(cluster: Cluster, job: dict[str, Any]) -> None:
    job["TaskGroups"][0]["Tasks"][0]["LogConfig"] = {"MaxFiles": 10, "MaxFileSizeMB": 10}
    answer = cluster.answer("PUT", "/v1/jobs", {"Job": job})
    assert answer.status_code == 500
    assert "log storage (100 MB) must be less than requested disk capacity (10 MB)" in answer.text


def no_id(job: dict[str, Any]) -> None:
    job["ID"] = job["Name"] = ""


def no_groups(job: dict[str, Any]) -> None:
    job["TaskGroups"] = []


def no_driver(job: dict[str, Any]) -> None:
    job["TaskGroups"][0]["Tasks"][0]["Driver"] = ""


def other_namespace(job: dict[str, Any]) -> None:
    job["Namespace"] = "nowhere"


def other_pool(job: dict[str, Any]) -> None:
    job["NodePool"] = "nowhere"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_id, "Missing job ID"),
        (no_groups, "Missing job task groups"),
        (no_driver, "Missing task driver"),
        (other_namespace, 'is in nonexistent namespace "nowhere"'),
        (other_pool, 'is in nonexistent node pool "nowhere"'),
    ],
)
def test_a_faulty_job_is_refused(cluster: Cluster, job: dict[str, Any], spoil: Any, said: str) -> None:
    spoil(job)
    answer = cluster.answer("PUT", "/v1/jobs", {"Job": job})
    assert answer.status_code == 500
    assert said in answer.text


def test_deregistering_stops_and_keeps_the_job(cluster: Cluster, job: dict[str, Any]) -> None:
    cluster.register(job)
    cluster.allocation(job["ID"], "running")
    evaluation = cluster.call("DELETE", f"/v1/job/{job['ID']}")["EvalID"]
    cluster.evaluation(evaluation)
    allocation = cluster.allocation(job["ID"], "complete")
    assert (allocation["DesiredStatus"], allocation["DesiredDescription"]) == (
        "stop",
        "alloc not needed due to job update",
    )
    events = allocation["TaskStates"]["main"]["Events"]
    assert [event["Type"] for event in events][-3:] == ["Killing", "Terminated", "Killed"]
    stopped = cluster.call("GET", f"/v1/job/{job['ID']}")
    assert (stopped["Stop"], stopped["Status"]) == (True, "dead")


def test_a_purge_forgets_the_job_and_its_allocations_but_not_its_evaluations(
    cluster: Cluster, job: dict[str, Any]
) -> None:
    answer = cluster.register(job)
    allocation = cluster.allocation(job["ID"], "running")
    purged = cluster.call("DELETE", f"/v1/job/{job['ID']}", purge="true")
    cluster.evaluation(purged["EvalID"])
    assert cluster.answer("GET", f"/v1/job/{job['ID']}").status_code == 404
    assert cluster.allocations(job["ID"]) == []
    assert cluster.answer("GET", f"/v1/allocation/{allocation['ID']}").status_code == 404
    kept = {one["ID"] for one in cluster.call("GET", f"/v1/job/{job['ID']}/evaluations")}
    assert {answer["EvalID"], purged["EvalID"]} <= kept
    again = cluster.register(job)
    assert again["JobModifyIndex"] > answer["JobModifyIndex"]
    fresh = cluster.allocation(job["ID"], "running")
    assert fresh["ID"] != allocation["ID"]


def test_deregistering_what_is_not_there(cluster: Cluster) -> None:
    answer = cluster.call("DELETE", f"/v1/job/{fresh_name()}", purge="true")
    assert (answer["EvalID"], answer["JobModifyIndex"]) == ("", 0)


def test_stopping_an_allocation_places_another(cluster: Cluster, job: dict[str, Any]) -> None:
    cluster.register(job)
    first = cluster.allocation(job["ID"], "running")
    answer = cluster.call("PUT", f"/v1/allocation/{first['ID']}/stop")
    assert cluster.evaluation(answer["EvalID"])["TriggeredBy"] == "alloc-stop"
    cluster.eventually(
        lambda: [one["ClientStatus"] for one in cluster.allocations(job["ID"])] == ["complete", "running"]
    )
    stopped, second = cluster.allocations(job["ID"])
    assert (stopped["ID"], stopped["NextAllocation"]) == (first["ID"], second["ID"])
    assert (stopped["DesiredStatus"], stopped["DesiredDescription"]) == ("stop", "alloc is being migrated")
    assert stopped["DesiredTransition"]["Migrate"] is True


def test_scaling_down_stops_the_highest_indices(cluster: Cluster, job: dict[str, Any]) -> None:
    job["TaskGroups"][0]["Count"] = 3
    cluster.register(job)
    cluster.eventually(lambda: statuses(cluster, job) == ["running"] * 3)
    job["TaskGroups"][0]["Count"] = 1
    cluster.register(job)

    def running() -> list[str]:
        return [one["Name"] for one in cluster.allocations(job["ID"]) if one["ClientStatus"] == "running"]

    cluster.eventually(lambda: running() == [f"{job['ID']}.sandbox[0]"])


def test_a_batch_job_without_a_task_driver_of_docker(cluster: Cluster) -> None:
    job = batch("docker", {})
    try:
        cluster.register(job)
        events = cluster.allocation(job["ID"], "failed")["TaskStates"]["main"]["Events"]
        assert "Failed Validation" in [event["Type"] for event in events]
    finally:
        cluster.purge(job["ID"])
