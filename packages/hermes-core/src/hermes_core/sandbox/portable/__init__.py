"""The runtime folder: an interpreter, bubblewrap and the daemon, with every library that they need, for any image."""

from hermes_core.sandbox.portable._archive import archive_runtime
from hermes_core.sandbox.portable._pruning import StoredRuntime, prune_runtimes
from hermes_core.sandbox.portable._runtime import (
    RUNTIME_INSIDE,
    build_runtime,
    fixed_runtime,
    portable_runtime,
    runtime_of,
    runtimes_folder,
)

__all__ = [
    "RUNTIME_INSIDE",
    "StoredRuntime",
    "archive_runtime",
    "build_runtime",
    "fixed_runtime",
    "portable_runtime",
    "prune_runtimes",
    "runtime_of",
    "runtimes_folder",
]
