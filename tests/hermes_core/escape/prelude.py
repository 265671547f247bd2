"""Goes before the Python of every attempt, inside the slot, which needs what it imports and says."""

# ruff: noqa: F401, T201, C408

import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable

_X86 = dict(
    ptrace=101,
    mount=165,
    umount2=166,
    pivot_root=155,
    chroot=161,
    swapon=167,
    reboot=169,
    sethostname=170,
    iopl=172,
    ioperm=173,
    init_module=175,
    delete_module=176,
    acct=163,
    settimeofday=164,
    quotactl=179,
    clock_settime=227,
    adjtimex=159,
    kexec_load=246,
    add_key=248,
    request_key=249,
    keyctl=250,
    unshare=272,
    perf_event_open=298,
    fanotify_init=300,
    name_to_handle_at=303,
    open_by_handle_at=304,
    setns=308,
    process_vm_readv=310,
    process_vm_writev=311,
    kcmp=312,
    finit_module=313,
    kexec_file_load=320,
    bpf=321,
    userfaultfd=323,
    syslog=103,
    clone=56,
    ioprio_set=251,
    msgget=68,
    mq_open=240,
)
_ARM = dict(
    ptrace=117,
    mount=40,
    umount2=39,
    pivot_root=41,
    chroot=51,
    swapon=224,
    reboot=142,
    sethostname=161,
    iopl=-1,
    ioperm=-1,
    init_module=105,
    delete_module=106,
    acct=89,
    settimeofday=170,
    quotactl=60,
    clock_settime=112,
    adjtimex=171,
    kexec_load=104,
    add_key=217,
    request_key=218,
    keyctl=219,
    unshare=97,
    perf_event_open=241,
    fanotify_init=262,
    name_to_handle_at=264,
    open_by_handle_at=265,
    setns=268,
    process_vm_readv=270,
    process_vm_writev=271,
    kcmp=272,
    finit_module=273,
    kexec_file_load=294,
    bpf=280,
    userfaultfd=282,
    syslog=116,
    clone=220,
    ioprio_set=30,
    msgget=186,
    mq_open=180,
)
_BOTH = dict(
    pidfd_send_signal=424,
    io_uring_setup=425,
    io_uring_enter=426,
    io_uring_register=427,
    open_tree=428,
    move_mount=429,
    fsopen=430,
    fsconfig=431,
    fsmount=432,
    fspick=433,
    pidfd_open=434,
    clone3=435,
    pidfd_getfd=438,
    mount_setattr=442,
)
NUMBERS = {**(_X86 if platform.machine() == "x86_64" else _ARM), **_BOTH}
_libc = ctypes.CDLL(None, use_errno=True)


def syscall(name: str, *arguments: object) -> int:
    ctypes.set_errno(0)
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _libc.syscall(ctypes.c_long(NUMBERS[name]), *passed)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def attempt(name: str, function: Callable[..., object], *arguments: object) -> None:
    try:
        result = function(*arguments)
    except OSError as error:
        print(f"{name}: {errno.errorcode.get(error.errno or 0, error.errno)}", flush=True)
    else:
        print(f"{name}: success {str(result)[:200]!r}", flush=True)


def tried(name: str, *arguments: object) -> None:
    attempt(name, syscall, name, *arguments)


def write(path: str, text: str) -> None:
    with open(path, "r+") as file:
        file.write(text)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(4096)
