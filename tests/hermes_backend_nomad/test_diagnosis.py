"""What `hermes doctor` says of the backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.hermes_backend_nomad.doors import doors_to
from tests.stand_ins.nomad.fixtures import running_stand_in

from hermes_backend_nomad._apptainer_backend import NomadSingularityBackend
from hermes_backend_nomad._docker_backend import NomadBackend

if TYPE_CHECKING:
    import pytest


def test_a_cluster_whose_nodes_have_one_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_stand_in(docker=False, version="1.9.3") as started:
        address = started.cluster.address
        monkeypatch.setenv("NOMAD_ADDR", address)
        [with_docker], [with_raw_exec] = NomadBackend.diagnose(), NomadSingularityBackend.diagnose()
        with doors_to(started.cluster, 1) as [door]:
            door.shut()
            monkeypatch.setenv("NOMAD_ADDR", door.url)
            [gone] = NomadBackend.diagnose()
    assert with_docker.state == "broken"
    assert "docs/how-to/run-on-nomad.md" in with_docker.hint
    assert with_raw_exec.state == "ok"
    assert with_raw_exec.detail == (f"Nomad 1.9.3 at {address}: 1 of 1 nodes take work, 1 with the driver raw_exec")
    assert (gone.state, gone.detail) == ("missing", f"no Nomad agent answers at {door.url}: connection refused")
