"""The backend `docker` keeps the contract that every backend keeps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import docker
import pytest
from anyio import to_thread
from tests.process_tree import supervisors_of

from hermes_backend_docker import DockerBackend, DockerConfig
from hermes_backend_docker._sandbox import DockerSandbox
from hermes_core.testing.contract import Check, ContractRig, open_rig, parameters, unseen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hermes_core.sandbox import Sandbox
    from hermes_core.testing.contract import Level

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

CASES = [("namespaces", "asyncio"), ("namespaces", "trio"), ("user", "asyncio")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Level, str]:
    return cast("tuple[Level, str]", request.param)


@pytest.fixture(scope="module")
def anyio_backend(case: tuple[Level, str]) -> str:
    return case[1]


async def kill_slots(sandbox: Sandbox) -> None:
    """Kill the supervisors."""
    assert isinstance(sandbox, DockerSandbox)
    await to_thread.run_sync(kill_supervisors, sandbox.title)


def kill_supervisors(title: str) -> None:
    client = docker.APIClient(version="auto")
    daemon = client.inspect_container(title)["State"]["Pid"]  # the container's PID 1
    client.close()
    for supervisor in supervisors_of(daemon):
        os.kill(supervisor, 9)


@pytest.fixture(scope="module")
async def contract_rig(case: tuple[Level, str], reference: str) -> AsyncIterator[ContractRig]:
    config = DockerConfig(image=reference, isolation=case[0])
    # Processes of containers can be killed from outside by root, on the engine's own machine.
    killing = kill_slots if os.geteuid() == 0 else None
    async with open_rig(lambda: DockerBackend(config), kill_slots=killing) as rig:
        assert rig.level == case[0]
        yield rig


@pytest.mark.parametrize("check", parameters())
async def test_contract(check: Check, contract_rig: ContractRig) -> None:
    await check(contract_rig)


async def test_with_namespaces_everything_is_promised_and_seen(contract_rig: ContractRig) -> None:
    if contract_rig.level == "namespaces" and os.geteuid() == 0:
        assert not unseen(contract_rig)
