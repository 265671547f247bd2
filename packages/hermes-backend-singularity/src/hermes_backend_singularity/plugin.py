"""Registers the backend `singularity`."""

from hermes_core import Entry, hookimpl


@hookimpl
def hermes_sandbox_backends() -> list[Entry]:
    """Apptainer containers on this machine."""
    return [
        Entry(
            "singularity",
            "hermes_backend_singularity._backend:SingularityBackend",
            "Apptainer containers, without root",
        )
    ]
