"""The backend keeps the contract that every backend keeps, on real Apptainer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from tests.hermes_backend_singularity.containers import Container
from tests.hermes_backend_singularity.engine import IMAGE

from hermes_backend_singularity import SingularityBackend, SingularityConfig
from hermes_core.testing.contract import Check, ContractRig, open_rig, parameters, unseen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hermes_core.sandbox import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.apptainer]


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def kill_slots(sandbox: Sandbox) -> None:
    """Kill the supervisors."""
    for supervisor in Container.of(sandbox).supervisors():
        os.kill(supervisor, 9)
    await anyio.lowlevel.checkpoint()


@pytest.fixture(scope="module")
async def contract_rig(anyio_backend: str) -> AsyncIterator[ContractRig]:
    config = SingularityConfig(image=str(IMAGE))
    async with open_rig(lambda: SingularityBackend(config), kill_slots=kill_slots) as rig:
        assert rig.level == "namespaces"
        yield rig


@pytest.mark.parametrize("check", parameters())
async def test_contract(check: Check, contract_rig: ContractRig) -> None:
    await check(contract_rig)


async def test_everything_is_promised_and_seen(contract_rig: ContractRig) -> None:
    assert not unseen(contract_rig)
