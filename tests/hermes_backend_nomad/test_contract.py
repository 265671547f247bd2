"""The backends `nomad` and `nomad-singularity` keep the contract that every backend keeps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import pytest
from anyio import to_thread
from tests.hermes_backend_nomad.conftest import backend_on, nothing_left
from tests.hermes_backend_nomad.processes import kill_supervisors

from hermes_backend_nomad._sandbox import NomadSandbox
from hermes_core.testing.contract import Check, ContractRig, open_rig, parameters, unseen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.stand_ins.nomad.cluster import Cluster

    from hermes_core.sandbox import Sandbox
    from hermes_core.testing.contract import Level

pytestmark = [pytest.mark.anyio, pytest.mark.nomad]

CASES = [
    pytest.param(case, id="-".join(case), marks=[pytest.mark.docker if case[0] == "nomad" else pytest.mark.apptainer])
    for case in (
        ("nomad", "namespaces", "asyncio"),
        ("nomad", "namespaces", "trio"),
        ("nomad", "user", "asyncio"),
        ("nomad-singularity", "namespaces", "asyncio"),
        ("nomad-singularity", "namespaces", "trio"),
    )
]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Level, str]:
    if request.param[0] == "nomad":
        request.getfixturevalue("reference")  # had here, since no event loop runs yet
    return cast("tuple[str, Level, str]", request.param)


@pytest.fixture(scope="module")
def anyio_backend(case: tuple[str, Level, str]) -> str:
    return case[2]


async def kill_slots(sandbox: Sandbox) -> None:
    """Kill the supervisors."""
    assert isinstance(sandbox, NomadSandbox)
    assert sandbox.allocation_id is not None
    await to_thread.run_sync(kill_supervisors, sandbox.allocation_id)


@pytest.fixture(scope="module")
async def contract_rig(
    case: tuple[str, Level, str], cluster: Cluster, request: pytest.FixtureRequest
) -> AsyncIterator[ContractRig]:
    name, level, _ = case
    # Processes of others can be killed by root only.
    killing = kill_slots if os.geteuid() == 0 else None
    with nothing_left(cluster) as witness:
        settings: dict[str, object] = {"isolation": level, "memory": 1024}
        if name == "nomad":
            settings["image"] = request.getfixturevalue("reference")
        async with open_rig(
            lambda: backend_on(cluster.address, witness.job_id, name, settings), kill_slots=killing
        ) as rig:
            assert rig.level == level
            yield rig


@pytest.mark.parametrize("check", parameters())
async def test_contract(check: Check, contract_rig: ContractRig) -> None:
    await check(contract_rig)


async def test_with_namespaces_everything_is_promised_and_seen(contract_rig: ContractRig) -> None:
    if contract_rig.level == "namespaces" and os.geteuid() == 0:
        assert not unseen(contract_rig)
