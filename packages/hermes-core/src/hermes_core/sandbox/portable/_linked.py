"""What a program or library is linked against, as the dynamic loader of this machine finds it."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

from hermes_core.exceptions import BackendUnavailableError

__all__ = ["interpreter_of", "libraries_of"]

PROBE_S = 30.0
FOUND = re.compile(r"^\s*(\S+) => (/.+) \(0x[0-9a-f]+\)$")
MISSING = re.compile(r"^\s*(\S+) => not found$")

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
IDENTIFICATION = b"\x7fELF\x02\x01"
"""64 bits, little-endian: what x86_64 and aarch64 are."""
INTERPRETER = 3


def interpreter_of(program: Path) -> Path:
    """Return the dynamic loader that a program asks for.

    Raises:
        BackendUnavailableError: It is no such program.
    """
    with program.open("rb") as file:
        content = file.read(HEADER.size)
        if len(content) == HEADER.size and content.startswith(IDENTIFICATION):
            fields = HEADER.unpack(content)
            offset, size, count = fields[5], fields[9], fields[10]
            for index in range(count):
                file.seek(offset + index * size)
                kind, _, start, _, _, length, _, _ = PROGRAM_HEADER.unpack(file.read(PROGRAM_HEADER.size))
                if kind == INTERPRETER:
                    file.seek(start)
                    return Path(file.read(length).rstrip(b"\0").decode())
    raise BackendUnavailableError(f"{program} is not a dynamically linked 64-bit program")


def libraries_of(loader: Path, file: Path) -> dict[str, Path] | None:
    """Return the libraries that a file needs, by the names that it asks for them; None if one is not to be found."""
    done = subprocess.run(
        [loader, "--list", file], capture_output=True, text=True, timeout=PROBE_S, check=False, stdin=subprocess.DEVNULL
    )
    lines = done.stdout.splitlines()
    if done.returncode != 0 or any(map(MISSING.match, lines)):
        return None
    return {match[1]: Path(match[2]) for match in map(FOUND.match, lines) if match is not None}
