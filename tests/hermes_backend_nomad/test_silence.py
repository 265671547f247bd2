"""Nodes that do not answer, and that the cluster believes to be there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.hermes_backend_nomad.belongings import jobs_of, variables_of
from tests.hermes_backend_nomad.conftest import backend_on
from tests.stand_ins.nomad.fixtures import running_stand_in

from hermes_backend_nomad._allocation import Allocation
from hermes_backend_nomad._sandbox import NomadSandbox
from hermes_backend_nomad._silence import SilentNodes, avoiding
from hermes_core.exceptions import NoCapacityError
from hermes_core.sandbox import Sandbox, SandboxSpec

if TYPE_CHECKING:
    from tests.hermes_backend_nomad.witness import Witness
    from tests.stand_ins.nomad.cluster import Cluster

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def node_of(cluster: Cluster, sandbox: Sandbox) -> str:
    assert isinstance(sandbox, NomadSandbox)
    return str(cluster.call("GET", f"/v1/allocation/{sandbox.allocation_id}")["NodeID"])


def allocation(node: str, **more: object) -> Allocation:
    said: dict[str, Any] = {"ID": "a", "JobID": "j", "NodeID": node, "ClientStatus": "pending", "DesiredStatus": "run"}
    return Allocation.of(said | more)


async def test_a_node_is_avoided_until_it_answers() -> None:
    silent = SilentNodes()
    silent.note(allocation("n1"))
    silent.note(allocation("n2"))
    assert silent.now() == {"n1", "n2"}
    silent.answered(allocation("n1"))
    assert silent.now() == {"n2"}


def test_a_node_has_begun_as_soon_as_there_is_an_event() -> None:
    assert allocation("n").untouched
    received = {"daemon": {"Events": [{"Type": "Received"}]}}
    assert not allocation("n", TaskStates=received).untouched
    assert not allocation("n", ClientStatus="running").untouched


def test_constraints_of_the_user_stay() -> None:
    own = {"LTarget": "${attr.kernel.name}", "RTarget": "linux", "Operand": "="}
    job = {"ID": "j", "Constraints": [own]}
    assert avoiding(job, ()) is job
    assert avoiding(job, ["n2", "n1"])["Constraints"] == [
        own,
        {"LTarget": "${node.unique.id}", "RTarget": "n1", "Operand": "!="},
        {"LTarget": "${node.unique.id}", "RTarget": "n2", "Operand": "!="},
    ]
    assert avoiding({"ID": "j"}, ["n"])["Constraints"][0]["RTarget"] == "n"


@pytest.mark.apptainer
async def test_a_node_is_not_blamed_for_a_job_that_somebody_purged(cluster: Cluster, witness: Witness) -> None:
    async with backend_on(cluster.address, witness.job_id, "nomad-singularity", {}) as backend:
        sandbox = await backend.start(SandboxSpec(slots=1), "test", "purged")
        assert isinstance(sandbox, NomadSandbox)
        cluster.call("DELETE", f"/v1/job/{sandbox.job_id}?purge=true")
        await sandbox.stop()
        assert backend.changes.silent.now() == frozenset()


@pytest.mark.apptainer
async def test_sandboxes_are_started_elsewhere_than_on_a_lost_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_backend_nomad._silence.BEGIN_S", 3.0)
    with running_stand_in(nodes=2, node_ttl=600, docker=False) as started:
        cluster = started.cluster
        async with backend_on(cluster.address, "lost", "nomad-singularity", {}) as backend:
            spec = SandboxSpec(slots=1)
            first = await backend.start(spec, "test", "first")
            lost = node_of(cluster, first)
            cluster.hook(f"node/{lost}/lose")
            with anyio.fail_after(60):  # not the two minutes that a start may take
                second = await backend.start(spec, "test", "second")
            assert node_of(cluster, second) != lost
            assert node_of(cluster, await backend.start(spec, "test", "third")) != lost
            cluster.hook(f"node/{node_of(cluster, second)}/lose")
            with pytest.raises(NoCapacityError, match="may be lost"):
                await backend.start(spec, "test", "fourth")
        assert jobs_of(cluster, "lost") == []
        assert variables_of(cluster, "lost") == []
