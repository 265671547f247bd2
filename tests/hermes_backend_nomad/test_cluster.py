"""A cluster of three servers and three clients that loses its leader and a machine during a run."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from tests.conftest import cannot_run
from tests.nomad_cluster.images import image_settings
from tests.nomad_cluster.trial import Size, run_on_a_cluster

pytestmark = pytest.mark.nomad


def program() -> Path:
    """The program that `HERMES_TEST_NOMAD` names, else the one on PATH."""
    named = os.environ.get("HERMES_TEST_NOMAD")
    if named == "stand-in":
        cannot_run("nomad", "a cluster needs the real program, and the stand-in was asked for")
    found = named or shutil.which("nomad")
    if found is None:
        cannot_run("nomad", "a cluster needs the program, and there is no nomad on PATH (name it in HERMES_TEST_NOMAD)")
    return Path(found)


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("nomad", marks=pytest.mark.docker),
        pytest.param("nomad-singularity", marks=pytest.mark.apptainer),
    ],
)
def test_a_run_outlives_the_leader_and_a_machine(backend: str) -> None:
    with tempfile.TemporaryDirectory(prefix="hermes-cluster-", dir="/tmp") as folder:
        outcome = run_on_a_cluster(program(), Path(folder), backend, image_settings(backend), Size())
    assert outcome.run["trajectories"] == outcome.run["different"] == outcome.run["wanted"]
    assert outcome.run["mean_reward"] == 1.0
    assert outcome.machine["sandboxes"] > 0
    assert outcome.run["attempts that were spoiled"] > 0
    assert outcome.machine["status"] == "ready"  # the cluster still believes in it: nobody has waited for its verdict
    assert outcome.machine["allocations that wait for it"] == 0
    assert outcome.left == []
    killed, [asked, *more] = outcome.run["address of the killed leader"], outcome.run["agents that were asked later"]
    assert killed not in (asked, *more)  # it was named first, and is gone for good
