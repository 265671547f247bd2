"""What every test shares: the event loops that core runs under, and engines that may not be skipped."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import anyio
import pytest
from hypothesis import HealthCheck, settings

from hermes_core.exceptions import HermesError

SSH_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"

# How long an example takes says nothing on a machine that has other things to do.
settings.register_profile("hermes", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hermes")

pytest.register_assert_rewrite("hermes_core.testing.contract")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs under both."""
    return str(request.param)


def required_engines() -> frozenset[str]:
    """Engines whose tests must not be skipped."""
    return frozenset(os.environ.get("HERMES_REQUIRE_ENGINES", "").replace(",", " ").split())


def cannot_run(engine: str, why: str) -> NoReturn:
    """Skip the test aloud for lack of an engine, or fail it if the engine is required."""
    said = f"cannot run: {why}"
    if engine in required_engines():
        pytest.fail(said)
    pytest.skip(said)


@pytest.fixture(autouse=True)
def _engines(request: pytest.FixtureRequest) -> None:
    """A test marked with an engine needs it; without it it says so, or fails if the engine is required."""
    if request.node.get_closest_marker("namespaces") is not None:
        from hermes_sandboxd import check_namespaces

        check = check_namespaces()
        if not check.available:
            cannot_run("namespaces", f"{check.reason} ({check.hint})")
    if request.node.get_closest_marker("docker") is not None:
        request.getfixturevalue("docker_base")
    if request.node.get_closest_marker("apptainer") is not None:
        from tests.hermes_backend_singularity.engine import obstacle

        if (missing := obstacle()) is not None:
            cannot_run("apptainer", f"{missing} (run .ci/engines/apptainer.sh as root)")
    if request.node.get_closest_marker("ssh") is not None:
        request.getfixturevalue("sshd")


@pytest.fixture(scope="session")
def docker_base() -> str:
    """An image of the Docker engine to build and test on; `.ci/engines/docker.sh` makes it."""
    name = os.environ.get("HERMES_TEST_DOCKER_BASE", "hermes-base:bookworm")
    hint = "run .ci/engines/docker.sh, which starts an engine and makes the image"
    try:
        from hermes_backend_docker._engine import Engine
    except ImportError as error:
        cannot_run("docker", str(error))

    async def look() -> None:
        async with Engine() as engine:
            await engine.call("inspect_image", name)

    try:
        anyio.run(look)
    except HermesError as error:
        cannot_run("docker", f"{error} ({hint})")
    return name


@pytest.fixture(scope="session")
def sshd() -> str:
    """OpenSSH's server; tests start it themselves, on a port of their own."""
    for program in ("ssh", "sshd", "ssh-keygen"):
        if shutil.which(program, path=SSH_PATH) is None:
            cannot_run("ssh", f"there is no {program} (run .ci/engines/ssh.sh, or apt-get install openssh-server)")
    return str(shutil.which("sshd", path=SSH_PATH))
