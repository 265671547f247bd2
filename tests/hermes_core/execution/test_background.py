from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from tests.hermes_core.conftest import processes_with

from hermes_core.exceptions import LeaseStateError, SlotJobError
from hermes_core.execution import ProcessOutput
from hermes_core.sync import Hermes

if TYPE_CHECKING:
    from tests.hermes_core.conftest import OpenRig

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


async def test_output_since_the_last_poll_and_the_end(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        process = await slot.start("echo $A; pwd; read line; echo $line >&2; exit 3", env={"A": "here"}, cwd="/tmp")
        text = ""
        while text != "here\n/tmp\n":
            text += (await process.poll(wait_s=5)).text
        assert await process.poll() == ProcessOutput("", True, None, None, None, 0)
        await process.write("thére\n")
        assert await process.wait() == ProcessOutput("thére\n", False, 3, None, None, 0)
        assert await process.poll() == ProcessOutput("", False, 3, None, None, 0)
        whole = await process.read()
        assert (whole.data, whole.offset, whole.end) == ("here\n/tmp\nthére\n".encode(), 0, 17)
        assert (await process.read(10)).data == "thére\n".encode()
        with pytest.raises(SlotJobError) as raised:
            await process.write("more")
        assert raised.value.kind == "input_closed"


async def test_the_slot_works_on_while_a_process_is_waited_for(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        process = await slot.start(["sh", "-c", "read line < go; echo went"])
        ended: list[ProcessOutput] = []

        async def wait() -> None:
            ended.append(await process.wait())

        await slot.exec("mkfifo go")
        await process.kill()
        process = await slot.start(["sh", "-c", "read line < go; echo went"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            assert (await slot.exec("echo first")).stdout == "first\n"
            await slot.exec("echo > go")
        assert [(output.text, output.exit_code) for output in ended] == [("went\n", 0)]


async def test_it_survives_the_timeout_of_a_command_and_ends_with_the_lease(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        process = await slot.start(r.sleep)
        await r.hanging()
        assert (await slot.exec("sleep 100", timeout_s=0.2)).timed_out
        assert (await process.poll()).running
        await slot.release()
        assert not processes_with(r.marker)
        with pytest.raises(LeaseStateError):
            await process.poll()


async def test_waiting_can_be_cancelled(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        process = await slot.start(["sleep", r.marker])
        with anyio.move_on_after(0.3) as scope:
            await process.wait()
        assert scope.cancelled_caught
        assert (await process.poll(wait_s=0.3)).running
        await process.kill(15)
        ended = await process.wait()
        assert (ended.exit_code, ended.signal) == (None, 15)


async def test_release_ends_whoever_waits(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        process = await slot.start(["sleep", r.marker])
        refused: list[LeaseStateError] = []

        async def wait() -> None:
            with pytest.raises(LeaseStateError) as raised:
                await process.wait()
            refused.append(raised.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await slot.release()
        assert refused


async def test_kill_takes_all_that_it_started(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        process = await slot.start(r.sleep)
        await r.hanging()
        await process.kill()
        assert not processes_with(r.marker)
        ended = await process.poll()
        assert (ended.running, ended.exit_code, ended.signal) == (False, None, 9)


async def test_large_input_and_output(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        process = await slot.start("cat", output_cap=8 << 20)
        text = "é€😀".join(str(number) for number in range(300_000))
        await process.write(text, end=True)
        ended = await process.wait()
        assert ended.text == text
        assert ended.lost_bytes == 0


async def test_characters_cut_by_a_poll_stay_whole(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        process = await slot.start("cat")
        await process.write("a€".encode()[:2])
        text = (await process.poll(wait_s=5)).text
        await process.write("a€".encode()[2:], end=True)
        assert text + (await process.wait()).text == "a€"
        cut = await slot.start("printf 'a\\342'")
        assert (await cut.wait()).text == "a\ufffd"


async def test_what_is_no_longer_kept_is_counted(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        process = await slot.start("printf begin; read line; seq 1 100000", output_cap=100)
        assert (await process.poll(wait_s=5)).text == "begin"
        await process.write("\n")
        ended = await process.wait()
        whole = "".join(f"{number}\n" for number in range(1, 100_001))
        assert (ended.text, ended.lost_bytes) == (whole[-100:], len(whole) - 100)


async def test_a_process_is_found_again_by_its_number(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        held = await slot.take_turn()
        process = await held.start("echo begun; sleep 100")
        assert (await process.poll(wait_s=5)).text == "begun\n"
        held.end_turn()
        with pytest.raises(LeaseStateError):
            await process.poll()
        assert (await slot.process(process.number).poll()).text == "begun\n"
        with pytest.raises(SlotJobError) as raised:
            await slot.process(99).poll()
        assert raised.value.kind == "unknown_job"


async def test_what_cannot_be_started(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        with pytest.raises(SlotJobError) as raised:
            await slot.start(["no-such-program"])
        assert (raised.value.kind, raised.value.exit_code) == ("cannot_start", 127)


def test_from_synchronous_code() -> None:
    with Hermes(backend="local") as hermes, hermes.lease() as slot:
        process = slot.start("cat; exit 4")
        process.write("one\n")
        assert process.poll(wait_s=5).text == "one\n"
        assert slot.process(process.number).poll().text == "one\n"
        process.write(b"two\n", end=True)
        ended = process.wait()
        assert (ended.text, ended.exit_code) == ("two\n", 4)
        assert process.read(4).data == b"two\n"
        hanging = slot.start(["sleep", "100"])
        hanging.kill()
        assert hanging.wait().signal == 9
