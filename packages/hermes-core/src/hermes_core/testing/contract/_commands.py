"""Promises about commands: what they get, what comes back, and what ends with them."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from hermes_core.exceptions import UsageError
from hermes_core.testing.contract._check import ALL_LEVELS, check
from hermes_core.testing.contract._expect import expect

if TYPE_CHECKING:
    from hermes_core.testing.contract._rig import ContractRig


@check("The exit code of a command is told as it is, and nothing else is claimed of it.", levels=ALL_LEVELS)
async def exit_codes(rig: ContractRig) -> None:
    slot = await rig.lease()
    for code in (0, 1, 3, 255):
        done = await slot.exec(f"exit {code}")
        told = (done.exit_code, done.signal, done.timed_out, done.limit, done.truncated)
        assert told == (code, None, False, None, False), f"`exit {code}` was told as {done}"


@check("A command that a signal ended has no exit code, and its signal is told.", levels=ALL_LEVELS)
async def signals(rig: ContractRig) -> None:
    slot = await rig.lease()
    for number in (9, 15, 6):
        done = await slot.exec(f"kill -{number} $$")
        assert (done.exit_code, done.signal) == (None, number), f"`kill -{number} $$` was told as {done}"


@check("A program that is not there is a result with exit code 127 and a reason.", levels=ALL_LEVELS)
async def program_not_found(rig: ContractRig) -> None:
    slot = await rig.lease()
    for command in (["no-such-program-anywhere"], ["/no/such/program"], "no-such-program-anywhere"):
        done = await slot.exec(command)
        assert done.exit_code == 127, f"{command!r} was told as {done}"
        assert done.stderr, f"{command!r}: standard error does not say what is wrong"


@check("A file that cannot be executed is a result with exit code 126 and a reason.", levels=ALL_LEVELS)
async def program_not_executable(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.write_file("plain", "#!/bin/sh\n", mode=0o644)
    for command in ([f"{slot.workspace}/plain"], [slot.workspace], "./plain"):
        done = await slot.exec(command)
        assert done.exit_code == 126, f"{command!r} was told as {done}"
        assert done.stderr, f"{command!r}: standard error does not say what is wrong"


@check("A list of arguments reaches the program as it is: no shell looks at it.", levels=ALL_LEVELS)
async def arguments_as_they_are(rig: ContractRig) -> None:
    slot = await rig.lease()
    arguments = ["a b", "$HOME", "*", "", "it's", 'say "hi"', "back\\slash", "new\nline", "naïve ☃"]
    done = await slot.exec(["printf", "%s|", *arguments])
    assert done.stdout == "".join(f"{argument}|" for argument in arguments)


@check("A text is a line for /bin/sh.", levels=ALL_LEVELS)
async def shell_lines(rig: ContractRig) -> None:
    slot = await rig.lease()
    done = await slot.exec('for i in 1 2; do echo "<$i>"; done | cat && echo $((6 * 7))')
    assert done.stdout == "<1>\n<2>\n42\n", done


@check("Arguments that no program can have are a usage error, and the slot is none the worse.", levels=ALL_LEVELS)
async def impossible_arguments(rig: ContractRig) -> None:
    slot = await rig.lease()
    for command in (["a\0b"], "x" * 70_000):
        await expect(UsageError, slot.exec(command), f"exec({command[:10]!r}…) was not refused")
    assert (await slot.exec("echo fine")).stdout == "fine\n"


@check("Standard input reaches the command whole and ends; without any it is empty.", levels=ALL_LEVELS)
async def standard_input(rig: ContractRig) -> None:
    slot = await rig.lease()
    assert (await slot.exec("cat", stdin="héllo")).stdout == "héllo"
    assert (await slot.exec("cat")).stdout == "", "standard input is not empty although none was given"
    data = os.urandom(3_000_000)
    done = await slot.exec("sha256sum", stdin=data)
    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest(), "3 MB of standard input did not arrive exactly"


@check("Standard input that the command does not read holds nothing up.", levels=ALL_LEVELS)
async def standard_input_unread(rig: ContractRig) -> None:
    slot = await rig.lease()
    data = bytes(8_000_000)
    assert (await slot.exec("true", stdin=data)).exit_code == 0
    assert (await slot.exec("head -c 10", stdin=data)).stdout_bytes == 10


@check("Variables of the lease are in every command, those of a command in it alone.", levels=ALL_LEVELS)
async def variables(rig: ContractRig) -> None:
    slot = await rig.lease(env={"AT_LEASE": "one two", "BOTH": "lease"})
    show = 'echo "$AT_LEASE,$BOTH,$NOW"'
    assert (await slot.exec(show, env={"NOW": "$x", "BOTH": "command"})).stdout == "one two,command,$x\n"
    assert (await slot.exec(show)).stdout == "one two,lease,\n", "variables of one command are in the next"


@check("Commands start in the workspace, or where they are told to.", levels=ALL_LEVELS)
async def working_folder(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.exec("mkdir -p a/b")
    for cwd, expected in ((None, slot.workspace), ("a/b", f"{slot.workspace}/a/b"), (slot.home, slot.home), ("/", "/")):
        done = await slot.exec("pwd -P", cwd=cwd)
        assert done.stdout == f"{expected}\n", f"with cwd={cwd!r}: {done}"


@check("A command that cannot start in its folder does not run elsewhere.", levels=ALL_LEVELS)
async def working_folder_missing(rig: ContractRig) -> None:
    slot = await rig.lease()
    try:
        done = await slot.exec("touch $HOME/ran", cwd="no/such/folder")
    except UsageError:
        pass
    else:
        assert done.exit_code != 0, f"a command in a missing folder succeeded: {done}"
    assert (await slot.exec("test -e $HOME/ran")).exit_code == 1, "the command ran in another folder"


@check("Commands of one slot run one at a time, in the order in which they were asked for.", levels=ALL_LEVELS)
async def one_at_a_time_in_order(rig: ContractRig) -> None:
    slot = await rig.lease()
    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(slot.exec, f"echo {number} begins >> log; sleep 0.01; echo {number} ends >> log")
            await anyio.lowlevel.checkpoint()
    log = (await slot.read_file("log")).decode().splitlines()
    assert log == [f"{number} {what}" for number in range(8) for what in ("begins", "ends")]


@check("Slots do not wait for each other.", levels=ALL_LEVELS, needs=("a neighbour",))
async def slots_side_by_side(rig: ContractRig) -> None:
    busy, other = await rig.lease(), await rig.lease()
    started = anyio.Event()

    async def hang() -> None:
        await busy.exec("echo started; sleep 1000", on_output=lambda *_: started.set(), timeout_s=1000)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang)
        await started.wait()
        for _ in range(3):
            assert (await other.exec("echo free", timeout_s=10)).stdout == "free\n"
        tasks.cancel_scope.cancel()


@check("A command is ended at its deadline, says so, keeps its output, and the slot stays usable.", levels=ALL_LEVELS)
async def deadlines(rig: ContractRig) -> None:
    slot = await rig.lease()
    done = await slot.exec("echo out; echo err >&2; sleep 1000", timeout_s=0.5)
    assert (done.timed_out, done.exit_code) == (True, None), f"a command that hung was told as {done}"
    assert (done.stdout, done.stderr) == ("out\n", "err\n"), "what it wrote before its deadline is lost"
    assert (await slot.exec("echo next")).stdout == "next\n"


def stubborn(marker: str) -> str:
    """Return a command whose children do all they can to outlive it, and that says `ready` once they all run."""
    mine = f"sleep {marker}"
    return f"""
        setsid {mine} &
        (setsid sh -c '(trap "" TERM INT HUP; {mine}) &' &)
        (trap "" TERM INT HUP QUIT; {mine}) > /dev/null 2>&1 < /dev/null &
        {mine} &
        stopped=$!
        nohup {mine} > /dev/null 2>&1 &
        while [ "$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '^{marker}$')" -lt 5 ]; do
            sleep 0.05
        done
        kill -STOP $stopped
        echo ready
        {mine}
    """


@check(
    "At a deadline everything dies that the command started: daemons of new sessions, orphans, what ignores signals.",
    levels=ALL_LEVELS,
)
async def deadline_ends_the_tree(rig: ContractRig) -> None:
    slot = await rig.lease()
    for timeout_s in (1.0, 5.0, 30.0):
        marker = rig.marker()
        done = await slot.exec(stubborn(marker), timeout_s=timeout_s)
        assert done.timed_out, done
        assert await rig.count(slot, marker) == 0, "processes of a command outlived its deadline"
        if "ready" in done.stdout:
            return
    raise AssertionError(f"the command never came so far as to have all its children: {done}")


@check("What a command leaves in the background lives on until the lease ends.", levels=ALL_LEVELS)
async def background_children(rig: ContractRig) -> None:
    slot = await rig.lease()
    marker = rig.marker()
    done = await slot.exec(f"sleep {marker} & echo left", timeout_s=20)
    assert done.stdout == "left\n", "a child in the background that holds standard output held up the command"
    assert await rig.count(slot, marker) == 1, "a child in the background did not outlive its command"
    assert (await slot.exec("sleep 1000", timeout_s=0.3)).timed_out
    assert await rig.count(slot, marker) == 1, "the deadline of a command killed the child of an earlier one"


@check("Orphans are reaped: no zombies collect.", levels=("namespaces",))
async def no_zombies(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.exec("for i in 1 2 3 4 5; do (sleep 0.01 &); done; sleep 0.3")
    zombies = await slot.exec("grep -l '^State:.Z' /proc/[0-9]*/status")
    assert zombies.stdout == "", zombies.stdout
