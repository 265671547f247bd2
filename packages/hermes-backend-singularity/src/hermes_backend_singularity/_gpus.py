"""What slots need to use NVIDIA GPUs that a container has by `--nv`."""

from __future__ import annotations

import os

__all__ = ["GPU_DEVICES", "gpu_variables"]

GPU_DEVICES = ("/dev/nvidia*",)
"""Patterns of the devices inside of the container."""

_NAMED_BY_SCHEDULERS = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")


def gpu_variables() -> dict[str, str]:
    """Return which GPUs the scheduler gave, as variables of every slot."""
    return {name: os.environ[name] for name in _NAMED_BY_SCHEDULERS if name in os.environ}
