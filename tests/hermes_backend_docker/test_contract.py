"""The backend `docker` keeps the contract that every backend keeps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import docker
import pytest
from anyio import to_thread

from hermes_backend_docker import DockerBackend, DockerConfig
from hermes_backend_docker._sandbox import DockerSandbox
from hermes_core.testing.contract import Check, ContractRig, contract_checks, open_rig, parameters

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
    """Kill the supervisors: children of the zygote, which is the only child of the daemon, the container's PID 1."""
    assert isinstance(sandbox, DockerSandbox)
    await to_thread.run_sync(kill_supervisors, sandbox.title)


def kill_supervisors(title: str) -> None:
    client = docker.APIClient(version="auto")
    daemon = client.inspect_container(title)["State"]["Pid"]
    client.close()
    for zygote in children(daemon):
        for supervisor in children(zygote):
            os.kill(supervisor, 9)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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
        needs = {need for check in contract_checks() for need in check.needs}
        assert not {need: why for need in needs if (why := contract_rig.missing(need))}
