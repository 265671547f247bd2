"""The cluster under test, and backends on it of which every test must leave nothing.

The cluster is the project's stand-in for an agent, with real containers underneath; a real agent if the program is
installed; and whatever `NOMAD_ADDR` names, if it is set: `NOMAD_ADDR=URL pytest -m nomad`.
"""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import pytest
from tests.conftest import cannot_run
from tests.docker_images import engine_client, reference_image
from tests.hermes_backend_nomad.belongings import leases_of, wait_until
from tests.hermes_backend_nomad.witness import witnessing
from tests.hermes_backend_singularity.engine import IMAGE
from tests.hermes_backend_singularity.ordinary_user import USER
from tests.stand_ins.nomad.fixtures import given_cluster, nomad_binary, running_agent, running_stand_in

from hermes_backend_nomad import NomadConfig, NomadSingularityConfig
from hermes_backend_nomad._apptainer_backend import NomadSingularityBackend
from hermes_backend_nomad._docker_backend import NomadBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.hermes_backend_nomad.witness import Witness
    from tests.stand_ins.nomad.cluster import Cluster

Backend: TypeAlias = NomadBackend | NomadSingularityBackend

DOCKER_BASE = os.environ.get("HERMES_TEST_DOCKER_BASE", "hermes-base:bookworm")
HERE = ("localhost", "127.0.0.1", "::1")
SMALL = {"cpu": 100, "memory": 256, "disk": 300}
"""What sandboxes of tests need, so that many of them fit on a machine."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster under test."""
    with ExitStack() as stack:
        if (given := given_cluster()) is not None:
            if urlsplit(given.address).hostname not in HERE:
                cannot_run(
                    "nomad", f"the agent at {given.address} is not on this machine, whose processes are looked at"
                )
            yield given
        elif nomad_binary() is not None:
            yield stack.enter_context(running_agent()).cluster
        else:
            yield stack.enter_context(running_stand_in(docker_allow_caps="+sys_admin")).cluster


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster that is given, variables of Nomad's have no say."""
    if "NOMAD_ADDR" not in os.environ:
        for name in [name for name in os.environ if name.startswith("NOMAD_")]:
            monkeypatch.delenv(name)


@contextmanager
def nothing_left(cluster: Cluster) -> Iterator[Witness]:
    """A `sandbox_job_id` of one's own, of which in the end nothing may be left."""
    held = set(leases_of(cluster, os.getpid()))
    with witnessing(cluster, f"test-{uuid.uuid4().hex[:8]}") as witness:
        yield witness
        wait_until(lambda: not witness.left(), lambda: f"there is left: {witness.left()}")
    assert set(leases_of(cluster, os.getpid())) <= held


@pytest.fixture
def witness(cluster: Cluster) -> Iterator[Witness]:
    """Who knows all sandboxes of the test; nothing of them may be left."""
    with nothing_left(cluster) as witness:
        yield witness


@pytest.fixture
def job_id(witness: Witness) -> str:
    """The `sandbox_job_id` of the test."""
    return witness.job_id


@pytest.fixture(scope="session")
def docker_image(docker_base: str) -> str:
    """An image of containers."""
    return docker_base


@pytest.fixture(scope="session")
def reference(docker_base: str) -> str:
    """The tag of the reference image, which has what slots are promised: a Python among other things."""
    with engine_client() as client:
        return str(client.inspect_image(reference_image(docker_base))["RepoTags"][0])


@pytest.fixture(params=["nomad", "nomad-singularity"])
def backend_name(request: pytest.FixtureRequest) -> str:
    """Both backends."""
    return str(request.param)


@pytest.fixture
def make(cluster: Cluster, job_id: str) -> Callable[..., Backend]:
    """Makes backends on the cluster: `make("nomad", slots_per_sandbox=2)`."""

    def make(name: str = "nomad", **settings: object) -> Backend:
        return backend_on(cluster.address, job_id, name, settings)

    return make


def backend_on(address: str, job_id: str, name: str, settings: Mapping[str, object]) -> Backend:
    """A backend on a cluster, with small sandboxes."""
    values = {"nomad_address": address, "sandbox_job_id": job_id, **SMALL}
    if name == "nomad":
        return NomadBackend(NomadConfig.model_validate({"image": DOCKER_BASE, **values, **settings}))
    own = {"image": str(IMAGE), "user": USER}
    return NomadSingularityBackend(NomadSingularityConfig.model_validate({**own, **values, **settings}))
