"""Processes of the host, of the daemon and of other slots."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.hermes_core.conftest import process_with, processes_with

if TYPE_CHECKING:
    from tests.hermes_core.escape.conftest import Attacker, Field, Outsider

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


def supervisors(field: Field) -> set[int]:
    """The daemon and what it forked, as the host sees them; not the forks of a moment that become a slot's own."""
    return {pid for pid in processes_with(field.pool.owner) if len(numbers(pid)) == 1}


def numbers(pid: int) -> list[int]:
    """The numbers of a process in the pid namespaces that it is seen from, its own last; none when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(number) for number in status.partition("NSpid:")[2].splitlines()[0].split()]


def inner_pid(pid: int) -> int:
    """The number of a process within its own pid namespace."""
    return numbers(pid)[-1]


async def test_only_its_own_processes_are_seen(attacker: Attacker, victim: Attacker) -> None:
    marker = f"4{uuid.uuid4().int % 10**9:09d}"
    await victim.sh(f"sleep {marker} > /dev/null 2>&1 &")
    await process_with(marker)
    done = await attacker.python(
        """
for name in os.listdir('/proc'):
    if name.isdigit():
        print(read(f'/proc/{name}/cmdline').replace(b'\\0', b' ').decode()[:60].replace('\\n', ' '))
"""
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("/.hermes/cat")]
    assert len(lines) == 2, lines
    assert marker not in done.stdout
    assert len(processes_with(marker)) == 1


@pytest.mark.parametrize(
    "attempts",
    [
        "attempt('kill', os.kill, TARGET, 9); attempt('group', os.killpg, TARGET, 9)",
        "attempt('stop', os.kill, TARGET, 19)",
        "tried('pidfd_open', TARGET, 0)",
        "tried('ptrace', 16, TARGET, 0, 0); tried('ptrace', 0x4206, TARGET, 0, 0)",
        "buffer = ctypes.create_string_buffer(16)\n"
        "vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 16)\n"
        "tried('process_vm_readv', TARGET, vector, 1, vector, 1, 0)\n"
        "tried('process_vm_writev', TARGET, vector, 1, vector, 1, 0)",
        "tried('kcmp', TARGET, os.getpid(), 0, 0, 0)",
        "import resource\nattempt('prlimit', resource.prlimit, TARGET, resource.RLIMIT_NOFILE, (0, 0))",
        "attempt('nice', os.setpriority, os.PRIO_PROCESS, TARGET, 19)",
        "attempt('affinity', os.sched_setaffinity, TARGET, {0})",
        "attempt('proc', os.listdir, f'/proc/{TARGET}')",
        "reading, writing = os.pipe()\nattempt('owner', fcntl.fcntl, reading, fcntl.F_SETOWN, TARGET)",
        "tried('ioprio_set', 1, TARGET, 3 << 13)",
    ],
)
async def test_a_process_of_the_host_with_the_same_user(attacker: Attacker, outsider: Outsider, attempts: str) -> None:
    await attacker.fails(f"TARGET = {outsider.pid}\n{attempts}")


@pytest.mark.parametrize(
    "attempts",
    [
        "tried('ptrace', 16, 1, 0, 0); tried('ptrace', 0x4206, 1, 0, 0)",
        "for name in ('mem', 'maps', 'environ', 'fd', 'root', 'cwd', 'exe', 'syscall', 'stack', 'map_files', 'io'):\n"
        "    path = '/proc/1/' + name\n"
        "    attempt(name, lambda: os.listdir(path) if os.path.isdir(path) else read(path))",
        "descriptor = syscall('pidfd_open', 1, 0)\n"
        "for number in range(4):\n    tried('pidfd_getfd', descriptor, number, 0)",
        "tried('setns', syscall('pidfd_open', 1, 0), 0x20000000)",
        "buffer = ctypes.create_string_buffer(16)\n"
        "vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 16)\n"
        "tried('process_vm_readv', 1, vector, 1, vector, 1, 0)",
    ],
)
async def test_pid_1_gives_nothing_away(attacker: Attacker, attempts: str) -> None:
    await attacker.fails(attempts)


@pytest.mark.parametrize("number", ["SIGKILL", "SIGSTOP", "SIGTERM", "SIGHUP", "SIGUSR1"])
async def test_signals_to_everything_end_nobody_else(attacker: Attacker, victim: Attacker, number: str) -> None:
    await attacker.python(
        f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN) if signal.{number} != signal.SIGKILL else None
for target in (-1, 1, 0):
    try:
        os.kill(target, signal.{number})
    except OSError:
        pass
for target in range(2, 40000):
    if target != os.getpid():
        try:
            os.kill(target, signal.{number})
        except OSError:
            pass
""",
        timeout_s=1,
    )
    assert (await victim.sh("echo unharmed")).stdout == "unharmed\n"
    assert (await attacker.sh("echo alive")).stdout == "alive\n"


async def test_the_daemon_outlives_everything(field: Field, attacker: Attacker) -> None:
    before = supervisors(field)
    assert before
    await attacker.sh("kill -9 -1; kill -9 1; kill -19 1; kill -9 0")
    assert supervisors(field) == before


async def test_a_timeout_ends_what_was_stopped(field: Field, attacker: Attacker) -> None:
    marker = f"4{uuid.uuid4().int % 10**9:09d}"
    done = await attacker.sh(f"for i in 1 2 3; do setsid sleep {marker} & done; kill -STOP -1; sleep {marker}", 0.3)
    assert done.exit_code is None
    assert not processes_with(marker)


async def test_priorities_are_not_raised(attacker: Attacker) -> None:
    await attacker.fails(
        """
import resource
attempt('nice', os.nice, -20)
attempt('setpriority', os.setpriority, os.PRIO_PROCESS, 0, -1)
attempt('fifo', os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
attempt('rr', os.sched_setscheduler, 0, os.SCHED_RR, os.sched_param(99))
tried('ioprio_set', 1, 0, 1 << 13)
for name in ('NOFILE', 'NPROC', 'CORE', 'FSIZE', 'AS', 'RTPRIO', 'NICE', 'MEMLOCK'):
    limit = getattr(resource, 'RLIMIT_' + name)
    soft, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        def lift():
            try:
                resource.setrlimit(limit, (hard, resource.RLIM_INFINITY))
            except ValueError as error:
                raise OSError(1, str(error))
        attempt(name, lift)
"""
    )


async def test_its_processes_are_never_spared_before_those_of_the_host(attacker: Attacker) -> None:
    # Down to 0 the kernel lets every process go again; below it would be favoured.
    await attacker.fails(
        "for value in ('-1000', '-500', '-1'):\n    attempt(value, write, '/proc/self/oom_score_adj', value)"
    )


async def test_preloading_reaches_nobody_else(attacker: Attacker) -> None:
    await attacker.sh(
        """
        for name in sh cat env python3 ls true sleep; do
            printf '#!/bin/sh\\ntouch /workspace/caught; exec false' > $name; chmod 755 $name; cp $name ~/
        done
        for file in ~/.bashrc ~/.profile ~/.bash_profile ~/.shrc .env; do echo 'touch /workspace/caught' > $file; done
        for file in sitecustomize.py usercustomize.py os.py json.py; do echo 'open("caught", "w")' > $file; done
        echo garbage > lib.so
        """
    )
    assert (await attacker.sh("echo fine")).stdout == "fine\n"
    assert (await attacker.slot.exec(["cat", "/etc/hostname"])).exit_code == 0
    done = await attacker.slot.exec("echo fine", env={"LD_PRELOAD": "/workspace/lib.so", "PATH": "/workspace:/usr/bin"})
    assert done.stdout == "fine\n"
    await attacker.slot.write_file("x", "y")
    assert await attacker.slot.read_file("x") == b"y"
    with pytest.raises(Exception, match="caught"):
        await attacker.slot.read_file("caught")


async def test_ipc_is_each_slots_own(attacker: Attacker, victim: Attacker) -> None:
    made = await victim.python(
        """
from multiprocessing import shared_memory
print(_libc.shmget(4242, 4096, 0o1666) >= 0, _libc.semget(4242, 1, 0o1666) >= 0, syscall('msgget', 4242, 0o1666) >= 0)
print(syscall('mq_open', b'hermes', 0o102, 0o666, None) >= 0)
memory = shared_memory.SharedMemory('hermes', True, 4096); os._exit(print('ok', flush=True) or 0)
"""
    )
    assert made.stdout.split() == ["True", "True", "True", "True", "ok"], made
    await attacker.fails(
        """
def found(number):
    if number < 0:
        raise OSError(ctypes.get_errno(), '')
attempt('shm', lambda: found(_libc.shmget(4242, 4096, 0o666)))
attempt('sem', lambda: found(_libc.semget(4242, 1, 0o666)))
tried('msgget', 4242, 0o666)
tried('mq_open', b'hermes', 2, 0, None)
attempt('memory', open, '/dev/shm/hermes')
"""
    )


async def test_processes_of_another_slot_are_out_of_reach(attacker: Attacker, victim: Attacker) -> None:
    marker = f"4{uuid.uuid4().int % 10**9:09d}"
    await victim.sh(f"sleep {marker} > /dev/null 2>&1 &")
    target = await process_with(marker)
    inner = inner_pid(target)
    await attacker.fails(
        f"for target in ({target}, {inner}):\n"
        "    if target != os.getpid():\n"
        "        attempt(f'kill {target}', os.kill, target, 9)\n"
        "        tried('ptrace', 16, target, 0, 0)\n"
        "        attempt(f'open {target}', read, f'/proc/{target}/environ')\n"
    )
    assert processes_with(marker) == [target]
    os.kill(target, 9)
