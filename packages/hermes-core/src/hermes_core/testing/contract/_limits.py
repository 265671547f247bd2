"""Promises about limits: what breaches one is stopped, the limit is named, and the slot stays usable.

Nothing here is without bounds of its own, so that a backend that does not enforce a limit survives its check.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from hermes_core.exceptions import SlotFileError, UsageError
from hermes_core.sandbox import SlotClient
from hermes_core.testing.contract._check import ALL_LEVELS, CONFINED, NAMESPACES, check
from hermes_core.testing.contract._expect import expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hermes_core.sandbox import CommandOutcome
    from hermes_core.testing.contract._rig import ContractRig

MIB = 1 << 20


@asynccontextmanager
async def limited(rig: ContractRig, **limits: int | None) -> AsyncIterator[SlotClient]:
    """Open a slot with limits of its own, in a sandbox of its own."""
    async with rig.open_sandbox() as sandbox, rig.open_client(sandbox) as client:
        slot = SlotClient(client, 0)
        await slot.open(network=rig.network, limits=limits)
        yield slot
        assert (await shell(slot, "echo fine")).stdout == b"fine\n", "the slot is unusable after the breach"


async def shell(slot: SlotClient, command: str, *, timeout_s: float = 30.0) -> CommandOutcome:
    """Run a line of shell."""
    return await slot.exec(["/bin/sh", "-c", command], timeout_s=timeout_s)


@check(
    "Memory beyond the limit is not had, by all processes of the slot together.",
    levels=CONFINED,
    needs=("limit memory_bytes",),
)
async def limit_of_memory(rig: ContractRig) -> None:
    async with limited(rig, memory_bytes=96 * MIB) as slot:
        # Each `tail` keeps what it may have to show.
        one = await shell(slot, "head -c 400000000 /dev/zero | tail -c 350000000 | wc -c")
        assert one.limit == "memory", f"350 MB were used where 96 MiB are the limit: {one}"
        assert one.stdout != b"350000000\n"
        part = "(head -c 45000000 /dev/zero | tail -c 40000000; sleep 1) | (sleep 1; wc -c) &"
        many = await shell(slot, f"{part} {part} {part} {part} {part} wait")
        assert many.limit == "memory", f"5 times 40 MB were used where 96 MiB are the limit: {many}"


@check("Processes beyond the limit are not started.", levels=CONFINED, needs=("limit processes",))
async def limit_of_processes(rig: ContractRig) -> None:
    async with limited(rig, processes=40) as slot:
        done = await shell(slot, "i=0; while [ $i -lt 100 ]; do sleep 2 & i=$((i+1)); done; echo all")
        assert done.stdout != b"all\n", "100 processes were started where 40 are the limit"
        assert done.limit == "processes", done
        await anyio.sleep(2.5)  # as long as the children of that command live, nothing else can be started


@check(
    "A file does not grow beyond the limit, by commands or by requests.", levels=CONFINED, needs=("limit file_bytes",)
)
async def limit_of_a_file(rig: ContractRig) -> None:
    async with limited(rig, file_bytes=8 * MIB) as slot:
        done = await shell(slot, "head -c 20000000 /dev/zero > big")
        assert done.limit == "file_size", done
        assert (await shell(slot, "stat -c %s big")).stdout == b"%d\n" % (8 * MIB)
        error = await expect(SlotFileError, slot.write("other", bytes(9 * MIB)), "a file grew beyond the limit")
        assert error.kind == "no_space"
        assert (await shell(slot, "ls")).stdout == b"big\n", "something is left of the file that was refused"


@check("A process opens no more files than the limit.", levels=CONFINED, needs=("limit open_files",))
async def limit_of_open_files(rig: ContractRig) -> None:
    async with limited(rig, open_files=64) as slot:
        assert (await shell(slot, "ulimit -n; ulimit -Hn")).stdout == b"64\n64\n"
        assert (await shell(slot, "ulimit -n 65")).exit_code != 0, "a command can raise the limit"


@check("The workspace does not stay larger than the limit.", levels=CONFINED, needs=("limit workspace_bytes",))
async def limit_of_the_workspace(rig: ContractRig) -> None:
    async with limited(rig, workspace_bytes=24 * MIB) as slot:
        fill = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); head -c 4000000 /dev/zero > f$i || exit; sleep 0.1; done"
        done = await shell(slot, fill)
        assert done.limit == "workspace", f"240 MB were written where 24 MiB are the limit: {done}"
        await shell(slot, "rm -f f*")


@check(
    "The temporary and the home folder do not grow beyond their limits.",
    levels=NAMESPACES,
    needs=("limit tmp_bytes", "limit home_bytes"),
)
async def limit_of_private_folders(rig: ContractRig) -> None:
    async with limited(rig, tmp_bytes=MIB, home_bytes=2 * MIB) as slot:
        for path in ("${TMPDIR:-/tmp}/f", "/dev/shm/f", "$HOME/f"):
            assert (await shell(slot, f"head -c 3000000 /dev/zero > {path}")).exit_code != 0, path
        assert slot.opened is not None
        request = slot.write(f"{slot.opened.home}/other", bytes(3 * MIB))
        assert (await expect(SlotFileError, request, "the home folder grew")).kind == "no_space"


@check("Limits that nobody knows, or that make no sense, are refused.", levels=ALL_LEVELS)
async def unknown_limits(rig: ContractRig) -> None:
    async with rig.open_sandbox() as sandbox, rig.open_client(sandbox) as client:
        for limits in ({"gravity": 5}, {"memory_bytes": 0}, {"memory_bytes": -1}, {"memory_bytes": "1G"}):
            request = SlotClient(client, 0).open(network=rig.network, limits=limits)
            await expect(UsageError, request, f"limits={limits}")


@check("No core file is left of a command that crashes.", levels=ALL_LEVELS)
async def no_core_files(rig: ContractRig) -> None:
    slot = await rig.lease()
    assert (await slot.exec("ulimit -c")).stdout == "0\n"
    assert (await slot.exec("sh -c 'kill -SEGV $$'; ls -A")).stdout == ""
