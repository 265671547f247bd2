"""The command line `hermes`."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; never returns."""
    from hermes_core.cli._main import hermes

    hermes()
