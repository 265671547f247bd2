"""Slots: leasing isolated workspaces of shared sandboxes."""

from hermes_core.slots._pool import DefaultSlotPool
from hermes_core.slots._protocol import Lease, LeaseRequest, PoolConfig, PoolStatus, SlotPool

__all__ = ["DefaultSlotPool", "Lease", "LeaseRequest", "PoolConfig", "PoolStatus", "SlotPool"]
