from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.process_tree import supervisors_of

from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.exceptions import LeaseStateError, SlotDeadError, SlotFileError, UsageError

if TYPE_CHECKING:
    from tests.hermes_core.conftest import OpenRig

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


async def test_a_command_runs_in_the_workspace_of_the_slot(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease(trajectory_id="t1", env={"GIVEN": "at lease"})
        done = await slot.exec("echo out; echo err >&2; pwd; echo $GIVEN $NOW; exit 3", env={"NOW": "here"})
        assert (done.exit_code, done.signal, done.timed_out, done.limit) == (3, None, False, None)
        assert (done.stdout, done.stderr) == ("out\n/workspace\nat lease here\n", "err\n")
        assert (done.stdout_bytes, done.stderr_bytes, done.truncated) == (len(done.stdout), 4, False)
        assert (slot.trajectory_id, slot.workspace, slot.network, slot.isolation) == (
            "t1",
            "/workspace",
            "none",
            "namespaces",
        )


async def test_arguments_stdin_and_folder_reach_the_program(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        assert (await slot.exec(["printf", "%s|", "a b", "$HOME"])).stdout == "a b|$HOME|"
        assert (await slot.exec("cat", stdin="héllo")).stdout == "héllo"
        assert (await slot.exec("mkdir -p a/b; pwd", cwd="/tmp")).stdout == "/tmp\n"
        big = os.urandom(3_000_000)
        done = await slot.exec("sha256sum", stdin=big)
        assert done.stdout.split()[0] == hashlib.sha256(big).hexdigest()


async def test_a_program_that_cannot_be_started_is_a_result_and_bad_arguments_are_usage_errors(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        assert (await slot.exec(["/no/such/program"])).exit_code == 127
        assert (await slot.exec(["/etc"])).exit_code == 126
        with pytest.raises(UsageError):
            await slot.exec("x" * 70_000)
        with pytest.raises(UsageError):
            await slot.exec(["a\0b"])
        assert (await slot.exec("kill -9 $$")).signal == 9


async def test_a_command_is_killed_at_its_deadline_and_its_output_kept(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        done = await slot.exec(f"echo before; {r.sleep}", timeout_s=0.3)
        assert (done.timed_out, done.exit_code, done.stdout) == (True, None, "before\n")
        await r.quiet()
        assert (await slot.exec("echo still here")).stdout == "still here\n"


async def test_requests_of_a_slot_run_one_after_the_other_and_in_order(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(slot.exec, f"echo {number} begin >> log; sleep 0.01; echo {number} end >> log")
                await anyio.wait_all_tasks_blocked()
        log = (await slot.read_file("log")).decode().splitlines()
        assert log == [f"{number} {what}" for number in range(8) for what in ("begin", "end")]


async def test_files_large_and_small_go_both_ways(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        for size in (0, 1, 65_536, 65_537, 20_000_000):
            data = os.urandom(size)
            await slot.write_file("deep/er/file", data, mode=0o755)
            assert await slot.read_file("/workspace/deep/er/file") == data
        assert (await slot.exec("stat -c %a deep/er/file")).stdout == "755\n"
        await slot.write_file("text", "naïve")
        assert (await slot.read_file("text")).decode() == "naïve"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("nothing", "not_found"), ("folder", "is_directory"), ("pipe", "not_a_file"), ("big", "too_large")],
)
async def test_a_file_that_cannot_be_read_says_why(rig: OpenRig, path: str, kind: str) -> None:
    async with rig() as r:
        slot = await r.lease()
        await slot.exec("mkdir folder; mkfifo pipe; head -c 2000 /dev/zero > big")
        with pytest.raises(SlotFileError) as raised:
            await slot.read_file(path, max_bytes=1000)
        assert raised.value.kind == kind


async def test_live_output_arrives_while_the_command_runs(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        seen: list[tuple[str, bytes]] = []

        def on_output(stream: str, data: bytes) -> None:
            seen.append((stream, data))
            if b"one" in data:
                (got_one.set)()

        async def on_output_async(stream: str, data: bytes) -> None:
            await anyio.lowlevel.checkpoint()
            seen.append((stream, data))

        got_one = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                command = "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two >&2"
                await slot.exec(command, on_output=on_output)

            tasks.start_soon(run)
            with anyio.fail_after(10):
                await got_one.wait()
            # The turn of the slot is taken: the file comes through the daemon's own door.
            seen.append(("test", b""))
            tasks.cancel_scope.cancel()
        assert seen[0] == ("stdout", b"one\n")
        seen.clear()
        done = await slot.exec("echo a; echo b >&2", on_output=on_output_async)
        assert sorted(seen) == [("stderr", b"b\n"), ("stdout", b"a\n")]
        assert (done.stdout, done.stderr) == ("a\n", "b\n")


async def test_a_slow_consumer_holds_up_its_own_command_only(rig: OpenRig) -> None:
    async with rig() as r:
        slow, other = await r.lease(), await r.lease()
        seen = 0

        async def on_output(stream: str, data: bytes) -> None:
            nonlocal seen
            seen += len(data)
            await released.wait()

        released = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                done = await slow.exec("head -c 20000000 /dev/zero; echo done >&2", on_output=on_output, timeout_s=60)
                assert (done.stdout_bytes, done.stderr, done.exit_code) == (20_000_000, "done\n", 0)

            tasks.start_soon(run)
            for _ in range(20):
                assert (await other.exec("true")).exit_code == 0
            await r.eventually(lambda: seen > 0)
            assert seen <= 1 << 20
            assert sum(len(data) for _, data, _ in _queued(slow)) <= 1 << 20
            released.set()
        assert seen == 20_000_000 + 5


def _queued(slot: object) -> list[tuple[str, bytes, int]]:
    session = slot.lease.client.sandbox._session  # type: ignore[attr-defined]
    return [item for exchange in session._pending.values() for item in exchange.output]


async def test_an_error_of_the_consumer_ends_the_command(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()

        def on_output(stream: str, data: bytes) -> None:
            raise ValueError("enough")

        with pytest.raises(ValueError, match="enough"):
            await slot.exec(f"echo x; {r.sleep}", on_output=on_output)
        await r.quiet()
        assert (await slot.exec("true")).exit_code == 0


async def test_a_gigabyte_of_output_is_drained_in_constant_memory(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        await slot.exec("true")
        before = _resident_bytes()
        done = await slot.exec("head -c 1000000000 /dev/zero", timeout_s=60)
        assert (done.stdout_bytes, done.truncated, done.exit_code) == (1_000_000_000, True, 0)
        assert len(done.stdout) < 1_100_000
        assert "bytes left out" in done.stdout
        assert _resident_bytes() - before < 30_000_000


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_slot_that_was_released_is_of_no_use(rig: OpenRig) -> None:
    async with rig(slots=1) as r:
        slot = await r.lease()
        await slot.exec("touch mine")
        await slot.release()
        await slot.release()
        for use in (slot.exec("true"), slot.read_file("mine"), slot.write_file("mine", b""), slot.take_turn()):
            with pytest.raises(LeaseStateError):
                await use
        again = await r.lease()
        assert (await again.exec("ls -A; ls -A /tmp $HOME")).stdout.split() == ["/home/agent:", "/tmp:"]


async def test_releasing_ends_what_runs_and_what_waits(rig: OpenRig) -> None:
    async with rig(slots=1) as r:
        slot = await r.lease()
        ended = []

        async def run() -> None:
            with pytest.raises(LeaseStateError):
                await slot.exec(r.sleep)
            ended.append(True)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                tasks.start_soon(run)
                await r.hanging()
                await slot.release()
        assert ended == [True, True]
        await r.quiet()
        assert (await (await r.lease()).exec("true")).exit_code == 0


async def test_a_dead_slot_says_so_and_is_replaced(rig: OpenRig) -> None:
    async with rig(slots=1) as r:
        slot = await r.lease()
        assert isinstance(r.backend, LocalBackend)
        (sandbox,) = r.backend.sandboxes
        assert sandbox.pid is not None
        for supervisor in supervisors_of(sandbox.pid):
            os.kill(supervisor, 9)
        with pytest.raises(SlotDeadError):
            await slot.exec("true")
        await slot.release()
        assert (await (await r.lease()).exec("echo fine")).stdout == "fine\n"


async def test_stdin_that_nobody_reads_does_not_hang(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        with anyio.fail_after(20):
            for _ in range(3):
                assert (await slot.exec("true", stdin=bytes(8_000_000))).exit_code == 0
                assert (await slot.exec("head -c 10", stdin=bytes(8_000_000))).stdout_bytes == 10


async def test_much_live_output_is_not_kept(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        seen = 0

        def on_output(stream: str, data: bytes) -> None:
            nonlocal seen
            seen += len(data)

        await slot.exec("true")
        before = _resident_bytes()
        done = await slot.exec("head -c 300000000 /dev/zero", timeout_s=60, on_output=on_output)
        assert (seen, done.stdout_bytes) == (300_000_000, 300_000_000)
        assert _resident_bytes() - before < 30_000_000
