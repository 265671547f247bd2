"""A shell that lives as long as the lease, and runs one command after the other.

It is an interactive shell without a terminal: only such a one gives up the whole command line on an interrupt and
keeps its state. It reads commands from its standard input. Each command comes with a *messenger*, an ordinary command
of the slot: the shell writes the output of its command to the messenger's standard output and error, and its exit code
to a FIFO of the messenger that has no name any more. The messenger then exits with that code. So nothing that a command
prints is ever read as a status, and output caps and deadlines are those of every command.
"""

from __future__ import annotations

import re
import shlex
import signal
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from hermes_core.default_plugins.tools._answers import why_ended
from hermes_core.exceptions import SlotJobError, ToolError

if TYPE_CHECKING:
    from hermes_core.execution import BackgroundProcess, ExecResult, Slot

__all__ = ["PersistentShell", "ShellResult"]

START = """echo $$
if command -v bash >/dev/null 2>&1; then exec bash --norc --noprofile --noediting +H +m -i; else exec sh +m -i; fi"""
PREPARE = "PS1= PS2=; unset HISTFILE PROMPT_COMMAND\n"

# $1 is the shell, $2 names this call. Its own descriptors 1 and 2 must never be redirected: the shell looks at them.
MESSENGER = """
fifo=/tmp/.hermes-$2
mkfifo -m 600 "$fifo" && exec 3<>"$fifo" || { rm -f "$fifo"; kill -USR1 $$; }
rm -f "$fifo"
read -r up rest </proc/uptime
(
    printf 'echo %s %s %s\\ncommand eval ' "$2" "$up" $$
    cat
    printf ' </dev/null >/proc/%d/fd/1 2>/proc/%d/fd/2\\necho $? >/proc/%d/fd/3\\n' $$ $$ $$
) >/proc/$1/fd/0 || kill -USR1 $$
(
    for pause in 0.05 0.1 0.2 0.5; do sleep $pause; kill -0 $1 || break; done
    while kill -0 $1; do sleep 1; done
    echo gone >&3
) </dev/null >/dev/null 2>&1 &
read -r status <&3
kill $! 2>/dev/null
[ "$status" = gone ] && kill -USR2 $$
exit "$status"
"""

# Kills what the shell $1 started after the messenger $3, which began at the uptime $2: what is in its session, or its
# child. Uptimes are in hundredths of a second; within one of them, numbers of processes tell what was first.
KILL_YOUNG = """
since=${2%.*}${2#*.}
for folder in /proc/[0-9]*; do
    pid=${folder#/proc/}
    [ "$pid" = "$1" ] && continue
    read -r line <$folder/stat || continue
    shell=$1 messenger=$3
    set -- ${line##*) }
    if [ "$2" = "$shell" ] || [ "$4" = "$shell" ]; then
        [ "${20}" -gt "$since" ] || { [ "${20}" = "$since" ] && [ "$pid" -gt "$messenger" ]; } && kill -9 "$pid"
    fi
    set -- "$shell" "$since" "$messenger"
done 2>/dev/null
true
"""

_BEYOND_ALL = 1 << 60
_PROBE_S = 2.0
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ShellResult:
    """What came of a command.

    Attributes:
        exit_code: Its exit code; None if it did not end by itself.
        stdout: Its standard output.
        stderr: Its standard error.
        error: Why it did not end by itself, or None.
        ended: The shell ended with it.
    """

    exit_code: int | None
    stdout: str
    stderr: str
    error: str | None
    ended: bool


@dataclass(frozen=True, slots=True)
class PersistentShell:
    """A shell of a slot, found again by the number of its process.

    Attributes:
        number: Of the background process that it is.
        pid: As seen in the slot.
    """

    number: int
    pid: int

    @classmethod
    async def start(cls, slot: Slot) -> PersistentShell:
        """Start a shell.

        Raises:
            ToolError: It does not work here.
        """
        process = await slot.start(START)
        text = ""
        with anyio.move_on_after(10):
            while "\n" not in text:
                found = await process.poll(wait_s=0.2)
                text += found.text
                if not found.running:
                    break
        first = text.partition("\n")[0]
        if not first.isdigit():
            raise ToolError(f"no shell can be started: {' '.join(text.split())[:200] or 'it does not answer'}")
        await process.write(PREPARE)
        shell = cls(process.number, int(first))
        if not await shell._answers(slot):
            await process.kill()
            raise ToolError("no shell that keeps its state can be had in this sandbox; use terminal")
        return shell

    async def runs(self, slot: Slot) -> bool:
        """Whether it is there."""
        try:
            return (await slot.process(self.number).read(_BEYOND_ALL)).running
        except SlotJobError:
            return False

    async def run(self, slot: Slot, command: str, timeout_s: float) -> ShellResult:
        """Run a command; nothing of it is left when this is cancelled, the shell included."""
        name = uuid.uuid4().hex
        try:
            done = await self._send(slot, command, name, timeout_s)
            return await self._result(slot, done, name, timeout_s)
        except BaseException:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await slot.process(self.number).kill()
            raise

    async def _send(self, slot: Slot, command: str, name: str, timeout_s: float) -> ExecResult:
        argv = ("/bin/sh", "-c", MESSENGER, "hermes", str(self.pid), name)
        return await slot.exec(argv, stdin=shlex.quote(command), timeout_s=timeout_s)

    async def _result(self, slot: Slot, done: ExecResult, name: str, timeout_s: float) -> ShellResult:
        if done.exit_code is not None:
            return ShellResult(done.exit_code, done.stdout, done.stderr, why_ended(done, timeout_s), ended=False)
        if done.signal == signal.SIGUSR1:
            raise ToolError(f"the shell cannot be reached: {' '.join(done.stderr.split())[:200]}")
        process = slot.process(self.number)
        state = await process.read(_BEYOND_ALL)
        if not state.running:
            error = f"the shell was killed by signal {state.signal}" if state.signal is not None else None
            error = f"the shell was killed: limit {state.limit} exceeded" if state.limit is not None else error
            return ShellResult(state.exit_code, done.stdout, done.stderr, error, ended=True)
        error = why_ended(done, timeout_s) or "ended"
        kept = await self._recover(slot, process, name)
        if not kept:
            await process.kill()
            error += "; the shell did not come back and was killed too"
        return ShellResult(None, done.stdout, done.stderr, error, ended=not kept)

    async def _recover(self, slot: Slot, process: BackgroundProcess, name: str) -> bool:
        """Interrupt what the shell is at, kill what it started for that, and see whether it is back."""
        written = (await process.read(0)).data.decode("utf-8", "replace")
        begun = re.findall(rf"^{name} ([0-9]+\.[0-9]{{2}}) ([0-9]+)$", written, re.MULTILINE)
        for _ in range(_ATTEMPTS):
            await process.kill(signal.SIGINT)
            back = await self._answers(slot)
            if begun:
                await slot.exec(("/bin/sh", "-c", KILL_YOUNG, "hermes", str(self.pid), *begun[-1]), timeout_s=10)
            if back or await self._answers(slot):
                return True
        return False

    async def _answers(self, slot: Slot) -> bool:
        return (await self._send(slot, ":", uuid.uuid4().hex, _PROBE_S)).exit_code == 0
