"""Slots without namespaces of their own: the isolation levels `user` and `none`.

At the level `user` every slot has a user of its own. Its supervisor keeps the daemon's user where it counts for signals
and tracing (the real and the saved one), and acts on files with the slot's.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Any

from hermes_sandboxd import _linux
from hermes_sandboxd._namespaces import Joined, NamespaceError, open_children
from hermes_sandboxd._seccomp import install_filter

_CLONE_NEWIPC = 0x08000000
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def settle(spec: dict[str, Any]) -> Joined:
    """Become the supervisor of a slot that shares the daemon's namespaces.

    Args:
        spec: As of `_namespaces.join`, with `network` in the place of `argv`.

    Raises:
        NamespaceError: The network policy cannot be had here.
    """
    _linux.set_child_subreaper()
    oom_score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    children = open_children()
    memory = (os.open("/proc/self/smaps_rollup", os.O_RDONLY | os.O_CLOEXEC),)
    is_cut_off = spec["network"] == "none"
    if is_cut_off:
        _cut_off()
    uid = spec["uid"]
    try:
        if uid is not None:
            _linux.drop_bounding_set()
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(0, uid, 0)
        _linux.set_no_new_privileges()
        if spec["seccomp"]:
            install_filter(shares_queues=not is_cut_off)
        _linux.set_not_dumpable()
    except OSError as error:
        raise NamespaceError(f"the slot's user cannot be had: {error}") from None
    os.umask(0o022)
    return Joined(0, os.pidfd_open(os.getpid()), -1, oom_score, memory, 0, children)


def _cut_off() -> None:
    try:
        _linux.unshare(_CLONE_NEWNET | _CLONE_NEWIPC)
    except OSError as error:
        raise NamespaceError(
            f"network policy none cannot be had at this isolation level: {error}; ask for network host, or give "
            "the daemon CAP_SYS_ADMIN"
        ) from None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack("16xH", fcntl.ioctl(handle, _SIOCGIFFLAGS, name + bytes(16))[:18])[0]
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14x", name, flags | _IFF_UP))
