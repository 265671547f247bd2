"""The command line `hermes`, and what commands of plugins share with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_core.cli._run_options import key_values as key_values

__all__ = ["key_values", "main"]


def main() -> None:
    """Run the command line; never returns."""
    from hermes_core.cli._main import hermes

    hermes()


def __getattr__(name: str) -> object:
    # Imported when first used: `hermes --help` does without.
    if name == "key_values":
        from hermes_core.cli._run_options import key_values

        return key_values
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
