"""What every test shares: the event loops that core runs under, and engines that may not be skipped."""

from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("hermes_core.testing.contract")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs under both."""
    return str(request.param)


def required_engines() -> frozenset[str]:
    """Engines whose tests must not be skipped."""
    return frozenset(os.environ.get("HERMES_REQUIRE_ENGINES", "").replace(",", " ").split())


@pytest.fixture(autouse=True)
def _engines(request: pytest.FixtureRequest) -> None:
    """A test marked with the name of an engine needs it; without it, it says so, or fails if the engine is required."""
    for name, missing in (("namespaces", _no_namespaces), ("apptainer", _no_apptainer)):
        if request.node.get_closest_marker(name) is not None and (said := missing()) is not None:
            if name in required_engines():
                pytest.fail(f"cannot run: {said}")
            pytest.skip(f"cannot run: {said}")


def _no_namespaces() -> str | None:
    from hermes_sandboxd import check_namespaces

    check = check_namespaces()
    return None if check.available else f"{check.reason} ({check.hint})"


def _no_apptainer() -> str | None:
    from tests.hermes_backend_singularity.engine import obstacle

    said = obstacle()
    return None if said is None else f"{said} (run .ci/engines/apptainer.sh as root)"
