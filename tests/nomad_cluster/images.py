"""What the sandboxes of a trial are made from: the images that the other tests have."""

from __future__ import annotations

import os

from tests.hermes_backend_singularity.engine import IMAGE
from tests.hermes_backend_singularity.ordinary_user import USER

__all__ = ["image_settings"]


def image_settings(backend: str) -> dict[str, object]:
    """Return the settings of a backend that name the image."""
    if backend == "nomad":
        return {"image": os.environ.get("HERMES_TEST_DOCKER_BASE", "hermes-base:bookworm")}
    return {"image": str(IMAGE), "user": USER}
