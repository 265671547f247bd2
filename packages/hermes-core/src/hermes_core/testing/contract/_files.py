"""Promises about reading and writing files of a slot."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from hermes_core.exceptions import SlotFileError
from hermes_core.testing.contract._check import ALL_LEVELS, CONFINED, check

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from hermes_core.testing.contract._rig import ContractRig


async def refusal(request: Awaitable[object]) -> str:
    """Return the kind with which a file request is refused; empty if it is served."""
    try:
        await request
    except SlotFileError as error:
        return error.kind
    return ""


@check("A file that was written is read as it was, by requests and by commands, whatever is in it.", levels=ALL_LEVELS)
async def files_there_and_back(rig: ContractRig) -> None:
    slot = await rig.lease()
    for size in (0, 1, 65_536, 65_537, 300_000):
        data = os.urandom(size)
        await slot.write_file("file", data)
        assert await slot.read_file("file") == data, f"{size} bytes did not come back as they were"
        assert await slot.read_file(f"{slot.workspace}/file") == data, "the absolute path is another file"
        seen = await slot.exec("sha256sum < file")
        assert seen.stdout.split()[0] == hashlib.sha256(data).hexdigest(), "a command sees something else"
    await slot.write_file("text", "naïve ☃")
    assert (await slot.read_file("text")).decode() == "naïve ☃"
    await slot.exec("printf written > by-command")
    assert await slot.read_file("by-command") == b"written"


@check("50 MB go there and back exactly.", levels=ALL_LEVELS)
async def large_files(rig: ContractRig) -> None:
    slot = await rig.lease()
    data = os.urandom(1 << 20) * 50
    await slot.write_file("large", data)
    assert (await slot.exec("stat -c %s large")).stdout == f"{len(data)}\n"
    assert await slot.read_file("large") == data


@check("A written file has the mode that was asked for, and belongs to the user of the slot.", levels=ALL_LEVELS)
async def modes_and_owners(rig: ContractRig) -> None:
    slot = await rig.lease()
    for mode in (0o644, 0o755, 0o600, 0o444):
        await slot.write_file("file", "x", mode=mode)
        seen = await slot.exec("stat -c '%a %u' file; id -u")
        listed, own = seen.stdout.splitlines()
        assert listed == f"{mode:o} {own}", f"mode {mode:o} as user {own} became {listed!r}"


@check(
    "Missing folders on the way are made when a file is written, and the user of the slot can use them.",
    levels=ALL_LEVELS,
)
async def missing_folders(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.write_file("deep/er/file", "x")
    assert await slot.read_file("deep/er/file") == b"x"
    done = await slot.exec("touch deep/new deep/er/new && rm -r deep")
    assert done.exit_code == 0, done.stderr


@check("Writing replaces the whole file that was there.", levels=ALL_LEVELS)
async def replaced_files(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.write_file("file", "long " * 1000)
    await slot.write_file("file", "short")
    assert await slot.read_file("file") == b"short"
    await slot.exec("chmod 444 file")
    await slot.write_file("file", "again")
    assert await slot.read_file("file") == b"again"


@check("Any name that a file can have works.", levels=ALL_LEVELS)
async def odd_names(rig: ContractRig) -> None:
    slot = await rig.lease()
    names = ("with space", "-rf", "new\nline", "snow☃man", "*", "'quotes\"", "$HOME", ".hidden", "x" * 200)
    for name in names:
        await slot.write_file(name, name)
        assert (await slot.read_file(name)).decode() == name
        assert (await slot.exec(["cat", "--", name])).stdout == name


@check("A part of a file can be read, and the digest of the whole told.", levels=ALL_LEVELS)
async def ranges_and_digests(rig: ContractRig) -> None:
    slot = await rig.lease()
    data = os.urandom(200_000)
    await slot.write_file("file", data)
    digest = hashlib.sha256(data).hexdigest()
    for offset, length in (
        (0, 10),
        (100_000, 70_000),
        (199_990, 100),
        (200_000, None),
        (300_000, 5),
        (5, None),
        (0, 0),
    ):
        part = await slot.lease.client.read("file", offset=offset, length=length, sha256=True)
        end = len(data) if length is None else offset + length
        assert part.data == data[offset:end], f"offset {offset}, length {length}: {len(part.data)} bytes, or others"
        assert (part.size, part.sha256) == (len(data), digest), "size or digest is not that of the whole file"


@check("A file request that cannot be served says why: not found, a folder, not permitted.", levels=ALL_LEVELS)
async def refused_files(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.exec("mkdir folder; touch file")
    assert await refusal(slot.read_file("nothing")) == "not_found"
    assert await refusal(slot.read_file("folder")) == "is_directory"
    assert await refusal(slot.write_file("folder", "x")) == "is_directory"
    assert await refusal(slot.write_file("file/below", "x")), "a file was written below a file"
    assert (await slot.exec("echo fine")).stdout == "fine\n"


@check("What is no regular file is refused at once, and nobody waits for it.", levels=ALL_LEVELS)
async def special_files(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.exec("mkfifo pipe; ln -s pipe link")
    for name in ("pipe", "link", "/dev/zero", "/dev/tty"):
        assert await refusal(slot.read_file(name)) in {"not_a_file", "not_found", "permission_denied"}, name
    assert (await slot.exec("echo fine")).stdout == "fine\n"


@check(
    "A file larger than the caller allows is refused, to read and to write, and nothing is written.", levels=ALL_LEVELS
)
async def files_too_large(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.write_file("file", bytes(2000))
    assert await refusal(slot.read_file("file", max_bytes=1999)) == "too_large"
    assert len(await slot.read_file("file", max_bytes=2000)) == 2000
    for size in (3000, 300_000):
        assert await refusal(slot.lease.client.write("other", bytes(size), max_bytes=1999)) == "too_large"
    assert await refusal(slot.read_file("other")) == "not_found", "something was written of a file that was refused"
    assert (await slot.exec("ls -A")).stdout == "file\n", "something else was left"


@check("File requests have the rights of the slot's user, and no more.", levels=CONFINED)
async def rights_of_the_user(rig: ContractRig) -> None:
    slot = await rig.lease()
    for path in ("/etc/hermes-contract", "/usr/hermes-contract", "/hermes-contract"):
        refused = await refusal(slot.write_file(path, "x"))
        await slot.exec(["rm", "-f", path])
        assert refused, f"{path} was written"
    for path in ("/etc/shadow", "/proc/1/environ", "/proc/1/mem", "/dev/mem"):
        assert await refusal(slot.read_file(path)), f"{path} was read"


@check("A link leads nowhere where the slot's user could not go.", levels=CONFINED)
async def links(rig: ContractRig) -> None:
    slot, other = await rig.lease(), await rig.lease()
    await other.write_file("secret", rig.marker())
    await slot.exec("ln -s /etc/hermes-contract file; ln -s /etc folder; ln -s /etc/shadow shadow; ln -s loop loop")
    await slot.exec(["ln", "-s", f"{other.workspace}/secret", "foreign"])
    await refusal(slot.write_file("file", "x"))  # refused, or the link itself is replaced
    refused = await refusal(slot.write_file("folder/hermes-contract", "x"))
    made = (await slot.exec("test -e /etc/hermes-contract && rm /etc/hermes-contract")).exit_code == 0
    assert refused, "a file was written through a link to /etc"
    assert not made, "a file in /etc was made through a link"
    for name in ("shadow", "foreign", "loop"):
        assert await refusal(slot.read_file(name)), f"the link {name!r} was followed"
