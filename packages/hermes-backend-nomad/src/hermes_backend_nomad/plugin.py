"""Registers the backends `nomad` and `nomad-singularity`, and the commands about their jobs and agents."""

from hermes_core import Entry, hookimpl


@hookimpl
def hermes_sandbox_backends() -> list[Entry]:
    """Slots on a Nomad cluster."""
    return [
        Entry("nomad", "hermes_backend_nomad._docker_backend:NomadBackend", "Containers that Nomad places"),
        Entry(
            "nomad-singularity",
            "hermes_backend_nomad._apptainer_backend:NomadSingularityBackend",
            "Apptainer containers that Nomad places",
        ),
    ]


@hookimpl
def hermes_commands() -> list[Entry]:
    """`hermes sandbox jobspec` and `hermes sandbox nomad-dev`."""
    return [
        Entry("sandbox jobspec", "hermes_backend_nomad._jobspec_command:jobspec", "Print a sandbox's Nomad job"),
        Entry(
            "sandbox nomad-dev", "hermes_backend_nomad._dev_command:nomad_dev", "Run an agent for this machine alone"
        ),
    ]
