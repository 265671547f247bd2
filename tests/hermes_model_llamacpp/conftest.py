"""The small local model: brought once into the user's cache, then shared by every test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hermes_core.exceptions import HermesError
from hermes_model_llamacpp._catalog import find_model
from hermes_model_llamacpp._pull import pull_model

if TYPE_CHECKING:
    from pathlib import Path


def _required() -> bool:
    return "llamacpp" in os.environ.get("HERMES_REQUIRE_ENGINES", "").replace(",", " ").split()


@pytest.fixture(scope="session")
def weights() -> Path:
    """The model's file. Without it the test is skipped, or fails where the engine is required."""
    model = find_model("smollm2")
    try:
        pytest.importorskip("xllamacpp") if not _required() else __import__("xllamacpp")
        pull_model(model, lambda _: None, lambda: None)
    except HermesError as error:
        said = f"cannot run: no local model: {error} ({error.hint})"
        if _required():
            pytest.fail(said)
        pytest.skip(said)
    return model.file
