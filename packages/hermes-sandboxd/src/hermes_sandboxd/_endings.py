"""What ends a daemon that nobody has told to end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from hermes_sandboxd._daemon import Daemon


def watch_lifeline(
    loop: asyncio.AbstractEventLoop, descriptor: int, silence_s: float | None, ended: asyncio.Event
) -> None:
    """Set `ended` at the end of the lifeline, or when nothing came over it for `silence_s` (None: however long)."""
    os.set_blocking(descriptor, False)
    heard_at = loop.time()

    def readable() -> None:
        nonlocal heard_at
        try:
            if os.read(descriptor, 4096):
                heard_at = loop.time()
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        loop.remove_reader(descriptor)
        ended.set()

    def watch_silence(limit_s: float) -> None:
        left_s = heard_at + limit_s - loop.time()
        if left_s <= 0:
            ended.set()
        else:
            loop.call_later(left_s, watch_silence, limit_s)

    loop.add_reader(descriptor, readable)
    if silence_s is not None:
        watch_silence(silence_s)


def watch_clients(loop: asyncio.AbstractEventLoop, daemon: Daemon, idle_s: float) -> None:
    """End the daemon when no session has had a connection for so long."""
    since = daemon.alone_since
    left_s = idle_s if since is None else since + idle_s - loop.time()
    if left_s <= 0:
        daemon.log(f"no client for {idle_s:g} s, ending")
        daemon.ending.set()
    else:
        loop.call_later(left_s, watch_clients, loop, daemon, idle_s)
