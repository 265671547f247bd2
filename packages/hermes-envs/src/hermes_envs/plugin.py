"""Registers the environments."""

from hermes_core import Entry, hookimpl


@hookimpl
def hermes_environments() -> list[Entry]:
    """Environments of this distribution."""
    return [
        Entry(
            "arithmetic",
            "hermes_envs.arithmetic:ArithmeticEnvironment",
            "Word problems, solved by running code in the terminal",
        )
    ]
