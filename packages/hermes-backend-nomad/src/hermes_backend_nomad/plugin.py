"""Registers the backends `nomad` and `nomad-singularity`."""

from hermes_core import Entry, hookimpl


@hookimpl
def hermes_sandbox_backends() -> list[Entry]:
    """Slots on a Nomad cluster."""
    return []
