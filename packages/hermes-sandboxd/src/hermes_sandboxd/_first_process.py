"""The program that becomes PID 1 of a slot.

It copies its standard input to its standard output until the input ends, and then ends itself. Written as machine code,
because an image may have no program at all that does this, and because it must depend on nothing: no library, no
loader, no file. It is a few hundred bytes, and a process of it costs one page of stack.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
from typing import NamedTuple

_LOAD_ADDRESS = 0x400000
_PAGE = 0x10000
"""The largest that pages are on these machines."""

_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_EXECUTABLE, _LOADED, _STACK = 2, 1, 0x6474E551
_READ_EXECUTE, _READ_WRITE = 5, 6


class _Machine(NamedTuple):
    number: int
    """As of the ELF header (`EM_X86_64`, `EM_AARCH64`)."""
    code: bytes


_X86_64 = _Machine(
    62,
    bytes.fromhex(
        "4881ec00010000"  # sub rsp, 256
        "31ff"  # again: xor edi, edi
        "4889e6"  # mov rsi, rsp
        "ba00010000"  # mov edx, 256
        "31c0"  # xor eax, eax
        "0f05"  # syscall: read(0, rsp, 256)
        "85c0"  # test eax, eax
        "7e10"  # jle end
        "89c2"  # mov edx, eax
        "bf01000000"  # mov edi, 1
        "b801000000"  # mov eax, 1
        "0f05"  # syscall: write(1, rsp, what was read)
        "ebde"  # jmp again
        "31ff"  # end: xor edi, edi
        "b8e7000000"  # mov eax, 231
        "0f05"  # syscall: exit_group(0)
    ),
)
_AARCH64 = _Machine(
    183,
    struct.pack(
        "<16I",
        0xD10403FF,  # sub sp, sp, 256
        0xD2800000,  # again: mov x0, 0
        0x910003E1,  # mov x1, sp
        0xD2802002,  # mov x2, 256
        0xD28007E8,  # mov x8, 63
        0xD4000001,  # svc 0: read(0, sp, 256)
        0xF100001F,  # cmp x0, 0
        0x540000CD,  # b.le end
        0xAA0003E2,  # mov x2, x0
        0xD2800020,  # mov x0, 1
        0xD2800808,  # mov x8, 64
        0xD4000001,  # svc 0: write(1, sp, what was read)
        0x17FFFFF5,  # b again
        0xD2800000,  # end: mov x0, 0
        0xD2800BC8,  # mov x8, 94
        0xD4000001,  # svc 0: exit_group(0)
    ),
)
_MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}


def write_first_process(path: str) -> None:
    """Write the program to `path`; on a machine for which there is none, copy the system's `cat`."""
    machine = _MACHINES.get(os.uname().machine)
    if machine is None or sys.byteorder != "little":
        shutil.copyfile(shutil.which("cat", path="/bin:/usr/bin") or "/bin/cat", path)
        return
    with open(path, "wb") as file:
        file.write(program(machine))


def program(machine: _Machine) -> bytes:
    """Return the program as an ELF file."""
    start = _ELF_HEADER.size + 2 * _PROGRAM_HEADER.size
    size = start + len(machine.code)
    identification = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = _ELF_HEADER.pack(
        *(identification, _EXECUTABLE, machine.number, 1, _LOAD_ADDRESS + start, _ELF_HEADER.size, 0, 0),
        *(_ELF_HEADER.size, _PROGRAM_HEADER.size, 2, 0, 0, 0),
    )
    text = _PROGRAM_HEADER.pack(_LOADED, _READ_EXECUTE, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, _PAGE)
    stack = _PROGRAM_HEADER.pack(_STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16)
    return header + text + stack + machine.code
