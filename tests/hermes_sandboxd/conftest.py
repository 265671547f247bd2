"""Real daemons: one that the tests of a module share, and new ones for those that end theirs."""

from __future__ import annotations

import itertools
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "support"))

from sandboxd_client import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandboxd_client import Client

_sessions = itertools.count()


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.stop()


@pytest.fixture
def client(shared_daemon: Daemon) -> Iterator[Client]:
    """A session with slot 0 open; the slot is reset afterwards."""
    client = shared_daemon.client(f"session-{next(_sessions)}")
    client.open(0)
    yield client
    reset = client.call("slot.reset", slot=0)
    client.close()
    assert reset.error is None


@pytest.fixture
def start() -> Iterator[Callable[..., Daemon]]:
    """Starts daemons that are killed, if need be, when the test is over."""
    daemons: list[Daemon] = []

    def start(*options: str, **arguments: Any) -> Daemon:  # noqa: ANN401
        daemons.append(Daemon(*options, **arguments))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.discard()
