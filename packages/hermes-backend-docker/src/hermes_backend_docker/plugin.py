"""Registers the backend `docker`."""

from hermes_core import Entry, hookimpl


@hookimpl
def hermes_sandbox_backends() -> list[Entry]:
    """Slots in containers of a Docker engine."""
    return [Entry("docker", "hermes_backend_docker._backend:DockerBackend", "Slots in containers of a Docker engine")]
