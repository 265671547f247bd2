"""Makes the namespaces of a slot with bubblewrap, and moves the calling process into them."""

from __future__ import annotations

import json
import os
import select
import signal
from typing import Any, NamedTuple

from hermes_sandboxd import _linux
from hermes_sandboxd._bubblewrap import INFO_DESCRIPTOR
from hermes_sandboxd._seccomp import install_filter

_SETUP_S = 10.0
# As many as there are jobs, and as many again for programs inside that open their own.
_MOST_TERMINALS = 128
_NAMES = ("mnt", "pid", "ipc", "uts", "net", "cgroup")


class NamespaceError(Exception):
    """The namespaces could not be made or joined; the message says what refused."""


class Joined(NamedTuple):
    """What the supervisor keeps of a slot that it has joined."""

    init_pid: int
    init_pidfd: int
    """PID 1 of the slot, or this process if the slot has none: killing it ends the slot."""
    leash: int
    """Write end of PID 1's standard input: PID 1 ends, and the slot with it, when nobody holds it any more."""
    oom_score: int
    memory: tuple[int, ...]
    """Descriptors of smaps_rollup: this process and PID 1."""
    monitor: int
    """Pid of a child that was killed and is still to be reaped; 0 if there is none."""
    children: int
    """Descriptor of the file that lists this process's children; -1 where the kernel has none."""


def open_children() -> int:
    """Open the file that lists this process's children; -1 where the kernel has none."""
    try:
        return os.open("/proc/thread-self/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def read_children(listing: int) -> list[int]:
    """Return the pids in a file that `open_children` has opened."""
    return [int(pid) for pid in os.pread(listing, 1 << 20, 0).split()]


def join(spec: dict[str, Any]) -> Joined:
    """Become the slot's user, make its namespaces, enter them and give up every privilege.

    Args:
        spec: `argv` of bubblewrap; `uid` to become or None; `seccomp`, whether to install the filter.

    Raises:
        NamespaceError: Namespaces cannot be had here.
    """
    _linux.set_child_subreaper()
    # Opened now: after the next steps this process may no longer open its own files in the host's /proc.
    oom_score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    children = open_children()
    memory = [os.open("/proc/self/smaps_rollup", os.O_RDONLY | os.O_CLOEXEC)]
    if spec["uid"] is not None:
        _become(spec["uid"])
    monitor, init_pid, leash = _run_bubblewrap(spec["argv"], children)
    try:
        pidfd = os.pidfd_open(init_pid)
        try:
            memory.append(os.open(f"/proc/{init_pid}/smaps_rollup", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            pass
        _enter(init_pid)
        _linux.drop_capabilities()
        _linux.set_no_new_privileges()
        if spec["seccomp"]:
            install_filter()
        _linux.set_not_dumpable()
    except OSError as error:
        raise NamespaceError(f"the namespaces were made, but cannot be joined: {error}") from None
    finally:
        # PID 1 outlives the process that watches over it, which has no further use and costs memory.
        os.kill(monitor, signal.SIGKILL)
    os.umask(0o022)
    return Joined(init_pid, pidfd, leash, oom_score, tuple(memory), monitor, children)


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _run_bubblewrap(argv: list[str], children: int) -> tuple[int, int, int]:
    init_input, leash = os.pipe()
    echo, init_output = os.pipe()
    errors, error_output = os.pipe()
    info, info_output = os.pipe()
    for descriptor in (init_input, init_output, error_output, info_output):
        # The numbers 0 to 3 are the targets of the duplication below.
        if descriptor <= 3:
            raise NamespaceError("the descriptors 0 to 3 of the supervisor must be open")
    actions = [
        (os.POSIX_SPAWN_DUP2, init_input, 0),
        (os.POSIX_SPAWN_DUP2, init_output, 1),
        (os.POSIX_SPAWN_DUP2, error_output, 2),
        (os.POSIX_SPAWN_DUP2, info_output, INFO_DESCRIPTOR),
    ]
    # PID 1 inherits that SIGCHLD is ignored, so that the kernel itself reaps the orphans of the slot.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        monitor = os.posix_spawn(argv[0], argv, {}, file_actions=actions)
    except OSError as error:
        raise NamespaceError(f"cannot run {argv[0]}: {error.strerror}") from None
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (init_input, init_output, error_output, info_output):
            os.close(descriptor)
    try:
        return monitor, _await_init(leash, echo, errors, info), leash
    except (OSError, NamespaceError) as error:
        _give_up(monitor, children)
        raise error if isinstance(error, NamespaceError) else NamespaceError(_failure(errors)) from None
    finally:
        for descriptor in (echo, errors, info):
            os.close(descriptor)


def _await_init(leash: int, echo: int, errors: int, info: int) -> int:
    # PID 1 is a `cat`: when it echoes, bubblewrap has finished and has become it.
    os.write(leash, b"\n")
    ready, _, _ = select.select([echo], [], [], _SETUP_S)
    if not ready or not os.read(echo, 1):
        raise NamespaceError(_failure(errors))
    return int(json.loads(os.read(info, 4096))["child-pid"])


def _give_up(monitor: int, children: int) -> None:
    """End bubblewrap, and whoever was to become PID 1, who waits for its word for ever and has become our child."""
    os.kill(monitor, signal.SIGKILL)
    os.waitpid(monitor, 0)
    for pid in read_children(children) if children >= 0 else ():
        os.kill(pid, signal.SIGKILL)


def _failure(errors: int) -> str:
    ready, _, _ = select.select([errors], [], [], 0.2)
    text = os.read(errors, 2000).decode(errors="replace").strip() if ready else ""
    return text or f"bubblewrap did not finish within {_SETUP_S:.0f} s"


def _enter(pid: int) -> None:
    opened = {name: os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in (*_NAMES, "user")}
    # bubblewrap makes a second user namespace inside the one that owns everything else: `--disable-userns`.
    owner = _linux.owning_user_namespace(opened["mnt"])
    # Compared before the first is joined, since this process is not in the slot's /proc. A slot that shares the
    # host's network has the same one, which needs no joining and would be refused.
    new = [name for name in _NAMES if os.fstat(opened[name]).st_ino != os.stat(f"/proc/self/ns/{name}").st_ino]
    try:
        _linux.set_namespace(owner)
        for name in new:
            _linux.set_namespace(opened[name])
        # The kernel counts the terminals of all slots together: without a share, one slot could take them all.
        _linux.limit_terminals("/dev/pts", _MOST_TERMINALS)
        _linux.set_namespace(opened["user"])
    finally:
        os.close(owner)
        for descriptor in opened.values():
            os.close(descriptor)
