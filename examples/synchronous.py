"""The same from synchronous code."""

from __future__ import annotations

from hermes_core.sync import Hermes

with Hermes(backend="local", toolsets=["terminal"]) as hermes, hermes.lease() as slot:
    print(slot.exec("echo hello from a slot; id -un").stdout)
