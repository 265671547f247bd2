"""Promises about whole folders: listing, packing, unpacking, and carrying them between this machine and a slot."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_core.exceptions import SlotFileError
from hermes_core.testing.contract._check import ALL_LEVELS, check
from hermes_core.testing.contract._expect import expect

if TYPE_CHECKING:
    from hermes_core.testing.contract._rig import ContractRig

TREE = """
mkdir -p tree/sub/empty; echo a > tree/file; printf '#!/bin/sh\\necho ran\\n' > tree/script; chmod 755 tree/script
ln -s ../script tree/sub/link; ln -s nowhere tree/dangling; echo odd > 'tree/new
line'; head -c 300000 /dev/urandom > tree/sub/data
"""
SHOW = "cd {folder} && find . | sort && cat file script sub/data 'new\nline' | sha256sum && readlink sub/link dangling"


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return an archive of anything, be it hostile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, *, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """Return the header of one member."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def make_tree(folder: Path, data: bytes) -> None:
    """Make a folder on this machine."""
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "data").write_bytes(data)
    (folder / "script").write_text("#!/bin/sh\necho ran\n")
    (folder / "script").chmod(0o755)
    (folder / "link").symlink_to("sub/data")


def read(path: Path) -> bytes:
    """Return what is in a file of this machine."""
    return path.read_bytes()


def names_below(folder: Path) -> list[str]:
    """Return everything in a folder of this machine."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@check("A folder is listed with everything in it, and no link is followed.", levels=ALL_LEVELS)
async def folders_listed(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.exec("mkdir -p a/b; printf 12345 > a/file; ln -s / a/link; mkfifo a/pipe; touch a/b/deep")
    found = {(each.path, each.kind, each.size) for each in (await slot.list_files("a")).entries}
    assert found == {
        ("b", "folder", 0),
        ("b/deep", "file", 0),
        ("file", "file", 5),
        ("link", "link", 0),
        ("pipe", "other", 0),
    }
    flat = await slot.list_files("a", recursive=False)
    assert [each.path for each in flat.entries] == ["b", "file", "link", "pipe"]
    cut = await slot.list_files("a", max_entries=2)
    assert (len(cut.entries), cut.truncated) == (2, True), "it is not told that there is more"


@check("A folder that is packed and unpacked is the same folder.", levels=ALL_LEVELS)
async def folders_packed(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.exec(TREE)
    await slot.extract("copy", await slot.archive("tree"))
    before, after = [(await slot.exec(SHOW.format(folder=folder))).stdout for folder in ("tree", "copy")]
    assert "./sub/empty\n" in before, "the tree could not be made"
    assert after == before
    assert (await slot.exec("copy/script; stat -c %u copy/file; id -u")).stdout.split()[0] == "ran"


@check("Files and folders are carried to a slot and back as they were.", levels=ALL_LEVELS)
async def transfers(rig: ContractRig) -> None:
    slot = await rig.lease()
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder, "there"), Path(folder, "back")
        data = os.urandom(2_000_000)
        make_tree(there, data)
        await slot.upload(there, "tree")
        assert (await slot.exec("tree/script; readlink tree/link")).stdout == "ran\nsub/data\n"
        await slot.exec("echo new > tree/sub/new")
        await slot.download("tree", back)
        assert names_below(back) == ["link", "script", "sub", "sub/data", "sub/new"]
        assert read(back / "sub" / "data") == data
        assert os.readlink(back / "link") == "sub/data"
        await slot.upload(there / "sub" / "data", "deep/er/one")
        await slot.download("deep/er/one", Path(folder, "one"))
        assert read(Path(folder, "one")) == data


@check(
    "A hostile archive is refused whole: nothing of it is unpacked, and nothing outside is touched.", levels=ALL_LEVELS
)
async def hostile_archives(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.exec("mkdir into")
    good = (entry("good"), b"good")
    for name, member in {
        "an absolute path": entry(f"{slot.workspace}/escaped"),
        "a path that leads out": entry("../escaped"),
        "a link that leads out": entry("link", kind=tarfile.SYMTYPE, target="../.."),
        "an absolute link": entry("link", kind=tarfile.SYMTYPE, target="/etc"),
        "a hard link that leads out": entry("hard", kind=tarfile.LNKTYPE, target="../escaped"),
        "a device": entry("null", kind=tarfile.CHRTYPE),
        "a FIFO": entry("pipe", kind=tarfile.FIFOTYPE),
    }.items():
        error = await expect(SlotFileError, slot.extract("into", packed(good, (member, b""))), name)
        assert error.kind == "bad_archive", f"{name} was refused as {error.kind}"
        assert (await slot.exec("ls -A . into")).stdout == ".:\ninto\n\ninto:\n", f"{name}: something was unpacked"
    error = await expect(SlotFileError, slot.extract("into", b"no archive"), "no archive at all")
    assert error.kind == "bad_archive"
    await slot.extract("into", packed(good))
    assert await slot.read_file("into/good") == b"good", "an honest archive is refused, too"


@check("Caps on bytes and entries are kept, for packing and unpacking, and say so.", levels=ALL_LEVELS)
async def archive_caps(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.exec("mkdir tree; for i in 1 2 3 4 5; do head -c 10000 /dev/zero > tree/$i; done")
    bomb = packed((entry("zeros"), bytes(3_000_000)))
    for request in (
        slot.archive("tree", max_bytes=40_000),
        slot.archive("tree", max_entries=3),
        slot.extract("into", bomb, max_bytes=1_000_000),
        slot.extract("into", packed(*((entry(str(number)), b"") for number in range(20))), max_entries=10),
    ):
        assert (await expect(SlotFileError, request, "a cap was passed")).kind == "too_large"
    assert (await slot.exec("find into -type f 2>/dev/null | wc -l")).stdout.strip() == "0"
