"""A real engine, and the reference image on it, built once for all tests."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.docker_images import engine_client, reference_image

from hermes_backend_docker import DockerBackend, DockerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def reference(docker_base: str) -> str:
    """The reference image."""
    return reference_image(docker_base)


@pytest.fixture
def client(docker_base: str) -> Iterator[Any]:
    """The SDK's client, to look at the engine and to meddle with it."""
    with engine_client() as client:
        yield client


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder with a path that is short enough for sockets; nothing may be left in it."""
    with tempfile.TemporaryDirectory(prefix="h-", dir="/tmp") as folder:
        yield Path(folder)
        assert [name for name in os.listdir(folder) if not name.startswith(".")] == []


@pytest.fixture
def make(docker_base: str, state: Path) -> Callable[..., DockerBackend]:
    """Makes backends with the base image and a state folder of the test's own."""

    def make(**settings: object) -> DockerBackend:
        values = {"image": docker_base, "state_dir": state, **settings}
        return DockerBackend(DockerConfig.model_validate(values))

    return make


@pytest.fixture
def owner() -> str:
    """An owner that has nothing yet."""
    return f"test-{uuid.uuid4().hex[:8]}"
