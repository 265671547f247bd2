"""What the guide has people do on one machine is done on the cluster under test."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import docker
import pytest
from tests.hermes_backend_nomad.belongings import jobs_of, variables_of
from tests.hermes_backend_nomad.command_line import hermes
from tests.hermes_backend_singularity.engine import IMAGE
from tests.hermes_backend_singularity.ordinary_user import USER

from hermes_backend_docker import build_missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stand_ins.nomad.cluster import Cluster

pytestmark = [pytest.mark.nomad, pytest.mark.docker, pytest.mark.apptainer]

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "run-on-nomad.md"
LOCAL_IMAGE = "hermes-sandbox:local"


@pytest.fixture
def _local_image(docker_base: str) -> Iterator[None]:
    """The image that is built when it is missing, on a base that needs no registry."""
    with closing(docker.APIClient(version="auto", **docker.utils.kwargs_from_env())) as client:
        there = bool(client.images(name=LOCAL_IMAGE))
        anyio.run(lambda: build_missing(LOCAL_IMAGE, base_image=docker_base))
        yield
        if not there:
            client.remove_image(LOCAL_IMAGE, force=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may look into, with the image that the guide has."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copyfile(IMAGE, folder / "debian.sif")
        yield folder


@pytest.mark.usefixtures("_local_image")
def test_the_runs_on_one_machine_go_as_they_are_told(cluster: Cluster, folder: Path) -> None:
    section = GUIDE.read_text().partition("## On one machine")[2].partition("\n## ")[0]
    commands = [shlex.split(line) for line in re.findall(r"^\$ hermes (run .*)$", section, re.MULTILINE)]
    assert [command[command.index("--backend") + 1] for command in commands] == ["nomad", "nomad-singularity"]
    for command in commands:
        # The agent is root's here, which the guide has a word for.
        user = ("-B", f"user={USER}") if "nomad-singularity" in command and os.geteuid() == 0 else ()
        done = hermes(folder, *command, *user, further={"NOMAD_ADDR": cluster.address})
        assert done.returncode == 0, done.stderr
        out = folder / command[command.index("--out") + 1]
        statistics = json.loads((out / "statistics.json").read_text())
        assert (statistics["failures"], statistics["mean_reward"]) == (0, 1.0)
    assert jobs_of(cluster, "hermes-sandbox") == []
    assert variables_of(cluster, "hermes-sandbox") == []
