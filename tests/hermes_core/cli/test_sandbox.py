"""`hermes sandbox exec`, `list` and `cleanup`, as a user does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hermes_core.default_plugins.local_backend._state import state_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hermes_core.cli.conftest import Cli

pytestmark = pytest.mark.namespaces

HERMES = (sys.executable, "-c", "from hermes_core.cli import main; main()")


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder of the test's own, which every user can pass and whose path leaves room for sockets."""
    folder = state_root(None) / f"t{os.getpid()}-{time.monotonic_ns() % 10**9}"
    yield folder
    assert not folder.exists() or not list(folder.iterdir())
    if folder.exists():
        folder.rmdir()


def start(cwd: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*HERMES, "sandbox", *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, "HOME": str(cwd)},
    )


def test_the_streams_stay_apart_and_the_exit_code_is_the_commands_own(hermes: Cli) -> None:
    done = hermes("sandbox", "exec", "--", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (done.returncode, done.stdout, done.stderr) == (5, "out\n", "err\n")


def test_options_of_the_command_are_the_commands_own(hermes: Cli) -> None:
    done = hermes("sandbox", "exec", "--network", "none", "echo", "--json", "--debug", "a b")
    assert (done.returncode, done.stdout) == (0, "--json --debug a b\n")


def test_standard_input_is_passed_on_whole(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    done = subprocess.run([*HERMES, "sandbox", "exec", "cat"], input=data, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data
    (tmp_path / "file").write_bytes(b"1\n2\n")
    with (tmp_path / "file").open() as file:
        counted = subprocess.run([*HERMES, "sandbox", "exec", "wc", "-l"], stdin=file, capture_output=True, check=True)
    assert counted.stdout == b"2\n"


def test_output_comes_while_the_command_runs(tmp_path: Path) -> None:
    with start(tmp_path, "exec", "--", "sh", "-c", "echo first; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted" in said


def test_an_interrupt_does_not_wait_for_input_that_never_ends(tmp_path: Path, state: Path) -> None:
    with start(tmp_path, "exec", "-B", f"state_dir={state}", "cat", stdin=subprocess.PIPE) as process:
        wait_for_a_sandbox(state, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130
        process.communicate()


def test_a_reader_that_leaves_ends_the_command(tmp_path: Path) -> None:
    with start(tmp_path, "exec", "yes") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(timeout=30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


def test_what_ran_out_of_time_or_was_killed_says_so(hermes: Cli) -> None:
    late = hermes("sandbox", "exec", "--timeout", "0.3", "--", "sh", "-c", "echo begun; sleep 1000")
    assert (late.returncode, late.stdout) == (124, "begun\n")
    assert late.stderr == "the command was killed: it ran longer than 0.3 s\n"
    killed = hermes("sandbox", "exec", "--", "sh", "-c", "kill -TERM $$")
    assert killed.returncode == 128 + signal.SIGTERM
    assert killed.stderr == "the command was ended by signal 15 (Terminated)\n"
    missing = hermes("sandbox", "exec", "no-such-program")
    assert (missing.returncode, missing.stderr) == (127, "hermes: no-such-program: not found\n")


def test_the_result_as_json(hermes: Cli) -> None:
    done = hermes("sandbox", "exec", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (done.returncode, done.stderr) == (5, "")
    result = json.loads(done.stdout)
    assert (result["exit_code"], result["stdout"], result["stderr"]) == (5, "out\n", "err\n")
    assert (result["timed_out"], result["signal"], result["truncated"]) == (False, None, False)


def test_the_network_is_there_when_asked_for(hermes: Cli) -> None:
    names = ("sh", "-c", "sed 1,2d /proc/net/dev | cut -d: -f1")
    assert hermes("sandbox", "exec", *names).stdout.split() == ["lo"]
    shared = hermes("sandbox", "exec", "--network", "host", "readlink", "/proc/self/ns/net").stdout.strip()
    assert shared == os.readlink("/proc/self/ns/net")


def test_a_profile_gives_its_variables(hermes: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("profiles: {greeting: {env: {SAID: hello}}}\n")
    arguments = ("sandbox", "exec", "--profile")
    done = hermes(*arguments, "greeting", "printenv", "SAID", HERMES_CONFIG="config.yaml")
    assert done.stdout == "hello\n", done.stderr
    unknown = hermes(*arguments, "grating", "true", HERMES_CONFIG="config.yaml")
    assert unknown.returncode == 2
    assert "error: unknown profile 'grating'\nhint: registered: greeting\n" in unknown.stderr


@pytest.mark.parametrize("command", [["exec", "true"], ["list"], ["cleanup"]])
@pytest.mark.parametrize(
    ("options", "error", "hint"),
    [
        (["--backend", "mars"], "unknown backend 'mars'", "registered: "),
        (["--backend", "modal"], "unknown backend 'modal'", "pip install hermes-backend-modal"),
        (["-B", "slotz=1"], "unknown field 'slotz'", "fields: isolation"),
        (["-B", "slotz"], "not of the form key=value", ""),
    ],
)
def test_what_cannot_start_is_one_line_and_a_hint(
    hermes: Cli, command: list[str], options: list[str], error: str, hint: str
) -> None:
    done = hermes("sandbox", command[0], *options, *command[1:])
    assert (done.returncode, done.stdout) == (2, "")
    said = done.stderr.splitlines()
    assert said[0].startswith("error: ")
    assert error in said[0]
    assert hint in done.stderr
    assert len(said) <= 2


def test_wrong_usage(hermes: Cli) -> None:
    assert hermes("sandbox", "exec").returncode == 2
    assert hermes("sandbox", "exec", "--timeout", "0", "true").returncode == 2
    unavailable = hermes("sandbox", "exec", "-B", "bubblewrap=/no/bwrap", "true")
    assert unavailable.returncode == 2
    assert "/no/bwrap cannot be run" in unavailable.stderr
    assert "error: backend 'local' cannot" in hermes("sandbox", "exec", "--image", "x", "true").stderr


def wait_for_a_sandbox(state: Path, owner: subprocess.Popen[bytes]) -> Path:
    """Wait until a command has a slot; return the state folder of its sandbox."""
    deadline = time.monotonic() + 60
    while True:
        if found := list(state.glob(f"{owner.pid}-*/work/*")):
            return found[0].parents[1]
        assert time.monotonic() < deadline, "no sandbox starts"
        time.sleep(0.02)


def processes_of(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def kill_all_of(folder: Path, owner: subprocess.Popen[bytes]) -> None:
    """Kill an owner and every process of its sandbox, so that nobody is left to clean up."""
    processes = processes_of(folder)
    assert processes
    signal_each(processes, signal.SIGSTOP)  # none may see another die
    owner.kill()
    deadline = time.monotonic() + 30
    while processes:
        assert time.monotonic() < deadline, "something survives"
        signal_each(processes, signal.SIGKILL)
        time.sleep(0.01)
        processes = processes_of(folder)  # and who was just being made
    owner.wait()


def signal_each(processes: list[int], number: signal.Signals) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def test_list_and_cleanup_tell_the_living_from_the_dead(hermes: Cli, tmp_path: Path, state: Path) -> None:
    own = ("-B", f"state_dir={state}")
    assert json.loads(hermes("sandbox", "list", "--json", *own).stdout) == []
    assert hermes("sandbox", "cleanup", *own).stdout == "nothing to remove\n"
    assert not state.exists()
    with start(tmp_path, "exec", *own, "wc", "-c", stdin=subprocess.PIPE) as living:
        alive = wait_for_a_sandbox(state, living)
        with start(tmp_path, "exec", *own, "cat", stdin=subprocess.PIPE) as dying:
            dead = wait_for_a_sandbox(state, dying)
            (dead / "work" / "0" / "secret").write_text("left behind")
            kill_all_of(dead, dying)
        rows = json.loads(hermes("sandbox", "list", "--json", *own).stdout)
        assert {row["owner"].split("-")[0]: row["state"] for row in rows} == {
            str(living.pid): "running",
            str(dying.pid): "left behind",
        }
        assert all(row["name"] and row["age_s"] >= 0 for row in rows)
        table = hermes("sandbox", "list", *own).stdout
        assert "running" in table
        assert "left behind" in table
        cleaned = hermes("sandbox", "cleanup", *own)
        assert cleaned.returncode == 0, cleaned.stderr
        removed, left = cleaned.stdout.splitlines()
        assert removed.startswith("removed ")
        assert f" of {dying.pid}-" in removed
        assert left.startswith("left ")
        assert f" of {living.pid}-" in left
        assert left.endswith(": running")
        assert not dead.exists()
        assert not list(state.glob(f"{dying.pid}-*"))
        assert alive.exists()
        counted, said = living.communicate(b"12345", timeout=60)
        assert (living.returncode, counted.split(), said) == (0, [b"5"], b"")
    again = json.loads(hermes("sandbox", "cleanup", "--json", *own).stdout)
    assert again == {"removed": [], "left": []}
