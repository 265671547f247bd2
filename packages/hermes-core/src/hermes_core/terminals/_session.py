"""One terminal of a slot: keys in, screen out, everything recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import anyio
from anyio import to_thread

from hermes_core.exceptions import SlotJobError, UsageError
from hermes_core.terminals._asciicast import AsciicastWriter
from hermes_core.terminals._keys import encode_keys
from hermes_core.terminals._recording import Recording
from hermes_core.terminals._screen import TerminalScreen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from hermes_core.sandbox import JobOutput, SlotClient

__all__ = ["KeysSent", "TerminalSession"]

COLUMNS = (20, 500)
ROWS = (10, 200)
SHELL = ("/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi")
TERM = "xterm-256color"

OUTPUT_CAP = 1 << 20
CHUNK_BYTES = 1 << 16
IN_THREAD_BYTES = 2048
POLL_S = 0.05
PAUSE_S = 0.1
QUIET_S = 0.25
SILENCE_S = 1.0
"""A shell that has shown nothing for so long since the keys were sent will show nothing: they were no command."""


Turn = Callable[[], AbstractAsyncContextManager["SlotClient"]]
"""Gives a request its turn among those of the slot."""


@dataclass(frozen=True, slots=True)
class KeysSent:
    """What came of sending keys.

    Attributes:
        waited_s: Seconds that were waited.
        timed_out: Whether the shell was not back after `max_wait_s`; only when it was waited for.
    """

    waited_s: float
    timed_out: bool


@dataclass(slots=True)
class _Terminal:
    """What a session knows, whoever speaks for it."""

    job: int
    screen: TerminalScreen
    recording: Recording
    writer: AsciicastWriter
    began: float = field(default_factory=time.monotonic)
    offset: int = 0
    foreground: bool = False
    running: bool = True
    exit_code: int | None = None
    signal: int | None = None
    lost_bytes: int = 0
    fetching: anyio.Lock = field(default_factory=anyio.Lock)


class TerminalSession:
    """A program in a terminal of its own; an async context manager that ends it. Made by `open` or `Slot.terminal`.

    Output is fetched when somebody asks for something; meanwhile the slot keeps the last megabyte of it, and what was
    lost is said, on the screen and in the recording.
    """

    def __init__(self, turn: Turn, terminal: _Terminal) -> None:
        self._turn = turn
        self._terminal = terminal

    @classmethod
    async def open(
        cls,
        turn: Turn,
        argv: Sequence[str] | None = None,
        *,
        rows: int = 40,
        columns: int = 120,
        recording: Recording | Callable[[], Recording] = Recording,
    ) -> Self:
        """Start a program in a terminal.

        Args:
            turn: Gives requests their turn among those of the slot.
            argv: The program and its arguments; the slot's shell by default, bash if it is there.
            rows: Height of the terminal, 10 to 200.
            columns: Its width, 20 to 500.
            recording: Where it is recorded, or what makes that once the program runs; in memory by default.

        Raises:
            UsageError: The size is out of bounds.
            SlotJobError: The program cannot be started.
        """
        _check_size(rows, columns)
        argv = SHELL if argv is None else argv
        async with turn() as client:
            job = await client.start(argv, env={"TERM": TERM}, pty=(rows, columns), output_cap=OUTPUT_CAP)
        recording = recording if isinstance(recording, Recording) else recording()
        env = {"TERM": TERM, "SHELL": "/bin/sh" if argv is SHELL else argv[0]}
        writer = AsciicastWriter(recording.append, columns, rows, env=env)
        return cls(turn, _Terminal(job, TerminalScreen(columns, rows), recording, writer))

    def through(self, turn: Turn) -> TerminalSession:
        """Return another handle of the same session, whose requests get their turn otherwise."""
        return TerminalSession(turn, self._terminal)

    @property
    def job(self) -> int:
        """The program's number among the background processes of the lease."""
        return self._terminal.job

    @property
    def screen(self) -> TerminalScreen:
        """The screen as it was when last looked at."""
        return self._terminal.screen

    @property
    def recording(self) -> Recording:
        """What was recorded."""
        return self._terminal.recording

    @property
    def running(self) -> bool:
        """Whether the program ran when last looked at."""
        return self._terminal.running

    @property
    def exit_code(self) -> int | None:
        """How the program exited; None while it runs, or if a signal ended it."""
        return self._terminal.exit_code

    @property
    def signal(self) -> int | None:
        """The signal that ended the program, or None."""
        return self._terminal.signal

    @property
    def lost_bytes(self) -> int:
        """Bytes of output that came faster than they were looked at."""
        return self._terminal.lost_bytes

    async def send_keys(
        self,
        keys: str | Sequence[str],
        *,
        block: bool = False,
        min_wait_s: float = 0.0,
        max_wait_s: float = 180.0,
        literal: bool = False,
    ) -> KeysSent:
        """Press keys.

        Args:
            keys: Key names as tmux spells them, or text; see `encode_keys`.
            block: Wait until the program that was started (the shell) is back in the foreground and nothing more is
                shown.
            min_wait_s: Seconds to wait at least.
            max_wait_s: Seconds to wait at most.
            literal: Send text, even if it is the name of a key.

        Raises:
            UsageError: A key is unknown, or the waiting times make no sense.
            SlotJobError: The program has ended.
        """
        if not 0 <= min_wait_s <= max_wait_s:
            raise UsageError(f"cannot wait at least {min_wait_s:g} s and at most {max_wait_s:g} s")
        await self._fetch()
        data = encode_keys(keys, literal=literal, application=self.screen.application_cursor)
        if not self.running:
            raise SlotJobError("the program in this terminal has ended", kind="input_closed")
        async with self._turn() as client:
            await client.input(self._terminal.job, data)
        self._terminal.writer.input(self._now(), data)
        return await self._wait(block, min_wait_s, max_wait_s)

    async def capture(self, *, history: bool = False) -> str:
        """Return what the screen shows, as `TerminalScreen.render` has it.

        Args:
            history: With the lines that scrolled out before it.
        """
        await self._fetch()
        return self.screen.render_history() if history else self.screen.render()

    async def stream(self, offset: int = 0, max_bytes: int = 1 << 16) -> tuple[str, int]:
        """Return the recording from an offset on, and the offset of what follows.

        Args:
            offset: In bytes of the recording, from 0.
            max_bytes: Return no more than this; lines may be cut in two.

        Raises:
            UsageError: There is no such offset.
        """
        await self._fetch()
        if not 0 <= offset <= self.recording.size:
            raise UsageError(f"offset {offset} is outside of the recording, which has {self.recording.size} bytes")
        text = await to_thread.run_sync(self.recording.read, offset, max_bytes)
        return text, offset + len(text)

    async def resize(self, *, rows: int, columns: int) -> None:
        """Change the size; the program is told.

        Raises:
            UsageError: The size is out of bounds.
        """
        _check_size(rows, columns)
        await self._fetch()
        async with self._turn() as client:
            await client.resize(self._terminal.job, rows, columns)
        self.screen.resize(columns, rows)
        self._terminal.writer.resize(self._now(), columns, rows)

    async def close(self) -> int | None:
        """End the program with everything that it started; return its exit code, None if it had to be killed."""
        await self._fetch()
        if self.running:
            async with self._turn() as client:
                await client.kill(self._terminal.job)
            await self._fetch()
        return self.exit_code

    async def __aenter__(self) -> Self:
        """Nothing more to do: it was opened."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the program."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await self.close()

    async def _wait(self, block: bool, least_s: float, most_s: float) -> KeysSent:
        begin = latest = time.monotonic()
        shown = False
        while True:
            now = time.monotonic()
            back = not block or not self.running
            if block and self._terminal.foreground:
                # Until the echo of the keys has come, the shell may not have read them: it would seem to be back.
                back = now - latest >= (QUIET_S if shown else SILENCE_S)
            if back and now - begin >= least_s:
                return KeysSent(now - begin, timed_out=False)
            if now - begin >= most_s:
                return KeysSent(now - begin, timed_out=True)
            if await self._fetch(wait_s=POLL_S):
                latest, shown = time.monotonic(), True
            else:
                # Others of the slot get their turn.
                end = begin + (most_s if block else least_s)
                await anyio.sleep(max(0.0, min(PAUSE_S, end - time.monotonic())))

    async def _fetch(self, wait_s: float = 0.0) -> bool:
        """Fetch the output that there is now; return whether there was any."""
        async with self._terminal.fetching:
            return await self._fetch_alone(wait_s)

    async def _fetch_alone(self, wait_s: float) -> bool:
        terminal = self._terminal
        end, any_output = None, False
        while end is None or terminal.offset < end:
            try:
                async with self._turn() as client:
                    output = await client.poll(
                        terminal.job,
                        offset=terminal.offset,
                        max_bytes=CHUNK_BYTES,
                        wait_s=wait_s if end is None else 0.0,
                    )
            except SlotJobError:
                terminal.running = False  # it ended so long ago that it is forgotten
                return any_output
            # What comes meanwhile is left to the next time: a program may write without end.
            end = output.end if end is None else end
            terminal.running, terminal.foreground = output.running, bool(output.foreground)
            terminal.exit_code, terminal.signal = output.exit_code, output.signal
            if not output.data and output.offset == terminal.offset:
                break
            any_output = True
            if len(output.data) > IN_THREAD_BYTES:
                await to_thread.run_sync(self._take, output)
            else:
                self._take(output)
        return any_output

    def _take(self, output: JobOutput) -> None:
        """Record output and show it."""
        terminal = self._terminal
        lost = output.offset - terminal.offset
        times = [(max(at, output.offset), seconds) for at, seconds in output.times] or [(output.offset, self._now())]
        if lost > 0:
            terminal.lost_bytes += lost
            marker = f"\r\n[hermes: {lost} bytes of output were lost]\r\n"
            terminal.screen.feed(terminal.writer.output(times[0][1], marker))
        ends = [at for at, _ in times[1:]] + [output.offset + len(output.data)]
        for (begin, seconds), end in zip(times, ends, strict=True):
            piece = output.data[begin - output.offset : end - output.offset]
            terminal.screen.feed(terminal.writer.output(seconds, piece))
        terminal.offset = output.offset + len(output.data)

    def _now(self) -> float:
        return time.monotonic() - self._terminal.began


def _check_size(rows: int, columns: int) -> None:
    if not ROWS[0] <= rows <= ROWS[1] or not COLUMNS[0] <= columns <= COLUMNS[1]:
        raise UsageError(
            f"a terminal of {rows} rows and {columns} columns is out of bounds",
            hint=f"rows {ROWS[0]} to {ROWS[1]}, columns {COLUMNS[0]} to {COLUMNS[1]}",
        )
