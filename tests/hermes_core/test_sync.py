from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from hermes_core import ToolCall
from hermes_core.exceptions import UsageError
from hermes_core.sync import Hermes

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

pytestmark = pytest.mark.namespaces


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_same_from_synchronous_code(tmp_path: Path, loop: Literal["asyncio", "trio"]) -> None:
    with Hermes(backend="local", toolsets=["terminal"], loop=loop) as hermes:
        with hermes.lease() as slot:
            assert slot.exec("echo hi").stdout == "hi\n"
            slot.write_file("a", "b")
            assert slot.read_file("a") == b"b"
            assert slot.read_part("a", sha256=True).size == 1
            assert [entry.path for entry in slot.list_files().entries] == ["a"]
            assert slot.extract("d", slot.archive("a")).entries == slot.pack("d").entries == 1
            (tmp_path / "here").mkdir()
            assert slot.download("d", tmp_path / "here") == slot.upload(tmp_path / "here", "e")
            assert slot.call(ToolCall("terminal", {"command": "cat a"})).success
            assert [r.success for r in hermes.call_many([(slot, ToolCall("bash", {"command": "true"}))])] == [True]
        run = hermes.run("arithmetic", model="oracle", tasks=2, out=tmp_path / "out")
        assert run.statistics.mean_reward == 1.0
        assert len(list(run.trajectories())) == 2
        assert len(list(hermes.stream("arithmetic", model="oracle", tasks=2))) == 2
        agent = hermes.agent("scripted", model_config={"turns": [{"content": "yes"}]})
        assert agent.chat("well?") == "yes"


def test_a_stream_may_be_left_early() -> None:
    with Hermes() as hermes:
        for trajectory in hermes.stream("arithmetic", model="oracle"):
            assert trajectory.reward == 1.0
            break


def test_any_thread_may_call() -> None:
    with Hermes() as hermes:

        def work(number: int) -> str:
            with hermes.lease() as slot:
                return slot.exec(f"echo {number}").stdout.strip()

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(work, range(24))) == [str(number) for number in range(24)]


def test_it_refuses_to_be_used_after_a_fork() -> None:
    with Hermes() as hermes, hermes.lease() as slot:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                slot.exec("true")
                os.write(write, b"it ran")
            except UsageError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 1000) == b"this Hermes belongs to the parent process"
        os.close(read)
        os.close(write)
        assert slot.exec("echo still here").stdout == "still here\n"


def test_it_must_be_entered() -> None:
    with pytest.raises(UsageError, match="not entered"):
        Hermes().acquire()
