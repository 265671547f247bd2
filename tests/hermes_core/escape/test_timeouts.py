"""A call that is over leaves nothing running: a thousand that try otherwise."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.hermes_core.conftest import processes_with

if TYPE_CHECKING:
    from tests.hermes_core.conftest import OpenRig

    from hermes_core.execution import ExecResult, Slot

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

CALLS = 1000
SLOTS = 8

DAEMON = (
    "import os, signal, sys, time\n"
    "for number in (1, 2, 3, 13, 15): signal.signal(number, signal.SIG_IGN)\n"
    "for _ in range(2):\n"
    "    if os.fork(): time.sleep(99)\n"
    "    os.setsid()\n"
    "time.sleep(99)"
)
# MARK is what the processes are counted by afterwards.
FORMS = [
    "sleep MARK & sleep MARK",
    "setsid sleep MARK & (setsid sleep MARK &); sleep MARK",
    "trap '' TERM HUP INT QUIT PIPE; sleep MARK & setsid sh -c 'sleep MARK & sleep MARK; :' & sleep MARK; sleep MARK",
    "(setsid sh -c \"trap '' TERM HUP INT; (sleep MARK &) ; while :; do sleep MARK; done\" &) ; sleep MARK",
    "nohup sleep MARK > /dev/null 2>&1 & setsid nohup sh -c 'sleep MARK; :' > x 2>&1 < /dev/null & sleep MARK",
    "sleep MARK | sleep MARK | (exec 0<&- 1>&- 2>&-; sleep MARK; :) & sleep MARK",
    "sh -c 'kill -STOP $$; sleep MARK' & sh -c 'sleep MARK & kill -STOP $!; kill -STOP $$; sleep MARK'; sleep MARK",
    "while :; do (sleep MARK &) ; sleep 0.005; done",
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_thousand_calls_leave_no_process(rig: OpenRig) -> None:
    marker = f"4{uuid.uuid4().int % 10**9:09d}"
    chance = random.Random(3)
    done: list[ExecResult] = []

    async def attack(slot: Slot, calls: int) -> None:
        for _ in range(calls):
            if chance.random() < 0.03:
                command: str | list[str] = ["/usr/bin/python3", "-c", DAEMON, marker]
            else:
                command = chance.choice(FORMS).replace("MARK", marker)
            done.append(await slot.exec(command, timeout_s=chance.uniform(0.05, 0.2)))

    async with rig(slots=SLOTS) as r:
        slots = [await r.lease() for _ in range(SLOTS)]
        async with anyio.create_task_group() as tasks:
            for slot in slots:
                tasks.start_soon(attack, slot, CALLS // SLOTS)
        assert len(done) == CALLS
        assert not [result for result in done if not result.timed_out or result.exit_code is not None]
        assert not processes_with(marker)
        for slot in slots:
            assert (await slot.exec("ls -d /proc/[0-9]* | wc -l")).stdout.strip() in ("3", "4")
            await slot.release()
