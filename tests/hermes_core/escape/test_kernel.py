"""The kernel's own doors: system calls that no agent needs, by every way in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hermes_core.escape.conftest import Attacker

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.mark.parametrize(
    "attempts",
    [
        "tried('add_key', b'user', b'hermes', b'x', 1, -4); tried('add_key', b'user', b'hermes', b'x', 1, -5)",
        "tried('add_key', b'user', b'hermes', b'x', 1, -3); tried('add_key', b'keyring', b'k', None, 0, -2)",
        "tried('request_key', b'user', b'hermes', None, -2)",
        "for keyring in (-1, -2, -3, -4, -5):\n    attempt(str(keyring), syscall, 'keyctl', 0, keyring, 1)",
        "tried('keyctl', 1, None); tried('keyctl', 11, -4, None, 0)",
        "tried('bpf', 0, struct.pack('4I', 2, 4, 4, 1) + bytes(112), 128)",
        "tried('bpf', 5, bytes(128), 128)",
        "tried('perf_event_open', struct.pack('IIQ', 1, 112, 0) + bytes(96), 0, -1, -1, 0)",
        "tried('io_uring_setup', 8, ctypes.create_string_buffer(256)); tried('io_uring_register', 0, 0, None, 0)",
        "tried('io_uring_enter', 0, 0, 0, 0, None)",
        "tried('userfaultfd', 0); tried('userfaultfd', 1)",
        "tried('kexec_load', 0, 0, None, 0); tried('kexec_file_load', 0, 0, 0, b'', 0)",
        "tried('init_module', b'x', 1, b''); tried('finit_module', 0, b'', 0); tried('delete_module', b'x', 0)",
        "tried('clock_settime', 0, struct.pack('qq', 1, 0)); tried('settimeofday', struct.pack('qq', 1, 0), None)",
        "tried('adjtimex', struct.pack('Iq', 2, 1) + bytes(300))",
        "tried('reboot', 0xfee1dead - (1 << 32), 672274793, 0, None); tried('sethostname', b'x', 1)",
        "tried('syslog', 3, ctypes.create_string_buffer(4096), 4096); tried('syslog', 5, None, 0)",
        "tried('acct', None); tried('fanotify_init', 4, 0)",
        "for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x04000000, 0x08000000, 0x02000000, 0x80):\n"
        "    attempt(hex(flag), syscall, 'unshare', flag)",
        "def clone(flags):\n"
        "    if syscall('clone', flags | 17, 0, 0, 0, 0) == 0:\n"
        "        os._exit(0)\n"
        "for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x04000000, 0x10000000 | 0x20000):\n"
        "    attempt(hex(flag), clone, flag)",
        "def clone3(flags):\n"
        "    if syscall('clone3', struct.pack('11Q', flags, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0), 88) == 0:\n"
        "        os._exit(0)\n"
        "for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x80):\n"
        "    attempt(hex(flag), clone3, flag)",
        "for name in ('user', 'mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup'):\n"
        "    attempt(name, lambda: syscall('setns', os.open('/proc/1/ns/' + name, os.O_RDONLY), 0))",
        "for name in ('mnt', 'net', 'uts', 'cgroup'):\n"
        "    attempt(name, lambda: syscall('setns', os.open('/proc/self/ns/' + name, os.O_RDONLY), 0))",
    ],
)
async def test_system_calls_are_refused(attacker: Attacker, attempts: str) -> None:
    await attacker.fails(attempts)


@pytest.mark.parametrize("x86", ["iopl", "ioperm"])
async def test_ports_are_not_opened(attacker: Attacker, x86: str) -> None:
    await attacker.fails(f"tried({x86!r}, 3, 3, 1) if platform.machine() == 'x86_64' else print('none: here')")


# Families that are not in any namespace, or whose modules the kernel would load for the asking.
FAMILIES = {
    **{"AX25": 3, "APPLETALK": 5, "X25": 9, "KEY": 15, "PPPOX": 24, "CAN": 29, "TIPC": 30, "BLUETOOTH": 31},
    **{"RDS": 21, "PHONET": 35, "IEEE802154": 36, "CAIF": 37, "ALG": 38, "NFC": 39, "VSOCK": 40, "KCM": 41},
    **{"QIPCRTR": 42, "SMC": 43, "XDP": 44, "MCTP": 45},
}


async def test_families_of_sockets_that_leave_the_namespace(attacker: Attacker) -> None:
    await attacker.fails(
        f"for name, family in {FAMILIES!r}.items():\n"
        "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):\n"
        "        attempt(f'{name} {kind}', socket.socket, family, kind)"
    )


@pytest.mark.parametrize("command", ["0x5412", "0x5412 | 1 << 32", "0x541C", "0x541C | 1 << 63"])
async def test_nothing_is_typed_into_a_terminal(attacker: Attacker, command: str) -> None:
    # TIOCSTI, TIOCLINUX; the kernel looks at the lower half of the number only.
    await attacker.fails(
        f"""
master, slave = os.openpty()
process = os.fork()
if process == 0:
    os.setsid()
    fcntl.ioctl(slave, 0x540E, 0)
    number = 16 if platform.machine() == 'x86_64' else 29
    NUMBERS['ioctl'] = number
    tried('ioctl', slave, ctypes.c_ulong({command}), b'x')
    os._exit(0)
os.waitpid(process, 0)
"""
    )


# int 0x80 and the x32 numbers lead past a filter that looks at the ordinary numbers only.
_INT_80 = """
import mmap
if platform.machine() != 'x86_64':
    print('none: here'); os._exit(0)
def old(name, number, *arguments):
    values = [number, *arguments, 0, 0, 0, 0][:5]
    opcodes = (0xB8, 0xBB, 0xB9, 0xBA, 0xBE)
    code = b'\\x53' + b''.join(struct.pack('<BI', *pair) for pair in zip(opcodes, values)) + b'\\xcd\\x80\\x5b\\xc3'
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(code)
    call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    child = os.fork()
    if child == 0:
        result = call()
        print(f'{name}: ' + (errno.errorcode.get(-result, '?') if result < 0 else 'success'), flush=True)
        os._exit(0)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        print(f'{name}: killed', flush=True)
"""


async def test_old_system_calls_are_no_way_round(attacker: Attacker) -> None:
    outcomes = await attacker.outcomes(
        _INT_80
        + """
old('keyctl', 288, 0, 0xfffffffd, 1)
old('add_key', 286)
old('bpf', 357)
old('io_uring_setup', 425)
old('userfaultfd', 374, 1)
old('socket AF_ALG', 359, 38, 5)
old('socketcall', 102, 1)
old('unshare', 310, 0x10000000)
old('ptrace', 26, 16, 1)
old('getpid', 20)
"""
    )
    # Anything else (EFAULT, EINVAL, …) would mean that the kernel had listened.
    assert set(outcomes.values()) <= {"EPERM", "ENOSYS", "EACCES", "killed", "here"}, outcomes


async def test_the_numbers_of_x32_are_no_way_round(attacker: Attacker) -> None:
    outcomes = await attacker.outcomes(
        """
if platform.machine() != 'x86_64':
    print('none: here')
else:
    for name in ('keyctl', 'add_key', 'bpf', 'io_uring_setup', 'unshare', 'perf_event_open', 'userfaultfd'):
        NUMBERS[name] |= 0x40000000
        tried(name, 0, 0, 0)
"""
    )
    assert set(outcomes.values()) <= {"EPERM", "ENOSYS", "EACCES", "here"}, outcomes
