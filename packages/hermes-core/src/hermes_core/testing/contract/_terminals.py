"""Promises about terminals: background processes that a person could sit at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.testing.contract._background import ended, shows
from hermes_core.testing.contract._check import ALL_LEVELS, check

if TYPE_CHECKING:
    from hermes_core.sandbox import SlotClient
    from hermes_core.testing.contract._rig import ContractRig

INTERRUPT, END = b"\x03", b"\x04"


async def prompt(slot: SlotClient, *, rows: int = 24, columns: int = 80) -> int:
    """Start a shell in a terminal, and wait for its prompt."""
    job = await slot.start(["/bin/sh", "-i"], env={"PS1": "READY> ", "ENV": ""}, pty=(rows, columns))
    await shows(slot, job, b"READY> ")
    return job


@check("A program in a terminal has one, and is typed to.", levels=ALL_LEVELS)
async def terminals(rig: ContractRig) -> None:
    slot = (await rig.lease()).lease.client
    job = await prompt(slot)
    await slot.input(job, b"test -t 0 && test -t 1 && test -t 2 && echo a''ll three\r")
    await shows(slot, job, b"all three\r\n")
    await slot.input(job, b"exit 7\r")
    done = await ended(slot, job)
    assert (done.exit_code, done.signal) == (7, None)


@check("A terminal has the size that was asked for, and learns of a new one.", levels=ALL_LEVELS)
async def terminal_sizes(rig: ContractRig) -> None:
    slot = (await rig.lease()).lease.client
    job = await prompt(slot, rows=31, columns=97)
    await slot.input(job, b"stty size\r")
    await shows(slot, job, b"31 97\r\n")
    await slot.resize(job, 40, 120)
    await slot.input(job, b"stty size\r")
    await shows(slot, job, b"40 120\r\n")


@check("The keyboard interrupts what runs in a terminal, and the shell lives on.", levels=ALL_LEVELS)
async def terminal_interrupts(rig: ContractRig) -> None:
    slot = (await rig.lease()).lease.client
    job = await prompt(slot)
    await slot.input(job, b"echo o''n; sleep 1000\r")
    await shows(slot, job, b"on\r\n")
    while (await slot.poll(job)).foreground:  # the shell has not handed its terminal to the sleep yet
        await slot.poll(job, offset=1 << 50, wait_s=0.05)
    await slot.input(job, INTERRUPT)
    await slot.input(job, b"echo still h''ere\r")
    await shows(slot, job, b"still here\r\n")
    await slot.input(job, END)
    assert not (await ended(slot, job)).running


@check("It is told whether a shell waits at its prompt, or a program runs in it.", levels=ALL_LEVELS)
async def terminal_foreground(rig: ContractRig) -> None:
    slot = (await rig.lease()).lease.client
    job = await prompt(slot)
    assert (await slot.poll(job)).foreground is True
    await slot.input(job, b"sleep 1000\r")
    while (await slot.poll(job)).foreground is not False:
        await slot.poll(job, offset=1 << 50, wait_s=0.05)
    await slot.kill(job)
    done = await ended(slot, job)
    assert (done.foreground, done.signal) == (None, 9)
