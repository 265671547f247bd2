"""The local backend keeps the contract that every backend keeps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import anyio
import pytest
from tests.process_tree import supervisors_of

from hermes_core.default_plugins.local_backend import LocalBackend, LocalConfig
from hermes_core.default_plugins.local_backend._sandbox import LocalSandbox
from hermes_core.testing.contract import Check, ContractRig, contract_checks, open_rig, parameters, unseen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hermes_core.sandbox import Sandbox
    from hermes_core.testing.contract import Level

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


CASES = [("namespaces", "asyncio"), ("namespaces", "trio"), ("user", "asyncio"), ("none", "asyncio")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Level, str]:
    if request.param[0] == "user" and os.geteuid() != 0:
        pytest.skip("level user needs root")
    return cast("tuple[Level, str]", request.param)


@pytest.fixture(scope="module")
def anyio_backend(case: tuple[Level, str]) -> str:
    return case[1]


async def kill_slots(sandbox: Sandbox) -> None:
    """Kill the supervisors."""
    assert isinstance(sandbox, LocalSandbox)
    assert sandbox.pid is not None
    for supervisor in supervisors_of(sandbox.pid):
        os.kill(supervisor, 9)
    await anyio.lowlevel.checkpoint()


@pytest.fixture(scope="module")
async def contract_rig(case: tuple[Level, str]) -> AsyncIterator[ContractRig]:
    config = LocalConfig(isolation=case[0])
    async with open_rig(lambda: LocalBackend(config), kill_slots=kill_slots) as rig:
        assert rig.level == case[0]
        yield rig


@pytest.mark.parametrize("check", parameters())
async def test_contract(check: Check, contract_rig: ContractRig) -> None:
    await check(contract_rig)


async def test_with_namespaces_everything_is_promised_and_seen(contract_rig: ContractRig) -> None:
    if contract_rig.level == "namespaces":
        assert all("namespaces" in check.levels for check in contract_checks())
        assert not unseen(contract_rig)
