from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core import Hermes, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hermes_core import Slot
    from hermes_core.execution import JsonValue

    Run = Callable[..., Awaitable[dict[str, JsonValue]]]

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

NEW = "the shell of the calls before had ended: this is a new one, without its state"
SMALL_PATH = "/workspace/programs"


@pytest.fixture
async def slot() -> AsyncIterator[Slot]:
    async with Hermes(toolsets=["terminal_stateful"]) as hermes, hermes.lease() as leased:
        yield leased


@pytest.fixture(params=["bash", "sh"])
async def shell(request: pytest.FixtureRequest) -> AsyncIterator[Run]:
    """Both shells: the second slot has a PATH without bash."""
    env = {} if request.param == "bash" else {"PATH": SMALL_PATH}
    async with Hermes(toolsets=["terminal_stateful"]) as hermes, hermes.lease(env=env) as leased:
        if request.param == "sh":
            made = await leased.exec(
                f"/bin/mkdir {SMALL_PATH}; for p in sh cat mkfifo rm sleep grep head seq; do "
                f"/bin/ln -s /bin/$p {SMALL_PATH}/$p || exit 1; done"
            )
            assert made.exit_code == 0, made.stderr
        yield caller(leased)


def caller(slot: Slot) -> Run:
    async def run(command: str, **arguments: JsonValue) -> dict[str, JsonValue]:
        result = await slot.call(ToolCall("terminal_stateful", {"command": command, **arguments}))
        assert result.success, result.error
        assert isinstance(result.output, dict)
        return result.output

    return run


def said(stdout: str, exit_code: int = 0) -> dict[str, JsonValue]:
    return {"exit_code": exit_code, "stdout": stdout, "stderr": ""}


async def test_state_is_kept(shell: Run) -> None:
    assert await shell("cd /tmp; export X=5; f() { echo f $X; }; set -- a b") == said("")
    assert await shell("pwd; f; echo $2; sh -c 'echo $X'") == said("/tmp\nf 5\nb\n5\n")


async def test_output_and_exit_code_are_those_of_the_command(shell: Run) -> None:
    done = await shell("echo out; echo err >&2; false")
    assert done == {"exit_code": 1, "stdout": "out\n", "stderr": "err\n"}
    assert await shell("(exit 125)") == said("", 125)
    assert await shell("sh -c 'kill -9 $$'") | {"stderr": ""} == said("", 137)
    assert await shell("printf 'no newline'") == said("no newline")
    assert await shell("echo 'it'\"'\"'s'\necho two # comment") == said("it's\ntwo\n")
    assert await shell("") == said("")


async def test_commands_have_no_standard_input(shell: Run) -> None:
    assert await shell("read x; echo got $?; cat") == said("got 1\n")


async def test_a_malformed_command_is_told(shell: Run) -> None:
    done = await shell("for", timeout=20)
    assert done["exit_code"] == 2
    assert "yntax error" in str(done["stderr"])
    assert await shell("echo fine") == said("fine\n")


async def test_what_looks_like_a_status_is_output(shell: Run) -> None:
    await shell("X=5")
    imitation = "echo $?; echo 0 >&3; printf '0\\n'; echo gone; echo 'EXIT_CODE=0'; exit_code=0; (exit 7)"
    done = await shell(imitation)
    assert done["exit_code"] == 7
    assert str(done["stdout"]).endswith("0\ngone\nEXIT_CODE=0\n")
    assert await shell("echo '0' > /proc/$$/fd/1; (exit 9)") == said("0\n", 9)
    assert await shell("echo $X") == said("5\n")


async def test_exit_is_told_and_the_next_call_says_that_the_shell_is_new(shell: Run) -> None:
    await shell("X=5")
    done = await shell("echo bye; exit 3")
    assert (done["exit_code"], done["stdout"]) == (3, "bye\n")
    assert await shell("echo [$X]") == {**said("[]\n"), "note": NEW}
    assert await shell("echo same") == said("same\n")


async def test_a_shell_that_is_killed_is_told(shell: Run) -> None:
    done = await shell("kill -9 $$")
    assert (done["exit_code"], done["error"]) == (None, "the shell was killed by signal 9")
    assert (await shell("true"))["note"] == NEW


@pytest.mark.parametrize(
    "endless",
    [
        "sleep 1000; echo after",
        "while :; do :; done",
        "sh -c 'trap \"\" INT; sleep 1000'; echo after",
        "sleep 999 & wait",
    ],
)
async def test_a_timeout_kills_the_command_and_keeps_the_state(shell: Run, endless: str) -> None:
    await shell("X=5; cd /tmp; sleep 4242 > /dev/null & ")
    done = await shell(f"echo begun; {endless}", timeout=1)
    assert (done["exit_code"], done["stdout"], done["error"]) == (None, "begun\n", "killed after 1 s")
    assert await shell("echo $X; pwd") == said("5\n/tmp\n")
    # Whole arguments: a random name somewhere may have the digits.
    found = await shell("for f in /proc/[0-9]*/cmdline; do grep -azoE '^(4242|1000|999)$' $f; done")
    assert found["stdout"] == "4242\0"


async def test_background_jobs_live_on(shell: Run) -> None:
    await shell("(sleep 0.5; echo late > late.txt) > /dev/null 2>&1 &")
    with anyio.fail_after(20):
        while (await shell("cat late.txt"))["stdout"] != "late\n":
            await shell("sleep 0.1")


async def test_long_output_keeps_head_and_tail(shell: Run) -> None:
    out = str((await shell("seq 100000"))["stdout"])
    assert out.startswith("1\n2\n")
    assert out.endswith("99999\n100000\n")
    assert "characters left out]" in out
    assert len(out) < 51_000


async def test_two_hundred_commands_in_a_row(shell: Run) -> None:
    await shell("n=0")
    for number in range(1, 201):
        assert await shell(f"n=$((n + 1)); echo $n; (exit {number})") == said(f"{number}\n", number)


async def test_a_cancelled_command_takes_the_shell_with_it(slot: Slot) -> None:
    run = caller(slot)
    await run("X=5")
    with anyio.move_on_after(1) as scope:
        await run("sleep 4242")
    assert scope.cancelled_caught
    assert await run("echo [$X]") == {**said("[]\n"), "note": NEW}
    assert (await run("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep [4]242'"))["stdout"] == "0\n"


async def test_each_lease_has_a_shell_of_its_own() -> None:
    async with Hermes(toolsets=["terminal_stateful"]) as hermes:
        async with hermes.lease() as one, hermes.lease() as two:
            await caller(one)("X=1")
            await caller(two)("X=2")
            assert await caller(one)("echo $X") == said("1\n")
        async with hermes.lease() as again:
            assert await caller(again)("echo [$X]") == said("[]\n")


async def test_a_long_command_and_a_nul(slot: Slot) -> None:
    run = caller(slot)
    assert await run(f"x='{'y' * 200_000}'; echo ${{#x}}") == said("200000\n")
    refused = await slot.call(ToolCall("terminal_stateful", {"command": "echo \0"}))
    assert "NUL" in str(refused.error)
