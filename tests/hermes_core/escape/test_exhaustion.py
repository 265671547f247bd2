"""Using things up: the other slot and the host must not notice, and the next lease starts afresh."""

from __future__ import annotations

import os
import resource
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.hermes_core.conftest import processes_with

from hermes_core.exceptions import SlotDeadError, UsageError

if TYPE_CHECKING:
    from tests.hermes_core.escape.conftest import Attacker, Field

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


def resident_bytes(pid: int) -> int:
    """The memory of a process, 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (FileNotFoundError, ProcessLookupError):
        return 0


def terminals_in_use() -> int:
    return int(Path("/proc/sys/kernel/pty/nr").read_text())


@pytest.mark.parametrize(
    "command",
    ["dd if=/dev/zero bs=1M count=10000", "yes & yes >&2"],
)
async def test_endless_output_costs_no_memory(field: Field, attacker: Attacker, victim: Attacker, command: str) -> None:
    before = {pid: resident_bytes(pid) for pid in [os.getpid(), *processes_with(field.pool.owner)]}
    done = await attacker.sh(command, timeout_s=4)
    assert done.timed_out or done.stdout_bytes + done.stderr_bytes > 10_000_000_000
    assert done.truncated
    assert len(done.stdout) + len(done.stderr) < 3 << 20
    for pid, size in before.items():
        assert resident_bytes(pid) - size < 32 << 20


async def test_a_fork_bomb_stays_in_its_slot(attacker: Attacker, victim: Attacker) -> None:
    # Written so that the parser of the shell does not take it for a comment: a function that pipes itself into itself.
    done = await attacker.sh("bomb() { bomb | bomb & }; bomb; sleep 9", timeout_s=1.5)
    assert done.exit_code != 0
    assert (await victim.sh("echo in time", timeout_s=20)).stdout == "in time\n"


async def test_processes_are_counted(attacker: Attacker, victim: Attacker) -> None:
    outcomes = await attacker.outcomes(
        """
children = []
def fork():
    while len(children) < 2000:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
attempt('fork', fork)
for child in children:
    os.kill(child, 9)
"""
    )
    assert outcomes["fork"] == "EAGAIN"


@pytest.mark.parametrize(
    "grow",
    [
        "kept = []\nwhile True: kept.append(bytearray(64 << 20))",
        "for _ in range(4):\n    os.fork()\nkept = []\nwhile True: kept.append(bytearray(16 << 20))",
        "import mmap\nshared = mmap.mmap(-1, 6 << 30)\nfor at in range(0, 6 << 30, 4096): shared[at] = 1",
        "file = os.memfd_create('x')\nwhile True: os.write(file, bytes(64 << 20))",
        "for path in ('/tmp/f', '/dev/shm/f', '/home/agent/f'):\n"
        "    os.system(f'head -c 500000000 /dev/zero > {path}')\n"
        "kept = []\nwhile True: kept.append(bytearray(64 << 20))",
    ],
)
async def test_a_memory_bomb_ends_alone(attacker: Attacker, victim: Attacker, grow: str) -> None:
    try:
        done = await attacker.python(grow, timeout_s=20)
        breached = done.limit
        assert done.exit_code != 0
        assert not done.timed_out
    except SlotDeadError as error:
        breached = error.limit
    assert breached == "memory"
    assert (await victim.sh("echo unharmed")).stdout == "unharmed\n"


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/dev/shm", "/home/agent"])
async def test_private_places_fill_up_alone(attacker: Attacker, victim: Attacker, folder: str) -> None:
    free = shutil.disk_usage("/tmp").free
    done = await attacker.sh(f"head -c 2000000000 /dev/zero > {folder}/f; stat -c %s {folder}/f")
    assert int(done.stdout) <= 512 << 20
    assert "No space" in done.stderr
    assert (await victim.sh(f"head -c 1000000 /dev/zero > {folder}/f && echo room")).stdout == "room\n"
    assert free - shutil.disk_usage("/tmp").free < 256 << 20


async def test_inodes_of_a_private_place_are_given_back(attacker: Attacker, victim: Attacker) -> None:
    done = await attacker.python(
        """
end = time.monotonic() + 1
try:
    for number in range(1000000):
        os.symlink('x', f'/tmp/{number}')
        if time.monotonic() > end:
            break
except OSError:
    pass
print('made')
"""
    )
    assert done.stdout == "made\n"
    assert (await victim.sh("touch /tmp/a && echo room")).stdout == "room\n"


@pytest.mark.parametrize(
    "take",
    [
        "os.open('/dev/null', os.O_RDONLY)",
        "os.pipe()",
        "socket.socketpair()",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "os.memfd_create('x')",
        "os.eventfd(0)",
        "_libc.inotify_init()",
        "__import__('select').epoll()",
        "__import__('tempfile').TemporaryFile()",
    ],
)
async def test_descriptors_run_out_for_one_process_only(attacker: Attacker, victim: Attacker, take: str) -> None:
    done = await attacker.python(
        f"""
kept = []
try:
    while len(kept) < 200000:
        found = {take}
        if found == -1:
            raise OSError(ctypes.get_errno(), '')
        kept.append(found)
except OSError as error:
    os.write(1, errno.errorcode.get(error.errno, '?').encode())
    os._exit(0)
"""
    )
    assert done.stdout in ("EMFILE", "ENFILE", "ENOMEM"), done
    assert (await victim.sh("cat /etc/hostname")).exit_code == 0
    os.close(os.open("/dev/null", os.O_RDONLY))


async def test_sockets_in_flight_are_given_back(attacker: Attacker) -> None:
    done = await attacker.python(
        """
import array
left, right = socket.socketpair()
try:
    for _ in range(100000):
        one, other = socket.socketpair()
        one.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [left.fileno(), other.fileno()]))])
        left, right = one, other
except OSError as error:
    print('refused')
os._exit(0)
"""
    )
    assert done.exit_code == 0


async def test_terminals_do_not_run_out_for_others(attacker: Attacker, victim: Attacker) -> None:
    done = await attacker.python(
        """
for _ in range(16):
    if os.fork() == 0:
        os.close(1)
        kept = []
        try:
            while True:
                kept.append(os.open('/dev/ptmx', os.O_RDWR))
        except OSError:
            time.sleep(60)
        os._exit(0)
time.sleep(0.5)
attempt('one more', os.open, '/dev/ptmx', os.O_RDWR)
"""
    )
    assert done.stdout == "one more: ENOSPC\n"
    # The processes live on, and hold what they have.
    assert "success" in (await victim.outcomes("attempt('open', os.openpty)"))["open"]
    first, second = os.openpty()
    os.close(first)
    os.close(second)


async def test_terminals_are_the_hosts_again_at_once(attacker: Attacker) -> None:
    await attacker.python("kept = [os.open('/dev/ptmx', os.O_RDWR) for _ in range(500)]\ntime.sleep(9)", timeout_s=0.5)
    assert terminals_in_use() < 400


async def test_pipes_are_not_made_large(attacker: Attacker) -> None:
    await attacker.fails("reading, writing = os.pipe()\nattempt('large', fcntl.fcntl, writing, 1031, 64 << 20)")


async def test_processors_are_shared(attacker: Attacker, victim: Attacker) -> None:
    await attacker.sh("for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) > /dev/null 2>&1 & done")
    start = time.monotonic()
    assert (await victim.sh("echo in time", timeout_s=20)).stdout == "in time\n"
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("size", [65_000, 65_300, 65_400, 65_500, 70_000, 1_000_000])
async def test_commands_of_any_length_cost_no_slot(attacker: Attacker, size: int) -> None:
    command = ": " + "x" * size
    try:
        assert (await attacker.sh(command)).exit_code == 0
    except UsageError:
        assert size > 65_000
    assert (await attacker.sh("echo alive")).stdout == "alive\n"


async def test_names_and_numbers_that_no_file_has(attacker: Attacker) -> None:
    for command in (["\udcff\ud800"], ["/"], ["."], ["a" * 300], ["x/" * 3000], ["\udcff"], [""]):
        try:
            assert (await attacker.slot.exec(command)).exit_code in (126, 127)
        except UsageError:
            assert command == [""]
    for cwd in ("\ud800", "a" * 5000, "/proc/1/cwd", "/proc/self/fd/0", "/dev/null"):
        assert (await attacker.slot.exec("true", cwd=cwd)).exit_code == 126
