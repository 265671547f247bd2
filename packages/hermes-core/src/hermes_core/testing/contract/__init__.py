"""The contract of a sandbox backend, as checks that anyone can run against their own.

See `docs/how-to/test-a-backend.md` for how, and `docs/explanation/isolation.md` for the promises. Nothing here imports
pytest, but for `parameters`.
"""

from hermes_core.testing.contract._check import ALL_LEVELS, Check, CheckFunction, Level, Need, NotPromised, check
from hermes_core.testing.contract._rig import ContractRig, KillSlots, PrivatePool, open_rig
from hermes_core.testing.contract._suite import contract_checks, parameters, unseen

__all__ = [
    "ALL_LEVELS",
    "Check",
    "CheckFunction",
    "ContractRig",
    "KillSlots",
    "Level",
    "Need",
    "NotPromised",
    "PrivatePool",
    "check",
    "contract_checks",
    "open_rig",
    "parameters",
    "unseen",
]
