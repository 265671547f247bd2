"""The embedding API, as the README and the reference promise it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core import Hermes, Message, Task, ToolCall, Toolset
from hermes_core.config import load_settings
from hermes_core.exceptions import LeaseStateError, UnknownNameError, UsageError
from hermes_core.observers import Observer
from hermes_envs.arithmetic import ArithmeticEnvironment

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_core import Slot
    from hermes_core.observers import RunFinished, SandboxFinished, SandboxStarted, TrajectoryFinished

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


async def first_task() -> Task:
    async with aclosing(ArithmeticEnvironment().tasks("train", 0)) as tasks:
        async for task in tasks:
            return task
    raise AssertionError


async def test_a_lease_runs_commands_calls_and_files() -> None:
    async with Hermes(backend="local", backend_config={"slots_per_sandbox": 16}, toolsets=["terminal"]) as hermes:
        async with hermes.lease() as slot:
            done = await slot.exec("echo hi; echo no >&2; exit 3", timeout_s=10)
            assert (done.exit_code, done.stdout, done.stderr) == (3, "hi\n", "no\n")
            result = await slot.call(ToolCall("terminal", {"command": "pwd"}))
            assert result.output == {"exit_code": 0, "stdout": "/workspace\n", "stderr": ""}
            await slot.write_file("a.txt", b"\x00\xff")
            assert await slot.read_file("a.txt") == b"\x00\xff"
        with pytest.raises(LeaseStateError):
            await slot.exec("true")


async def test_acquired_in_one_task_and_released_in_another() -> None:
    async with Hermes(toolsets=["terminal"]) as hermes:
        slots: list[Slot] = []

        async def take() -> None:
            slots.append(await hermes.acquire())

        async def give() -> None:
            await slots[0].release()
            await slots[0].release()

        for step in (take, give):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(step)
        status = hermes.pool_status()
        assert status is not None
        assert status.leased == 0


async def test_call_many_keeps_the_order_and_answers_unknown_names() -> None:
    async with Hermes(toolsets=["terminal"]) as hermes, hermes.lease() as first, hermes.lease() as second:
        results = await hermes.call_many(
            [
                (first, ToolCall("terminal", {"command": "sleep 0.2; echo 1"})),
                (second, ToolCall("bash", {"command": "echo 2"})),
                (first, ToolCall("terminal", {"command": "echo 3"})),
                (None, ToolCall("nothing", {})),
            ]
        )
        said = [result.output["stdout"] for result in results[:3]]  # type: ignore[index, call-overload]
        assert said == ["1\n", "2\n", "3\n"]
        assert not results[3].success
        assert "nothing" in str(results[3].error)


async def test_run_writes_a_folder_and_reads_it_back(tmp_path: Path) -> None:
    async with Hermes() as hermes:
        run = await hermes.run("arithmetic", model="oracle", tasks=8, group_size=4, out=tmp_path / "out")
        assert run.statistics.mean_reward == 1.0
        assert len([t async for t in run.trajectories()]) == 32
        with pytest.raises(UsageError, match="out"):
            await hermes.run("arithmetic", model="oracle", tasks=8, group_size=4, out=tmp_path / "out")


async def test_rollout_and_stream() -> None:
    async with Hermes() as hermes:
        trajectory = await hermes.rollout("arithmetic", await first_task(), model="oracle", sample_index=3)
        assert (trajectory.reward, trajectory.sample_index, trajectory.backend) == (1.0, 3, "local")
        environment = ArithmeticEnvironment()
        ended = [t async for t in hermes.stream(environment, model="oracle", tasks=3, group_size=2, seed=1)]
        assert [t.reward for t in ended] == [1.0] * 6


async def test_a_stream_may_be_left_early() -> None:
    async with Hermes() as hermes:
        async with aclosing(hermes.stream("arithmetic", model="oracle", group_size=4)) as endless:
            async for trajectory in endless:
                assert trajectory.reward == 1.0
                break
        with anyio.fail_after(20):
            while (status := hermes.pool_status()) and status.leased:  # noqa: ASYNC110 - the pool tells nobody
                await anyio.sleep(0.02)


async def test_an_agent_uses_tools_and_remembers() -> None:
    turns = [
        {"tool_calls": [{"name": "terminal", "arguments": {"command": "echo $((6*7))"}}]},
        {"content": "It is 42."},
        {"content": "I said so."},
    ]
    async with Hermes(toolsets=["terminal", Toolset("loud", tools=("terminal",))]) as hermes:
        agent = hermes.agent("scripted", model_config={"turns": turns}, system_prompt="Be brief.")
        assert await agent.chat("What is 6*7?") == "It is 42."
        assert await agent.chat("Are you sure?") == "I said so."
        roles = [message.role for message in agent.messages]
        assert roles == ["system", "user", "assistant", "tool", "assistant", "user", "assistant"]
        assert '"stdout": "42' in agent.messages[3].content


async def test_errors_of_the_body_arrive_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is tested
        async with Hermes() as hermes, hermes.lease() as slot:
            await slot.exec("true")
            raise ZeroDivisionError


async def test_names_and_settings_are_checked_before_anything_starts() -> None:
    with pytest.raises(UnknownNameError, match="unknown toolset 'nope'"):
        Hermes(toolsets=["nope"])
    with pytest.raises(UnknownNameError, match="unknown backend 'nope'"):
        Hermes(backend="nope")
    with pytest.raises(UsageError, match="not entered"):
        await Hermes().acquire()


async def test_a_profile_of_the_settings_is_leased_by_name() -> None:
    settings = load_settings(profiles={"loud": {"env": {"VOLUME": "11", "BASS": "3"}}})
    async with Hermes(settings=settings) as hermes:
        async with hermes.lease("loud", env={"BASS": "9"}) as slot:
            assert (await slot.exec("echo $VOLUME $BASS")).stdout == "11 9\n"
        with pytest.raises(UnknownNameError, match="unknown profile 'quiet'"):
            await hermes.acquire("quiet")


async def test_it_is_entered_once() -> None:
    hermes = Hermes()
    async with hermes:
        pass
    assert hermes.pool_status() is None
    with pytest.raises(UsageError, match="entered before"):
        await hermes.__aenter__()


async def test_without_a_backend_external_tools_still_work() -> None:
    async with Hermes(backend=None) as hermes:
        assert hermes.pool_status() is None
        with pytest.raises(UsageError, match="no sandbox backend"):
            await hermes.acquire()
        agent = hermes.agent("scripted", model_config={"turns": [{"content": "hi"}]})
        run = await agent.run([Message("user", "hello")])
        assert (run.outcome, run.final_response) == ("completed", "hi")


def test_inside_a_loop_that_already_runs() -> None:
    async def application() -> str:
        async with Hermes() as hermes, hermes.lease() as slot:
            first, second = await asyncio.gather(slot.exec("echo a"), slot.exec("echo b"))
            return first.stdout + second.stdout

    assert asyncio.run(application()) == "a\nb\n"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_main_job_through_python_c(tmp_path: Path, loop: str) -> None:
    code = (
        "import anyio, sys\n"
        "from hermes_core import Hermes\n"
        "async def main():\n"
        "    async with Hermes(backend='local') as hermes:\n"
        "        run = await hermes.run('arithmetic', model='oracle', tasks=64, group_size=4, concurrency=32,"
        " out='out')\n"
        "        print(run.statistics.mean_reward, run.statistics.trajectories)\n"
        f"anyio.run(main, backend={loop!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False
    )
    assert done.stdout == "1.0 256\n", done.stderr
    assert len((tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()) == 256


async def test_observers_see_sandboxes_and_trajectories_in_order(tmp_path: Path) -> None:
    seen: list[str] = []

    class Diary(Observer):
        async def sandbox_started(self, event: SandboxStarted) -> None:
            seen.append(f"sandbox on {event.backend}")

        async def sandbox_finished(self, event: SandboxFinished) -> None:
            seen.append("sandbox ended")

        async def trajectory_finished(self, event: TrajectoryFinished) -> None:
            seen.append(event.trajectory.outcome)

        async def run_finished(self, event: RunFinished) -> None:
            seen.append("run ended")

    async with Hermes(observers=[Diary()]) as hermes:
        await hermes.run("arithmetic", model="oracle", tasks=1, out=tmp_path / "out")
    assert seen == ["sandbox on local", "completed", "run ended", "sandbox ended"]
