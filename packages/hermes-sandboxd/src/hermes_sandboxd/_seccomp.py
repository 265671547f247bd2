"""A filter for the system calls that agents never need, and that have been the way out of many a sandbox.

What is refused fails with EPERM, as it does for anybody without privileges. `clone3`, whose flags a filter cannot
see, fails with ENOSYS, upon which C libraries use `clone`; so does every call of another architecture than the
machine's own. So does `mq_open` where slots share the machine's message queues: queues outlive who made them, and are
to be found only where somebody has mounted them.
The numbers are those of the kernel's tables (`asm/unistd_64.h`, `asm-generic/unistd.h`).
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import NamedTuple

from hermes_sandboxd._linux import install_seccomp_filter

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_ALLOW = 0x7FFF0000
_ERROR = 0x00050000
_EPERM = _ERROR | 1
_ENOSYS = _ERROR | 38
_EAFNOSUPPORT = _ERROR | 97

_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24
_X32_BIT = 0x40000000

_NEW_NAMESPACES = 0x7E020080
"""The flags of clone and unshare that make namespaces."""

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
"""Put characters into the input of a terminal."""

_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Others are not bound to the network namespace (AF_VSOCK reaches the
hypervisor), or are code of the kernel that nobody needs (AF_ALG)."""


class _Machine(NamedTuple):
    architecture: int
    refused: tuple[int, ...]
    clone: int
    clone3: int
    unshare: int
    socket: int
    ioctl: int
    mq_open: int
    has_x32: bool


# In the order of: keyrings; kernel modules and kexec; clocks; bpf, perf, userfaultfd, io_uring; mounts; swap, reboot,
# accounting, quotas, ports, logs; file handles; other processes' descriptors; setns.
_X86_64 = _Machine(
    0xC000003E,
    (
        *(248, 249, 250),
        *(174, 175, 176, 177, 178, 180, 246, 313, 320),
        *(159, 164, 227, 305),
        *(298, 321, 323, 425, 426, 427),
        *(155, 165, 166, 428, 429, 430, 431, 432, 433, 442),
        *(103, 134, 136, 139, 153, 156, 163, 167, 168, 169, 172, 173, 179, 212, 443),
        *(300, 304),
        *(312, 438),
        308,
    ),
    clone=56,
    clone3=435,
    unshare=272,
    socket=41,
    ioctl=16,
    mq_open=240,
    has_x32=True,
)
_AARCH64 = _Machine(
    0xC00000B7,
    (
        *(217, 218, 219),
        *(42, 104, 105, 106, 273, 294),
        *(112, 170, 171, 266),
        *(241, 280, 282, 425, 426, 427),
        *(39, 40, 41, 428, 429, 430, 431, 432, 433, 442),
        *(18, 58, 60, 89, 116, 142, 224, 225, 443),
        *(262, 265),
        *(272, 438),
        268,
    ),
    clone=220,
    clone3=435,
    unshare=97,
    socket=198,
    ioctl=29,
    mq_open=180,
    has_x32=False,
)
_MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}


def seccomp_obstacle() -> str | None:
    """Return why there is no filter on this machine, or None."""
    machine = os.uname().machine
    if machine not in _MACHINES or sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return f"no filter is known for the architecture {machine}"
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as file:
            return None if "errno" in file.read().split() else "this kernel's seccomp has no errno action"
    except OSError:
        return "this kernel has no seccomp filters"


def filter_program(*, shares_queues: bool) -> bytes:
    """Return the filter of this machine as an array of `struct sock_filter`.

    Args:
        shares_queues: Whether POSIX message queues are the machine's, and therefore refused.
    """
    machine = _MACHINES[os.uname().machine]
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), *_unless_equal(machine.architecture, _ENOSYS), (_LOAD, 0, 0, _NUMBER)]
    if machine.has_x32:
        steps += _when(_AT_LEAST, _X32_BIT, _ENOSYS)
    steps += _when(_EQUAL, machine.clone3, _ENOSYS)
    if shares_queues:
        steps += _when(_EQUAL, machine.mq_open, _ENOSYS)
    for number in machine.refused:
        steps += _when(_EQUAL, number, _EPERM)
    makes_namespaces = _when(_ANY_BIT, _NEW_NAMESPACES, _EPERM)
    steps += _of_call(machine.unshare, _FIRST_ARGUMENT, makes_namespaces)
    steps += _of_call(machine.clone, _FIRST_ARGUMENT, makes_namespaces)
    terminal_input = [*_when(_EQUAL, _TIOCSTI, _EPERM), *_when(_EQUAL, _TIOCLINUX, _EPERM)]
    steps += _of_call(machine.ioctl, _SECOND_ARGUMENT, terminal_input)
    known = [step for family in _FAMILIES for step in _when(_EQUAL, family, _ALLOW)]
    steps += _of_call(machine.socket, _FIRST_ARGUMENT, [*known, (_RETURN, 0, 0, _EAFNOSUPPORT)])
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def install_filter(*, shares_queues: bool = False) -> None:
    """Bind this process and all that it starts to the filter, for good; needs no_new_privs.

    Args:
        shares_queues: As of `filter_program`.

    Raises:
        OSError: The kernel refuses.
    """
    install_seccomp_filter(_PROGRAMS[shares_queues])


def _when(comparison: int, value: int, result: int) -> list[tuple[int, int, int, int]]:
    return [(comparison, 0, 1, value), (_RETURN, 0, 0, result)]


def _unless_equal(value: int, result: int) -> list[tuple[int, int, int, int]]:
    return [(_EQUAL, 1, 0, value), (_RETURN, 0, 0, result)]


def _of_call(number: int, argument: int, steps: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Return the steps that judge a call by one argument, and let it pass when none of `steps` decides."""
    body = [(_LOAD, 0, 0, argument), *steps, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]


# Made when the zygote imports this, for all slots.
_PROGRAMS = [filter_program(shares_queues=shares) for shares in (False, True)] if seccomp_obstacle() is None else []
