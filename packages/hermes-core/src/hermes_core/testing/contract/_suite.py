"""All checks of the contract, in the order in which the documentation lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.testing.contract import (
    _artifacts,
    _backend,
    _background,
    _cancellation,
    _commands,
    _environment,
    _files,
    _grading,
    _isolation,
    _lifecycle,
    _limits,
    _output,
    _terminals,
)
from hermes_core.testing.contract._check import Check

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from hermes_core.testing.contract._check import Need
    from hermes_core.testing.contract._rig import ContractRig

__all__ = ["contract_checks", "parameters", "unseen"]

_THEMES = (
    _commands,
    _output,
    _files,
    _artifacts,
    _environment,
    _isolation,
    _limits,
    _lifecycle,
    _cancellation,
    _background,
    _terminals,
    _grading,
    _backend,
)


def contract_checks() -> tuple[Check, ...]:
    """Return every check."""
    return tuple(value for theme in _THEMES for value in vars(theme).values() if isinstance(value, Check))


def parameters() -> list[ParameterSet]:
    """Return the checks for `pytest.mark.parametrize`, by their ids."""
    import pytest

    return [pytest.param(each, id=each.id) for each in contract_checks()]


def unseen(rig: ContractRig) -> dict[Need, str]:
    """Return what checks need and a rig does not have, each with why: whether these promises are kept is not seen."""
    needs = {need for check in contract_checks() for need in check.needs}
    return {need: why for need in needs if (why := rig.missing(need)) is not None}
