from __future__ import annotations

import logging

import anyio
import pytest

from hermes_core.observers import Observer, ObserverHub, RunFinished, RunStarted, SandboxStarted

pytestmark = pytest.mark.anyio


class Watching(Observer):
    def __init__(self, delay_s: float = 0.0) -> None:
        self.seen: list[str] = []
        self._delay_s = delay_s

    async def run_started(self, event: RunStarted) -> None:
        await anyio.sleep(self._delay_s)
        self.seen.append(event.run_id)

    async def run_finished(self, event: RunFinished) -> None:
        self.seen.append(f"end of {event.run_id}")


class Failing(Observer):
    async def run_started(self, event: RunStarted) -> None:
        raise RuntimeError("cannot watch")


async def test_everyone_sees_everything_in_order() -> None:
    one, other = Watching(), Watching()
    async with ObserverHub([one, other]) as hub:
        for number in range(10):
            hub.post(RunStarted(str(number), {}, None))
        hub.post(SandboxStarted("s", "local"))
        hub.post(RunFinished("9", {}))
    assert one.seen == other.seen == [*map(str, range(10)), "end of 9"]
    assert not hub.dropped


async def test_an_error_is_logged_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    watching = Watching()
    with caplog.at_level(logging.ERROR):
        async with ObserverHub([Failing(), watching]) as hub:
            hub.post(RunStarted("a", {}, None))
            hub.post(RunStarted("b", {}, None))
    assert watching.seen == ["a", "b"]
    assert caplog.text.count("cannot watch") >= 2


async def test_one_that_falls_behind_loses_events_and_delays_nobody(caplog: pytest.LogCaptureFixture) -> None:
    slow, quick = Watching(delay_s=0.05), Watching()
    with caplog.at_level(logging.WARNING):
        async with ObserverHub([slow, quick], queue_size=3) as hub:
            with anyio.fail_after(30):
                for number in range(50):
                    hub.post(RunStarted(str(number), {}, None))
                    await anyio.sleep(0.001)
    assert len(quick.seen) == 50
    assert 3 <= len(slow.seen) < 50
    assert hub.dropped == {"Watching": 50 - len(slow.seen)}
    assert "lost" in caplog.text


async def test_one_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_core.observers._hub._DRAIN_S", 0.1)
    with anyio.fail_after(30):
        async with ObserverHub([Watching(delay_s=60)]) as hub:
            hub.post(RunStarted("a", {}, None))


async def test_posting_outside_is_harmless() -> None:
    hub = ObserverHub([Watching()])
    hub.post(RunStarted("a", {}, None))
    async with hub:
        pass
    hub.post(RunStarted("a", {}, None))
