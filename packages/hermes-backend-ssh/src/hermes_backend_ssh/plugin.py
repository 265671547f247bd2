"""Registers the backend `ssh`."""

from hermes_core import Entry, hookimpl


@hookimpl
def hermes_sandbox_backends() -> list[Entry]:
    """A machine that is reached by ssh."""
    return [Entry("ssh", "hermes_backend_ssh._backend:SshBackend", "a machine reached by ssh")]
