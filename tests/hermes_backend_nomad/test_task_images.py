"""Images that tasks ask for by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.hermes_backend_singularity.engine import IMAGE

from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hermes_backend_nomad.conftest import Backend

pytestmark = [pytest.mark.anyio, pytest.mark.nomad, pytest.mark.docker, pytest.mark.apptainer]


async def test_a_folder_that_one_of_them_does_not_have_is_said_once(
    backend_name: str, make: Callable[..., Backend], docker_image: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = docker_image if backend_name == "nomad" else str(IMAGE)
    async with make(backend_name, writable=["/opt", "/nowhere"]) as backend:
        for number in range(2):
            sandbox = await backend.start(SandboxSpec(slots=1, image=image), "owner", f"owner-{number}")
            assert await sandbox.alive() is None
    said = [record.getMessage() for record in caplog.records if "no copy of" in record.getMessage()]
    assert said == [f"slots have no copy of /nowhere where the image has no such folder, as in {image}"]
