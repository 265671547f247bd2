"""What slots need to use NVIDIA GPUs that a container has by `--nv`."""

from __future__ import annotations

import os

__all__ = ["GPU_DEVICES", "gpu_variables"]

GPU_DEVICES = ("/dev/nvidia*",)
"""Patterns of the devices inside of the container."""

LIBRARIES_INSIDE = "/.singularity.d/libs"
"""Where the engine puts this machine's driver libraries."""

_NAMED_BY_SCHEDULERS = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")


def gpu_variables(of_image: str | None) -> dict[str, str]:
    """Return the variables of every slot: which GPUs the scheduler gave, and where their libraries are.

    Args:
        of_image: What the image says of `LD_LIBRARY_PATH`.
    """
    given = {name: os.environ[name] for name in _NAMED_BY_SCHEDULERS if name in os.environ}
    return {**given, "LD_LIBRARY_PATH": of_image or LIBRARIES_INSIDE}
