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
    """A test marked `namespaces` needs them; without them it says so, or fails if they are required."""
    if request.node.get_closest_marker("namespaces") is None:
        return
    from hermes_sandboxd import check_namespaces

    check = check_namespaces()
    if not check.available:
        said = f"cannot run: {check.reason} ({check.hint})"
        if "namespaces" in required_engines():
            pytest.fail(said)
        pytest.skip(said)
