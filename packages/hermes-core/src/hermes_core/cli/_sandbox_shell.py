"""What `hermes sandbox shell` does."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import anyio

from hermes_core.cli._leasing import leased
from hermes_core.cli._raw_mode import raw_mode, terminal_size
from hermes_core.cli._standard_streams import pour
from hermes_core.exceptions import SlotJobError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hermes_core.cli._leasing import Wanted
    from hermes_core.sandbox import SlotClient

__all__ = ["run_shell"]

EXIT_SIGNALLED = 128
SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")
KEPT_BYTES = 4 << 20
TERMINAL, SCREEN = 0, 1
POLL_S = 10.0
READ_BYTES = 1 << 16


async def run_shell(wanted: Wanted) -> int:
    """Run an interactive shell in a fresh sandbox, in this process's terminal; return the exit code to end with."""
    async with leased(wanted) as slot:
        shell = _Shell(slot.lease.client)
        with raw_mode(TERMINAL):
            return await shell.run()


class _Shell:
    """Carries keys, output and the size of the window between the terminal and a shell in a slot.

    A poll waits long, so that a shell that nobody types into costs nothing. It holds up the slot's other requests, so
    each of them cuts it short.

    Args:
        client: Speaks about the slot.
    """

    def __init__(self, client: SlotClient) -> None:
        self._client = client
        self._job = 0
        self._poll = anyio.CancelScope()
        self._code = EXIT_SIGNALLED + signal.SIGHUP

    async def run(self) -> int:
        """Run the shell to its end, or until the terminal is gone; return the exit code."""
        rows, columns = terminal_size(TERMINAL)
        term = os.environ.get("TERM")
        self._job = await self._client.start(
            SHELL, env={"TERM": term} if term else {}, pty=(rows, columns), output_cap=KEPT_BYTES
        )
        faults: list[Exception] = []

        async def carry(some: Callable[[], Awaitable[None]]) -> None:
            try:
                await some()
            except Exception as error:
                faults.append(error)  # kept apart from the task group, which would wrap it
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for some in (self._carry_output, self._carry_keys, self._carry_sizes):
                tasks.start_soon(carry, some)
        if faults:
            raise faults[0]
        return self._code

    async def _carry_output(self) -> None:
        """Show what the shell says until it has ended."""
        offset = 0
        while True:
            with anyio.CancelScope() as self._poll:
                seen = await self._client.poll(self._job, offset=offset, wait_s=POLL_S)
            if self._poll.cancelled_caught:
                continue
            if seen.offset > offset:
                await pour(SCREEN, f"\r\n[hermes: {seen.offset - offset} bytes left out]\r\n".encode())
            await pour(SCREEN, seen.data)
            offset = seen.offset + len(seen.data)
            if not seen.running and offset >= seen.end:
                self._code = EXIT_SIGNALLED + (seen.signal or 0) if seen.exit_code is None else seen.exit_code
                return

    async def _carry_keys(self) -> None:
        """Pass on what is typed until the terminal is gone."""
        while True:
            await anyio.wait_readable(TERMINAL)
            try:
                keys = os.read(TERMINAL, READ_BYTES)
            except OSError:
                return
            if not keys:
                return
            self._poll.cancel()
            try:
                await self._client.input(self._job, keys)
            except SlotJobError:
                await anyio.sleep_forever()  # the shell has ended, and the next poll tells how

    async def _carry_sizes(self) -> None:
        """Pass on every change of the window's size."""
        with anyio.open_signal_receiver(signal.SIGWINCH) as changes:
            await self._resize()  # it may have changed before this listened
            async for _ in changes:
                await self._resize()

    async def _resize(self) -> None:
        rows, columns = terminal_size(TERMINAL)
        self._poll.cancel()
        await self._client.resize(self._job, rows=rows, columns=columns)
