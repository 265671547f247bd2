"""Limits: each breach is stopped, named in the result, and leaves the slot usable."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sandboxd_client import wait_until

from hermes_sandboxd._limits import counts_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandboxd_client import Answer, Client, Daemon

pytestmark = pytest.mark.namespaces

MIB = 1 << 20
MEMORY_BOMB = "import time\nkept = []\nwhile True: kept.append(bytearray(4 << 20)); time.sleep(0.005)"
FORK_BOMB = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.05)"
"""Forks that fail cost the kernel's memory, which it frees in its own time: without a pause that limit is hit too."""


@pytest.fixture(params=["namespaces", "user", "none"])
def limited(request: pytest.FixtureRequest, start: Callable[..., Daemon]) -> Iterator[Client]:
    """A session whose slot 0 has small limits, at each level."""
    if request.param == "user" and os.geteuid() != 0:
        pytest.skip("level user needs root")
    daemon = start("--isolation", request.param, capacity=2)
    client = daemon.client()
    limits = {"memory_bytes": 96 * MIB, "processes": 24, "file_bytes": 8 * MIB, "open_files": 64}
    client.open(0, limits={**limits, "workspace_bytes": 24 * MIB}, network="host")
    yield client
    daemon.stop()


def python(client: Client, code: str, **params: Any) -> Answer:  # noqa: ANN401 - as of slot.exec
    return client.call("slot.exec", slot=0, argv=["python3", "-c", code], **params)


def test_memory(limited: Client) -> None:
    done = python(limited, MEMORY_BOMB)
    assert (done["limit"], done["signal"], done["exit_code"]) == ("memory", signal.SIGKILL, None)
    behind_a_shell = limited.call("slot.exec", slot=0, argv=["sh", "-c", 'python3 -c "$0"; exit 3', MEMORY_BOMB])
    assert (behind_a_shell["limit"], behind_a_shell["exit_code"]) == ("memory", 3)
    afterwards = limited.sh("echo well")
    assert (afterwards.stdout, afterwards["limit"]) == (b"well\n", None)


def test_processes(limited: Client) -> None:
    done = python(limited, FORK_BOMB, timeout_s=3)
    assert done["timed_out"]
    assert done["limit"] == "processes"
    afterwards = limited.sh("echo well")
    assert (afterwards.stdout, afterwards["limit"]) == (b"well\n", None)


def test_size_of_a_file(limited: Client) -> None:
    done = limited.sh("head -c 20000000 /dev/zero > big")
    assert done["limit"] == "file_size"
    assert limited.sh("stat -c %s big").stdout == b"%d\n" % (8 * MIB)
    assert limited.upload("slot.write", bytes(9 * MIB), slot=0, path="other").kind == "no_space"


def test_exit_codes_that_look_like_limits_are_none(client: Client) -> None:
    for code in (137, 152, 153):
        done = client.sh(f"exit {code}")
        assert (done["exit_code"], done["limit"]) == (code, None)


def test_open_files(limited: Client) -> None:
    code = "import os\ntry:\n    while True: last = os.open('/dev/null', 0)\nexcept OSError as e: print(last, e.errno)"
    assert python(limited, code).stdout == b"63 24\n"


def test_size_of_the_workspace(limited: Client) -> None:
    done = limited.sh("i=0; while :; do i=$((i+1)); head -c 4000000 /dev/zero > f$i; sleep 0.05; done", timeout_s=20)
    assert (done["limit"], done["signal"]) == ("workspace", signal.SIGKILL)
    tidying = limited.sh("sleep 0.7; rm f*; echo well")
    assert (tidying.stdout, tidying["limit"]) == (b"well\n", None)
    assert limited.sh("sleep 0.8; echo well")["limit"] is None


def test_the_workspace_is_measured_though_others_make_room(client: Client, shared_daemon: Daemon) -> None:
    client.open(1, limits={"workspace_bytes": 24 * MIB})
    others = Path(shared_daemon.state) / "others"
    size = 600 * MIB
    with others.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        fill = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); head -c 4000000 /dev/zero > f$i || exit; sleep 0.1; done"
        request = client.send("slot.exec", slot=1, argv=["sh", "-c", fill], timeout_s=60)
        while size > 8 * MIB:
            size -= 8 * MIB
            file.truncate(size)
            time.sleep(0.1)
    others.unlink()
    done = client.wait(request)
    assert done["limit"] == "workspace", done
    client.call("slot.reset", slot=1)


STOPPER = """
import glob, os, signal
while True:
    for path in glob.glob("/proc/[0-9]*"):
        try:
            open(path + "/environ", "rb").close()
        except PermissionError:
            # Nobody may look into what the supervisor forks, but whoever has its user may stop it.
            if path != "/proc/1":
                os.kill(int(path[6:]), signal.SIGSTOP)
        except OSError:
            pass
"""


def test_whoever_stops_the_measuring_is_stopped(client: Client) -> None:
    client.open(1, limits={"workspace_bytes": 16 * MIB})
    write = "i=0; while :; do i=$((i+1)); head -c 4000000 /dev/zero > f$i; sleep 0.1; done"
    done = client.sh(f"python3 -c '{STOPPER}' & {write}", slot=1, timeout_s=15)
    assert (done["limit"], done["signal"]) == ("workspace", signal.SIGKILL)
    client.call("slot.reset", slot=1)


def test_processor_time(limited: Client) -> None:
    done = limited.sh("while :; do :; done", cpu_s=1, timeout_s=20)
    assert (done["limit"], done["signal"]) == ("cpu", signal.SIGXCPU)
    stubborn = python(limited, "import signal\nsignal.signal(24, signal.SIG_IGN)\nwhile True: pass", cpu_s=1)
    assert (stubborn["limit"], stubborn["signal"]) == ("cpu", signal.SIGKILL)
    assert limited.sh("echo well", cpu_s=1).stdout == b"well\n"


def test_descriptors_and_core_files_are_as_they_should_be(limited: Client) -> None:
    assert limited.sh("ulimit -c").stdout == b"0\n"
    assert limited.sh("ls /proc/self/fd | wc -l").stdout == b"4\n"


def test_limits_that_cannot_be_are_refused(client: Client) -> None:
    for limits in ({"memory_bytes": 0}, {"memory_bytes": "1G"}, {"tmp_bytes": None}, {"workspace": "ram"}, {"x": 1}):
        assert client.call("slot.open", slot=1, limits=limits).kind == "bad_request"
    client.open(1, limits={"memory_bytes": None, "processes": None, "file_bytes": None})
    assert client.sh("echo well", slot=1).stdout == b"well\n"
    client.call("slot.reset", slot=1)


def test_a_workspace_in_memory_is_exact(client: Client) -> None:
    client.open(1, limits={"workspace": "tmpfs", "workspace_bytes": 4 * MIB})
    client.sh("head -c 9000000 /dev/zero > big", slot=1)
    assert client.sh("stat -c %s big; touch a && echo fits", slot=1).stdout.split()[0] == b"%d" % (4 * MIB)
    assert client.call("slot.grade", slot=1).kind == "bad_request"
    client.call("slot.reset", slot=1)


def test_a_slot_that_dies_of_its_memory_says_so(client: Client) -> None:
    client.open(1, limits={"memory_bytes": 64 * MIB, "tmp_bytes": 512 * MIB})
    # Files in memory stay when the process that wrote them is killed: in the end nobody is left to be killed.
    answers = [client.sh("head -c 300000000 /dev/zero > /tmp/big; echo lived", slot=1) for _ in range(3)]
    limits = [answer["limit"] if answer.error is None else answer.error["data"].get("limit") for answer in answers]
    assert "memory" in limits
    assert client.call("slot.reset", slot=1)["clean"]
    client.open(1)
    assert client.sh("echo well", slot=1).stdout == b"well\n"
    client.call("slot.reset", slot=1)


def test_health_says_what_holds_and_by_what(client: Client) -> None:
    limits = client.call("health")["limits"]
    assert {"memory_bytes", "processes", "cpu", "workspace_bytes", "system_calls"} <= limits.keys()
    assert client.hello["limits"] == limits


def test_without_control_groups_a_watchdog_holds_memory(start: Callable[..., Daemon]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to start a daemon of an ordinary user")
    daemon = start(user=4242, command=["/usr/bin/python3", "-I", "-S", *daemon_package()])
    client = daemon.client()
    assert "watchdog" in client.hello["limits"]["memory_bytes"]
    client.open(0, limits={"memory_bytes": 96 * MIB})
    done = python(client, MEMORY_BOMB)
    assert (done["limit"], done["signal"]) == ("memory", signal.SIGKILL)
    # Whether the watchdog looks in time or not: there is more to be had than the limit, but not twice as much.
    for code in ("bytearray(150 << 20)", "[bytearray(1 << 20) for _ in range(400)]"):
        assert client.sh(f"python3 -c '{code}' 2>/dev/null; true")["limit"] == "memory", code
    client.open(1, limits={"memory_bytes": 8 * MIB})
    assert client.sh("echo well", slot=1)["limit"] is None
    files = client.sh("head -c 200000000 /dev/zero > /tmp/big; sleep 5")
    assert files["limit"] == "memory"
    background = client.sh(f"python3 -c '{MEMORY_BOMB}' & true")
    assert background["exit_code"] == 0
    wait_until(lambda: client.sh("pgrep -f bytearray | grep -v $$")["exit_code"] != 0)
    daemon.stop()


def daemon_package() -> list[str]:
    import hermes_sandboxd

    return [str(Path(hermes_sandboxd.__file__).parent)]


@pytest.mark.parametrize(
    ("release", "counts"), [("4.18.0-553.el8.x86_64", False), ("5.4.0-1", False), ("5.14.0-427", True), ("6.18+", True)]
)
def test_processes_are_limited_where_only_the_slots_own_are_counted(
    monkeypatch: pytest.MonkeyPatch, release: str, counts: bool
) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", release, "#1", "x86_64")))
    assert counts_processes("namespaces", own_user=False) is counts
    assert counts_processes("namespaces", own_user=True)
    assert counts_processes("user", own_user=True)
    assert not counts_processes("none", own_user=False)


def test_no_control_group_is_left(start: Callable[..., Daemon]) -> None:
    for end in ("stop", "kill"):
        daemon = start()
        client = daemon.client()
        client.open(0)
        name = f"hermes-{daemon.ready['daemon_id'][:12]}"
        if not groups(name):
            pytest.skip("control groups cannot be made here")
        if end == "stop":
            daemon.stop()
        else:
            daemon.process.kill()
            deadline = time.monotonic() + 20
            while groups(name) and time.monotonic() < deadline:
                time.sleep(0.01)
        assert not groups(name)


def groups(name: str) -> list[Path]:
    return [*Path("/sys/fs/cgroup").glob(f"**/{name}*")]
