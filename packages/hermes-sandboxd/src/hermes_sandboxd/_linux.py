"""The few Linux system calls that the standard library of Python 3.9 does not offer."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import socket

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_NS_GET_USERNS = 0xB701
_CLONE_NEWNS = 0x00020000
_MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
_MS_REMOUNT = 32
_MS_NOSUID_NOEXEC = 2 | 8
_MS_REC_PRIVATE = 0x4000 | 0x40000
_MOST_DESCRIPTORS = 8
_IPC_RMID = 0

_libc = ctypes.CDLL(None, use_errno=True)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(option: int, value: int, what: str) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), what)


def set_child_subreaper() -> None:
    """Let orphaned descendants become children of this process instead of the init of its pid namespace."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "PR_SET_CHILD_SUBREAPER")


def set_no_new_privileges() -> None:
    """Make set-uid programs and file capabilities powerless for this process and all its children."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS")


def set_not_dumpable() -> None:
    """Close this process to ptrace and its /proc files to everyone without privileges outside."""
    _prctl(_PR_SET_DUMPABLE, 0, "PR_SET_DUMPABLE")


def set_dumpable() -> None:
    """Give the /proc files of this process to its user, whom another identity has taken them from."""
    _prctl(_PR_SET_DUMPABLE, 1, "PR_SET_DUMPABLE")


def set_namespace(descriptor: int) -> None:
    """Join the namespace that `descriptor` refers to."""
    _check(_libc.setns(descriptor, 0), "setns")


def limit_terminals(folder: str, most: int) -> None:
    """Let no more than `most` terminals be open at once in the devpts at `folder`."""
    options = f"mode=620,ptmxmode=666,max={most}".encode()
    flags = ctypes.c_ulong(_MS_REMOUNT | _MS_NOSUID_NOEXEC)
    _check(_libc.mount(b"devpts", folder.encode(), None, flags, options), "mount")


def mount_own_proc() -> None:
    """Mount a fresh /proc that this process, and what it starts from now on, sees; needs CAP_SYS_ADMIN."""
    unshare(_CLONE_NEWNS)
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None), "mount --make-rprivate /")
    flags = ctypes.c_ulong(_MS_NOSUID_NODEV_NOEXEC)
    _check(_libc.mount(b"proc", b"/proc", b"proc", flags, None), "mount -t proc")


def owning_user_namespace(descriptor: int) -> int:
    """Return a new descriptor of the user namespace that owns the namespace of `descriptor`."""
    return fcntl.ioctl(descriptor, _NS_GET_USERNS)


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones."""
    _check(_libc.unshare(flags), "unshare")


def install_seccomp_filter(program: bytes) -> None:
    """Bind this process to a filter, an array of `struct sock_filter`; needs no_new_privs or CAP_SYS_ADMIN."""
    code = ctypes.create_string_buffer(program, len(program))
    description = _FilterProgram(len(program) // 8, ctypes.addressof(code))
    zero = ctypes.c_ulong(0)
    _check(
        _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(description), zero, zero),
        "PR_SET_SECCOMP",
    )


def drop_capabilities() -> None:
    """Give up every capability of this process, and the right of its children to gain any by exec."""
    drop_bounding_set()
    clear_capabilities()


def clear_capabilities() -> None:
    """Give up every capability of this process."""
    header = _CapabilityHeader(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (_CapabilityData * 2)()
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")


def drop_bounding_set() -> None:
    """Give up the right of this process and its children to gain any capability by exec; what it has, it keeps."""
    zero = ctypes.c_ulong(0)
    capability = 0
    while _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), zero, zero, zero) == 0:
        capability += 1
    if ctypes.get_errno() != errno.EINVAL:
        # EINVAL means that the kernel has no capability of that number, so that all are dropped.
        _check(-1, "PR_CAPBSET_DROP")
    # Kernels before 4.3 have no ambient set; there is nothing to clear there.
    _libc.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), zero, zero, zero)


def remove_ipc(kind: str, number: int) -> None:
    """Remove a System V shared memory ("shm"), semaphore ("sem") or message queue ("msg"); gone already is fine."""
    arguments = (number, 0, _IPC_RMID) if kind == "sem" else (number, _IPC_RMID, None)
    result = getattr(_libc, f"{kind}ctl")(*arguments)
    if result != 0 and ctypes.get_errno() not in (errno.EINVAL, errno.EIDRM):
        _check(result, f"{kind}ctl")


def receive_descriptors(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive data and the descriptors that came with it, which no program that is started may inherit.

    `socket.recv_fds` leaves them inheritable, and ignores its flags.
    """
    descriptors = array.array("i")
    data, ancillary, _, _ = sock.recvmsg(
        size, socket.CMSG_SPACE(_MOST_DESCRIPTORS * descriptors.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return data, list(descriptors)
