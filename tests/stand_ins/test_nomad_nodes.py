"""Nodes: what they say of themselves, draining, eligibility."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.stand_ins.nomad_jobs import shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stand_ins.nomad.cluster import Cluster


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    """The only node, which is eligible again afterwards."""
    if cluster.kind == "given":
        pytest.skip("cannot run: nodes of a given cluster are not the tests' to drain")
    [found] = cluster.call("GET", "/v1/nodes")
    yield found["ID"]
    cluster.call("POST", f"/v1/node/{found['ID']}/drain", {"DrainSpec": None, "MarkEligible": True})


@pytest.fixture
def job(cluster: Cluster) -> Iterator[dict[str, Any]]:
    found = shell("exec sleep 100")
    yield found
    cluster.purge(found["ID"])


def test_a_node_and_its_stub(cluster: Cluster, node: str) -> None:
    [stub] = cluster.call("GET", "/v1/nodes")
    assert (stub["Status"], stub["SchedulingEligibility"], stub["Drain"]) == ("ready", "eligible", False)
    assert stub["Drivers"]["raw_exec"]["Healthy"] is True
    assert (stub["Datacenter"], stub["NodePool"]) == ("dc1", "default")
    shown = cluster.call("GET", f"/v1/node/{node}")
    assert shown["DrainStrategy"] is None
    assert shown["NodeResources"]["Memory"]["MemoryMB"] > 0
    assert shown["Attributes"]["kernel.name"] == "linux"


@pytest.mark.parametrize("deadline", [-1, 1_000_000_000])
def test_a_drain_stops_batch_jobs_and_does_not_replace_them(
    cluster: Cluster, node: str, job: dict[str, Any], deadline: int
) -> None:
    cluster.register(job)
    cluster.allocation(job["ID"], "running")
    cluster.call("POST", f"/v1/node/{node}/drain", {"DrainSpec": {"Deadline": deadline}})
    allocation = cluster.allocation(job["ID"], "complete")
    assert (allocation["DesiredStatus"], allocation["DesiredDescription"]) == ("stop", "alloc is being migrated")
    assert allocation["DesiredTransition"]["Migrate"] is True
    assert allocation["DesiredTransition"]["MigrateDisablePlacement"] is True
    said = [event["Type"] for event in allocation["TaskStates"]["main"]["Events"]]
    assert said[-3:] == ["Killing", "Terminated", "Killed"]
    shown = cluster.eventually(lambda: drained(cluster, node))
    assert shown["SchedulingEligibility"] == "ineligible"
    assert shown["LastDrain"]["Status"] == "complete"
    triggers = {one["TriggeredBy"] for one in cluster.call("GET", f"/v1/job/{job['ID']}/evaluations")}
    assert "node-drain" in triggers
    assert len(cluster.allocations(job["ID"])) == 1
    cluster.eventually(lambda: cluster.call("GET", f"/v1/job/{job['ID']}")["Status"] == "dead")


def drained(cluster: Cluster, node: str) -> dict[str, Any] | None:
    """Return the node once its drain is over."""
    found: dict[str, Any] = cluster.call("GET", f"/v1/node/{node}")
    return found if found["DrainStrategy"] is None else None


def test_a_drain_waits_for_batch_jobs(cluster: Cluster, node: str, job: dict[str, Any]) -> None:
    job["TaskGroups"][0]["Tasks"][0]["Config"]["args"][1] = "sleep 1"
    cluster.register(job)
    cluster.allocation(job["ID"], "running")
    cluster.call("POST", f"/v1/node/{node}/drain", {"DrainSpec": {"Deadline": 3600 * 10**9}})
    shown = cluster.call("GET", f"/v1/node/{node}")
    assert shown["DrainStrategy"]["Deadline"] == 3600 * 10**9
    assert shown["SchedulingEligibility"] == "ineligible"
    assert cluster.allocation(job["ID"], "complete")["DesiredStatus"] == "run"
    cluster.eventually(lambda: drained(cluster, node))


def test_an_ineligible_node_gets_nothing_new(cluster: Cluster, node: str, job: dict[str, Any]) -> None:
    cluster.call("POST", f"/v1/node/{node}/eligibility", {"Eligibility": "ineligible"})
    evaluation = cluster.evaluation(cluster.register(job)["EvalID"])
    assert evaluation["FailedTGAllocs"]["sandbox"]["NodesEvaluated"] == 0
    cluster.call("POST", f"/v1/node/{node}/eligibility", {"Eligibility": "eligible"})
    cluster.allocation(job["ID"], "running")


def test_what_runs_stays_on_an_ineligible_node(cluster: Cluster, node: str, job: dict[str, Any]) -> None:
    cluster.register(job)
    cluster.allocation(job["ID"], "running")
    cluster.call("POST", f"/v1/node/{node}/eligibility", {"Eligibility": "ineligible"})
    assert cluster.allocation(job["ID"], "running")["DesiredStatus"] == "run"
