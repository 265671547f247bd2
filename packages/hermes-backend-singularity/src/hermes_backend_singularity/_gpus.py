"""What slots need to use NVIDIA GPUs that a container has by `--nv`."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["gpu_options"]

LIBRARIES_INSIDE = "/.singularity.d/libs"
"""Where the engine puts this machine's driver libraries."""

_NAMED_BY_SCHEDULERS = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")


def gpu_options(devices: Path = Path("/dev")) -> list[str]:
    """Return the options of the daemon that hand the GPUs on to each slot.

    Args:
        devices: Where this machine's devices are.
    """
    variables = {name: os.environ[name] for name in _NAMED_BY_SCHEDULERS if name in os.environ}
    return [
        *(f"--device=/dev/{path.name}" for path in sorted(devices.glob("nvidia*"))),
        *(f"--slot-env={name}={value}" for name, value in variables.items()),
        f"--slot-env=LD_LIBRARY_PATH={LIBRARIES_INSIDE}",
    ]
