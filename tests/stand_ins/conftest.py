"""The clusters of these tests: the stand-in, and the real agent wherever there is one."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.conftest import cannot_run
from tests.stand_ins.nomad.fixtures import given_cluster, nomad_binary, running_agent, running_stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stand_ins.nomad.cluster import Cluster
    from tests.stand_ins.nomad.fixtures import RunningAgent, RunningStandIn


BOTH = ["stand-in", pytest.param("agent", marks=pytest.mark.nomad)]


def no_agent() -> str | None:
    """Say why there is no real agent, or None."""
    return None if nomad_binary() else "nomad is not on PATH, and neither HERMES_TEST_NOMAD nor NOMAD_ADDR is set"


@pytest.fixture(scope="session", params=BOTH)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Each statement is tried on both: so the stand-in is faithful, or the test fails."""
    with ExitStack() as stack:
        if request.param == "stand-in":
            yield stack.enter_context(running_stand_in(docker_allow_caps="+sys_admin")).cluster
        elif (given := given_cluster()) is not None:
            yield given
        else:
            if (why := no_agent()) is not None:
                cannot_run("nomad", why)
            yield stack.enter_context(running_agent()).cluster


@pytest.fixture(params=BOTH)
def killable(request: pytest.FixtureRequest) -> Iterator[RunningStandIn | RunningAgent]:
    """A cluster of the test's own, whose agent can be killed and started again."""
    with ExitStack() as stack:
        if request.param == "stand-in":
            yield stack.enter_context(running_stand_in())
        else:
            if (why := no_agent()) is not None:
                cannot_run("nomad", why)
            yield stack.enter_context(running_agent())
