"""Attempts to get out of a slot that has a user of its own but no namespaces."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sandboxd_client import Daemon, is_alive, processes_with, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxd_client import Client

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give slots users of their own")

PRELUDE = (Path(__file__).parents[1] / "hermes_core" / "escape" / "prelude.py").read_text()
SHARED = ("/tmp", "/var/tmp", "/dev/shm")


class Battle:
    """Slot 0 attacks, slot 1 is attacked."""

    def __init__(self, daemon: Daemon, client: Client) -> None:
        self.daemon = daemon
        self.client = client
        self.marker = f"4{uuid.uuid4().int % 10**9:09d}"
        self.client.sh(f"sleep {self.marker} > /dev/null 2>&1 & echo mine > f; chmod 600 f; echo mine > ~/f", slot=1)
        wait_until(lambda: bool(processes_with(self.marker)))  # the shell may be done before its child is a `sleep`
        (self.victim,) = processes_with(self.marker)
        self.users = [int(client.sh("id -u", slot=slot).stdout) for slot in (0, 1)]
        self.folder = client.sh("pwd", slot=1).stdout.decode().strip()
        self.home = client.sh("cd ~; pwd", slot=1).stdout.decode().strip()

    @property
    def supervisors(self) -> list[int]:
        """Everything of the daemon's that is not a slot's own."""
        parents = [self.daemon.process.pid, *self.daemon.descendants()]
        return [pid for pid in parents if real_user(pid) == 0]

    def outcomes(self, source: str) -> dict[str, str]:
        # In a file, since the command line of every process is there for all to see.
        self.client.call("slot.write", (PRELUDE + source).encode(), slot=0, path="attack.py")
        done = self.client.sh("exec /usr/bin/python3 attack.py")
        assert done["exit_code"] == 0, done
        return dict(line.split(": ", 1) for line in done.stdout.decode().splitlines())

    def fails(self, source: str) -> None:
        outcomes = self.outcomes(source)
        assert outcomes
        assert not [name for name, outcome in outcomes.items() if outcome.startswith("success")], outcomes


def ipc_of(user: int) -> set[tuple[str, str]]:
    """Kind and number of what System V IPC keeps for a user."""
    found = set()
    for kind in ("shm", "sem", "msg"):
        lines = [line.split() for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()]
        found |= {(kind, line[1]) for line in lines[1:] if line[lines[0].index("uid")] == str(user)}
    return found


def real_user(pid: int) -> int:
    try:
        line = Path(f"/proc/{pid}/status").read_text().partition("\nUid:")[2].split()
    except FileNotFoundError:
        return -1
    return int(line[0])


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    daemon = Daemon("--isolation", "user", capacity=2)
    yield daemon
    daemon.stop()


@pytest.fixture(params=["none", "host"])
def battle(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Battle]:
    client = daemon.client(f"battle-{uuid.uuid4().hex}")
    for slot in (0, 1):
        client.open(slot, network=request.param)
    battle = Battle(daemon, client)
    yield battle
    assert is_alive(battle.daemon.process.pid)
    assert is_alive(battle.victim)
    assert client.sh("cat f ~/f; ls", slot=1).stdout == b"mine\nmine\nf\n"
    # 126: there is no folder to start in any more.
    assert client.sh("echo usable")["exit_code"] in (0, 126)
    for slot in (0, 1):
        assert client.call("slot.reset", slot=slot)["clean"]
    # Not by the user, who may be another slot's by now.
    assert processes_with(battle.marker) == []
    for folder in SHARED:
        assert [name for name in os.listdir(folder) if battle.marker in name] == []
    client.close()


def test_nobody_becomes_the_daemon(battle: Battle) -> None:
    status = battle.client.sh("cat /proc/self/status").stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {str(battle.users[0])}
    assert fields["Groups"].strip() == ""
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"].strip() == "1"
    battle.fails(
        f"""
for user in (0, 1, {battle.users[1]}, {battle.daemon.process.pid}):
    attempt(f'setuid {{user}}', os.setuid, user); attempt(f'seteuid {{user}}', os.seteuid, user)
    attempt(f'setreuid {{user}}', os.setreuid, -1, user); attempt(f'setresuid {{user}}', os.setresuid, user, user, user)
    attempt(f'saved {{user}}', os.setresuid, -1, -1, user); attempt(f'setgid {{user}}', os.setgid, user)
    attempt(f'setresgid {{user}}', os.setresgid, user, user, user); attempt(f'groups {{user}}', os.setgroups, [user])
"""
    )


@pytest.mark.parametrize("whom", ["supervisors", "victim"])
def test_other_processes_are_out_of_reach(battle: Battle, whom: str) -> None:
    targets = battle.supervisors if whom == "supervisors" else [battle.victim]
    assert targets
    battle.fails(
        f"""
buffer = ctypes.create_string_buffer(16)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 16)
for target in {targets!r} + [os.getppid(), 1]:
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT, 0):
        if number != signal.SIGCONT:
            attempt(f'kill {{target}} {{number}}', os.kill, target, number)
    tried('ptrace', 16, target, 0, 0); tried('ptrace', 0x4206, target, 0, 0)
    tried('process_vm_readv', target, vector, 1, vector, 1, 0)
    tried('process_vm_writev', target, vector, 1, vector, 1, 0)
    tried('kcmp', target, os.getpid(), 0, 0, 0)
    for name in ('mem', 'environ', 'maps', 'fd', 'cwd', 'root', 'exe', 'stack', 'ns/mnt', 'io', 'syscall'):
        path = f'/proc/{{target}}/{{name}}'
        attempt(path, lambda: os.listdir(path + '/') if name in ('fd', 'cwd', 'root') else read(path))
    attempt(f'score {{target}}', write, f'/proc/{{target}}/oom_score_adj', '1000')
    attempt(f'nice {{target}}', os.setpriority, os.PRIO_PROCESS, target, 19)
    attempt(f'affinity {{target}}', os.sched_setaffinity, target, {{0}})
    import resource
    attempt(f'limit {{target}}', lambda: resource.prlimit(target, resource.RLIMIT_NOFILE, (1, 1)))
    try:
        descriptor = os.pidfd_open(target)
    except OSError:
        continue
    attempt(f'pidfd {{target}}', signal.pidfd_send_signal, descriptor, 9)
    tried('pidfd_getfd', descriptor, 0, 0)
"""
    )


def test_files_of_other_slots_and_of_the_daemon_are_out_of_reach(battle: Battle) -> None:
    battle.fails(
        f"""
for path in ({battle.folder!r}, {battle.home!r}):
    attempt('list ' + path, os.listdir, path); attempt('enter ' + path, os.chdir, path)
    attempt('read ' + path, read, path + '/f'); attempt('plant ' + path, open, path + '/planted', 'w')
    attempt('remove ' + path, os.unlink, path + '/f'); attempt('rename ' + path, os.rename, path, path + '2')
    attempt('open ' + path, os.chmod, path, 0o777); attempt('link ' + path, os.link, path + '/f', 'linked')
for path in ({battle.daemon.state!r}, {battle.daemon.folder!r}, '/root', '/etc/shadow'):
    attempt('list ' + path, lambda: os.listdir(path) if os.path.isdir(path) and path == '/root' else read(path))
    attempt('plant ' + path, open, path + '/planted', 'w')
attempt('connect', socket.socket(socket.AF_UNIX).connect, {battle.daemon.socket!r})
"""
    )
    for path in (battle.folder, "/etc/shadow", "/root/.profile", f"/proc/{battle.daemon.process.pid}/environ"):
        battle.client.sh(f"rm -f link; ln -s {path} link")
        for name in (path, "link", f"{path}/f"):
            assert battle.client.call("slot.read", slot=0, path=name).error is not None
            assert battle.client.call("slot.write", b"x", slot=0, path=f"{name}/planted").error is not None
    for path in ("/proc/self/environ", "/proc/self/mem", "/proc/self/maps", "/proc/thread-self/environ"):
        assert battle.client.call("slot.read", slot=0, path=path).error is not None, path
        assert battle.client.call("slot.write", b"x", slot=0, path=path).error is not None, path


def test_its_own_folder_cannot_be_exchanged(battle: Battle) -> None:
    battle.client.sh("chmod 000 .; cd ..; rm -rf work home; mv work w; ln -s /etc work; chmod 777 .; touch planted")
    assert battle.client.sh("chmod 700 .").error is None


@pytest.mark.parametrize(
    "attempts",
    [
        "tried('add_key', b'user', b'hermes', b'x', 1, -4); tried('keyctl', 0, -3, 1); tried('keyctl', 0, -5, 1)",
        "tried('bpf', 0, struct.pack('4I', 2, 4, 4, 1) + bytes(112), 128); tried('userfaultfd', 1)",
        "tried('io_uring_setup', 8, ctypes.create_string_buffer(256))",
        "for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x10000000 | 0x20000):\n"
        "    attempt(hex(flag), syscall, 'unshare', flag)",
        "tried('mount', b'none', b'/tmp', b'tmpfs', 0, None); tried('chroot', b'/tmp'); tried('umount2', b'/proc', 2)",
        "for family in (socket.AF_VSOCK, 38, 15, 44):\n"
        "    attempt(str(family), socket.socket, family, socket.SOCK_STREAM)\n"
        "attempt('raw', socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)\n"
        "attempt('packet', socket.socket, 17, socket.SOCK_RAW, 0x0300)",
        "attempt('nice', os.nice, -1); attempt('fifo', os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))\n"
        "attempt('score', write, '/proc/self/oom_score_adj', '-1')",
        "for path in ('/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/dev/mem', '/dev/kmsg', '/dev/vda',\n"
        "             '/etc/passwd', '/etc/crontab', '/usr/bin/env', '/sys/fs/cgroup/cgroup.procs'):\n"
        "    attempt(path, os.open, path, os.O_WRONLY)",
        "import glob\nfor path in glob.glob('/dev/pts/[0-9]*') + ['/dev/tty', '/dev/tty0', '/dev/console']:\n"
        "    attempt(path, os.open, path, os.O_RDWR)",
        "master, slave = os.openpty()\nif os.fork() == 0:\n    os.setsid(); fcntl.ioctl(slave, 0x540E, 0)\n"
        "    NUMBERS['ioctl'] = 16 if platform.machine() == 'x86_64' else 29\n"
        "    for number in (0x5412, 0x5412 | 1 << 32):\n"
        "        attempt(hex(number), lambda: syscall('ioctl', slave, ctypes.c_ulong(number), b'x'))\n"
        "    os._exit(0)\nos.wait()",
    ],
)
def test_the_kernel_refuses(battle: Battle, attempts: str) -> None:
    battle.fails(attempts)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_signals_to_everything(battle: Battle, number: int) -> None:
    battle.client.sh(f"kill -{int(number)} -1; kill -{int(number)} 0", timeout_s=0.3)


def test_what_it_leaves_in_shared_folders_goes_with_it(battle: Battle) -> None:
    done = battle.client.sh(
        f"""
        for folder in /tmp /var/tmp /dev/shm; do
            cd $folder; mkdir -p {battle.marker}/a/b; echo x > {battle.marker}/a/f; chmod 000 {battle.marker}/a
            ln -s / $folder/{battle.marker}-link
            mkfifo $folder/{battle.marker}-fifo; touch "$folder/{battle.marker}
line" "$folder/-rf{battle.marker}"; chmod 000 $folder/{battle.marker}
        done
        python3 -c 'import os, sys
os.mkdir("/tmp/" + sys.argv[1]); os.chdir("/tmp/" + sys.argv[1])
for _ in range(1500): os.mkdir("d" * 20); os.chdir("d" * 20)' deep{battle.marker}
        echo planted
        """
    )
    assert done.stdout == b"planted\n"


def test_what_it_leaves_running_goes_with_it(battle: Battle) -> None:
    battle.client.sh(
        f"""
        exec > /dev/null 2>&1
        (trap '' HUP TERM INT; setsid sh -c 'while :; do sleep 1{battle.marker} & sleep 0.01; done') &
        for i in 1 2 3 4; do (while :; do (sleep 1{battle.marker} &); done) > /dev/null 2>&1 & done
        setsid nohup sh -c 'kill -STOP $$; sleep 1{battle.marker}' > /dev/null 2>&1 &
        sleep 0.2
        """
    )
    assert len(processes_with(battle.marker)) > 10


def test_shared_memory_and_queues_go_with_it(battle: Battle) -> None:
    source = """
print(_libc.shmget(0, 4096, 0o1600) >= 0, _libc.semget(0, 1, 0o1600) >= 0, syscall('msgget', 0, 0o1600) >= 0)
"""
    battle.client.call("slot.write", (PRELUDE + source).encode(), slot=0, path="leave.py")
    done = battle.client.sh("python3 leave.py")
    assert done.stdout.split() == [b"True"] * 3, done
    before = ipc_of(battle.users[0])
    battle.client.call("slot.reset", slot=0)
    battle.client.open(0)
    assert not before & ipc_of(battle.users[0])


def test_queues_that_nobody_would_find_again_are_refused(battle: Battle, request: pytest.FixtureRequest) -> None:
    outcomes = battle.outcomes("tried('mq_open', b'hermes', 0o102, 0o600, None)")
    has_own = request.node.callspec.params["battle"] == "none"
    assert outcomes["mq_open"].startswith("success" if has_own else "ENOSYS"), outcomes


def test_processes_that_multiply_are_all_ended_by_a_timeout(battle: Battle) -> None:
    done = battle.client.sh(f"while :; do (setsid sleep 1{battle.marker} &) ; done", timeout_s=0.3)
    assert done["timed_out"]
    assert processes_with(f"1{battle.marker}") == []
