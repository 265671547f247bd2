"""The backend `ssh` keeps the contract that every backend keeps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import pytest
from tests.process_tree import supervisors_of

from hermes_backend_ssh import SshBackend, SshConfig
from hermes_backend_ssh._sandbox import SshSandbox
from hermes_core.testing.contract import Check, ContractRig, open_rig, parameters, unseen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.hermes_backend_ssh.conftest import Server

    from hermes_core.sandbox import Sandbox
    from hermes_core.testing.contract import Level

pytestmark = [pytest.mark.anyio, pytest.mark.ssh]

CASES = [("namespaces", "asyncio"), ("namespaces", "trio")]
CASES_OF_ROOT = [("user", "asyncio")]


@pytest.fixture(scope="module", params=[*CASES, *(CASES_OF_ROOT if os.geteuid() == 0 else [])], ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Level, str]:
    return cast("tuple[Level, str]", request.param)


@pytest.fixture(scope="module")
def anyio_backend(case: tuple[Level, str]) -> str:
    return case[1]


async def kill_slots(sandbox: Sandbox) -> None:
    """Kill the supervisors."""
    assert isinstance(sandbox, SshSandbox)
    assert sandbox.pid is not None
    for supervisor in supervisors_of(sandbox.pid):
        os.kill(supervisor, 9)


@pytest.fixture(scope="module")
async def contract_rig(
    case: tuple[Level, str], server: Server, place: Callable[[str], Path], ordinary: str
) -> AsyncIterator[ContractRig]:
    user = "root" if case[0] == "user" else ordinary
    config = SshConfig.model_validate(
        {**server.settings(user), "remote_dir": str(place(user)), "isolation": case[0], "connect_timeout_s": 60}
    )
    async with open_rig(lambda: SshBackend(config), kill_slots=kill_slots) as rig:
        assert rig.level == case[0]
        yield rig


@pytest.mark.parametrize("check", parameters())
async def test_contract(check: Check, contract_rig: ContractRig) -> None:
    await check(contract_rig)


async def test_with_namespaces_everything_is_promised_and_seen(contract_rig: ContractRig) -> None:
    if contract_rig.level == "namespaces":
        assert not unseen(contract_rig)
