"""Devices that slots have besides the usual ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd_client import Daemon

pytestmark = pytest.mark.namespaces

LOOK = "test -c /dev/ptmx && test -c /dev/kmsg && echo there; touch /dev/own"


def test_a_slot_has_the_devices_that_were_asked_for_if_they_are_there(start: Callable[..., Daemon]) -> None:
    client = start("--device=/dev/kmsg", "--device=/dev/no-such-device").client()
    client.open(0)
    seen = client.sh(LOOK)
    assert seen.stdout == b"there\n"
    assert b"Read-only" in seen.stderr, "nothing else can be put there"


def test_a_slot_has_no_others(start: Callable[..., Daemon]) -> None:
    client = start().client()
    client.open(0)
    assert client.sh(LOOK).stdout == b""
