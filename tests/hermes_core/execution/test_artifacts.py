from __future__ import annotations

import base64
import gzip
import hashlib
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes_core.exceptions import LeaseStateError, SlotFileError, UsageError
from hermes_core.execution import Transferred, archive_artifact, list_artifacts, read_artifact
from hermes_core.execution._transfer import put_down, take_up
from hermes_core.sandbox import Archive, Entry
from hermes_sandboxd import Refusal, check_archive

sys.path.insert(0, str(Path(__file__).parents[2] / "hermes_sandboxd" / "support"))
from archives import hostile, link, many, member, tar, zeros

if TYPE_CHECKING:
    from tests.hermes_core.conftest import OpenRig

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

_HOSTILE = dict(hostile())


def _tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a folder: mode and content or target of each path."""
    found = {}
    for parent, folders, files in os.walk(os.fsencode(folder)):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            else:
                content = Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found[os.fsdecode(os.path.relpath(path, os.fsencode(folder)))] = (status.st_mode, content)
    return found


def _made(folder: Path) -> Path:
    """A folder with all that a transfer has to keep."""
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "script").write_bytes(b"#!/bin/sh\n")
    (folder / "script").chmod(0o755)
    (folder / "secret").write_bytes(b"s")
    (folder / "secret").chmod(0o600)
    (folder / "sub" / "up").symlink_to("../script")
    (folder / "dangling").symlink_to("nowhere")
    Path(os.fsdecode(os.fsencode(folder) + b"/a\xff\n b")).write_bytes(b"odd")
    (folder / ("n" * 200)).write_bytes(b"")
    return folder


async def test_folders_go_there_and_back(rig: OpenRig, tmp_path: Path) -> None:
    local = _made(tmp_path / "local")
    (local / "large").write_bytes(os.urandom(50_000_000))
    async with rig() as r:
        slot = await r.lease()
        done = await slot.upload(local, "deep/er")
        assert done == Transferred(9, 50_000_014, 0)
        assert (await slot.exec("stat -c %a deep/er/script deep/er/secret")).stdout == "755\n600\n"
        assert await slot.download("deep/er", tmp_path / "new" / "back") == done
        assert _tree(tmp_path / "new" / "back") == _tree(local)
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["back"]


async def test_files_go_there_and_back(rig: OpenRig, tmp_path: Path) -> None:
    local = tmp_path / "tool"
    local.write_bytes(b"#!/bin/sh\necho hi\n")
    local.chmod(0o750)
    async with rig() as r:
        slot = await r.lease()
        assert await slot.upload(local, "bin/tool") == Transferred(1, 18, 0)
        assert (await slot.exec("bin/tool; stat -c %a bin/tool")).stdout == "hi\n750\n"
        (tmp_path / "old").write_bytes(b"is replaced")
        assert await slot.download("bin/tool", tmp_path / "old") == Transferred(1, 18, 0)
        assert (tmp_path / "old").read_bytes() == local.read_bytes()
        assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o750


async def test_what_cannot_be_uploaded_says_why(rig: OpenRig, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "fifo")
    async with rig() as r:
        slot = await r.lease()
        with pytest.raises(UsageError, match="outside"):
            await slot.upload(tmp_path, "there")
        with pytest.raises(UsageError, match="No such file"):
            await slot.upload(tmp_path / "missing", "there")
        with pytest.raises(UsageError, match="limit"):
            await slot.upload(Path(__file__), "there", max_bytes=10)
        with pytest.raises(UsageError, match="more than 0 bytes"):
            await slot.upload(Path(__file__).parent, "there", max_bytes=0)
        assert await slot.upload(tmp_path / "pipes", "pipes") == Transferred(0, 0, 1)
        with pytest.raises(SlotFileError) as raised:
            await slot.upload(tmp_path / "pipes", "/etc/x")
        assert raised.value.kind == "permission_denied"
        assert (await slot.exec("ls")).stdout == "pipes\n"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "..", "l/../../x"])
async def test_a_link_that_leads_outside_is_not_downloaded(rig: OpenRig, tmp_path: Path, target: str) -> None:
    async with rig() as r:
        slot = await r.lease()
        await slot.exec(["ln", "-s", target, "evil"])
        await slot.exec("echo fine > fine; ln -s . l")
        with pytest.raises(SlotFileError) as raised:
            await slot.download(".", tmp_path / "here")
        assert raised.value.kind == "bad_archive"
        assert os.listdir(tmp_path) == []
        assert b"fine" in gzip.decompress(await slot.archive("."))


@pytest.mark.parametrize("name", _HOSTILE)
def test_nothing_hostile_is_unpacked_here(tmp_path: Path, name: str) -> None:
    for kind in ("folder", "file"):
        archive = Archive(_HOSTILE[name], kind, 1, 1, 0, 0)
        with pytest.raises(SlotFileError) as raised:
            put_down(archive, tmp_path / "in" / "here", 1 << 20, 1000)
        assert raised.value.kind == "bad_archive"
    assert list(tmp_path.iterdir()) == []


def test_no_bomb_goes_off_here(tmp_path: Path) -> None:
    for bomb in (zeros(10 << 30), many(1_000_000)):
        with pytest.raises(SlotFileError) as raised:
            put_down(Archive(bomb, "folder", 1, 1, 0, 0), tmp_path / "here", 256 << 20, 100_000)
        assert raised.value.kind == "too_large"
    assert list(tmp_path.iterdir()) == []


def test_what_is_unpacked_here_belongs_to_its_owner(tmp_path: Path) -> None:
    data = tar(member("s", b"x", mode=0o6777), member("closed", b"x", mode=0), member("d/", kind=b"5", mode=0o1002))
    put_down(Archive(data, "folder", 3, 2, 0, 0), tmp_path / "here", 100, 10)
    modes = {name: oct(stat.S_IMODE(mode)) for name, (mode, _) in _tree(tmp_path / "here").items()}
    assert modes == {"s": "0o755", "closed": "0o600", "d": "0o700"}


def test_an_archive_of_a_file_holds_one_file(tmp_path: Path) -> None:
    for data in (tar(), tar(link("f", "g")), tar(member("f"), member("g")), tar(member("d/f"))):
        with pytest.raises(SlotFileError):
            put_down(Archive(data, "file", 1, 0, 0, 0), tmp_path / "here", 100, 10)
    assert list(tmp_path.iterdir()) == []


async def test_a_download_does_not_mix_with_what_is_there(rig: OpenRig, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    async with rig() as r:
        slot = await r.lease()
        await slot.exec("mkdir d; touch d/f f")
        with pytest.raises(UsageError, match="something in it"):
            await slot.download("d", tmp_path / "full")
        with pytest.raises(UsageError, match="is a folder"):
            await slot.download("f", tmp_path / "full")
        with pytest.raises(UsageError):
            await slot.download("d", tmp_path / "file")
        await slot.download("d", tmp_path / "empty")
        with pytest.raises(SlotFileError) as raised:
            await slot.download("missing", tmp_path / "new")
        assert raised.value.kind == "not_found"
    assert set(_tree(tmp_path)) == {"full", "full/mine", "empty", "empty/f", "file"}


async def test_folders_are_listed(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        await slot.exec("mkdir -p a/b; echo hello > a/f; touch -d @7 a/f; ln -s f a/l")
        listing = await slot.list_files("a")
        assert [entry.path for entry in listing.entries] == ["b", "f", "l"]
        assert listing.entries[1] == Entry("f", "file", 6, 7.0)
        assert (listing.truncated, listing.unreadable) == (False, 0)
        assert (await slot.list_files(recursive=False, max_entries=0)).truncated
        await slot.exec("seq -f a/%06g 30000 | xargs touch")
        assert len((await slot.list_files()).entries) == 30_004


async def test_archives_are_unpacked_whole_or_not_at_all(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        done = await slot.extract("d", gzip.compress(tar(member("a/f", b"hello"))))
        assert (done.entries, done.size) == (2, 5)
        for data, kind in ((_HOSTILE["dot dot"], "bad_archive"), (tar(member("f", b"x" * 11)), "too_large")):
            with pytest.raises(SlotFileError) as raised:
                await slot.extract("e", data, max_bytes=10)
            assert raised.value.kind == kind
        assert (await slot.exec("find . -type f")).stdout == "./d/a/f\n"
        assert check_archive_of(await slot.archive("d")) == {b"a": {b"f": "file"}}


def check_archive_of(data: bytes) -> object:
    from io import BytesIO

    try:
        return check_archive(BytesIO(data), 1 << 20, 100).tree
    except Refusal as error:
        return error.kind


async def test_cancelling_a_transfer_leaves_the_slot_usable(rig: OpenRig, tmp_path: Path) -> None:
    async with rig() as r:
        slot = await r.lease()
        await slot.exec("head -c 200000000 /dev/urandom > large", timeout_s=60)
        with anyio.move_on_after(0.2) as scope:
            await slot.download("large", tmp_path / "here")
        assert scope.cancelled_caught
        assert (await slot.exec("ls")).stdout == "large\n"
        assert os.listdir(tmp_path) == []
        await slot.release()
        for use in (slot.list_files(), slot.archive(), slot.extract("x", b""), slot.download("x", tmp_path / "x")):
            with pytest.raises(LeaseStateError):
                await use


_names = st.binary(min_size=1, max_size=30).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)
_files = st.dictionaries(_names, st.one_of(st.none(), st.binary(max_size=3000)), max_size=6)
_folders = st.dictionaries(_names, st.one_of(st.none(), st.binary(max_size=200_000), _files), max_size=6)


def _write(folder: bytes, tree: dict[bytes, object]) -> None:
    os.mkdir(folder)
    for name, what in tree.items():
        path = os.path.join(folder, name)
        if isinstance(what, dict):
            _write(path, what)
        elif isinstance(what, bytes):
            Path(os.fsdecode(path)).write_bytes(what)
        else:
            os.symlink(b"nowhere/" + name, path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=_folders)
def test_any_folder_survives_being_packed_and_unpacked(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[bytes, object]
) -> None:
    base = tmp_path_factory.mktemp("tree")
    _write(os.fsencode(base / "there"), tree)
    parcel = take_up(base / "there", 1 << 30, 1000)
    done = parcel.transferred
    put_down(Archive(bytes(parcel.data), "folder", done.entries, done.size, 0, 0), base / "back", 1 << 30, 1000)
    assert _tree(base / "back") == _tree(base / "there")


async def test_any_folder_survives_the_way_through_a_slot(rig: OpenRig, tmp_path: Path) -> None:
    examples: list[dict[bytes, object]] = []

    @settings(max_examples=15, deadline=None, database=None)
    @given(tree=_folders)
    def draw(tree: dict[bytes, object]) -> None:
        examples.append(tree)

    draw()
    async with rig() as r:
        slot = await r.lease()
        for number, tree in enumerate(examples):
            there, back = tmp_path / f"{number}", tmp_path / f"{number}-back"
            _write(os.fsencode(there), tree)
            done = await slot.upload(there, f"{number}")
            assert await slot.download(f"{number}", back) == done
            assert _tree(back) == _tree(there)


# The replies of services.


async def test_a_file_as_services_hand_it_out(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        await slot.write_file("report.json", "{ü}")
        assert await read_artifact(slot, "report.json", include_sha256=True) == {
            "success": True,
            "content": "{ü}",
            "encoding": "text",
            "truncated": False,
            "bytes": 4,
            "file_size": 4,
            "path": "report.json",
            "mime": "application/json",
            "sha256": hashlib.sha256("{ü}".encode()).hexdigest(),
            "error": None,
        }
        binary = bytes(range(256)) * 30_000
        await slot.write_file("binary", binary)
        reply = await read_artifact(slot, "binary", encoding="base64")
        assert base64.b64decode(reply["content"]) == binary[:5_000_000]
        assert (reply["truncated"], reply["bytes"], reply["file_size"]) == (True, 5_000_000, len(binary))
        assert (reply["mime"], reply["sha256"]) == (None, None)
        for path in ("missing", ".", "a\0b"):
            reply = await read_artifact(slot, path)
            assert (reply["success"], reply["content"]) == (False, "")
            assert reply["error"]
            assert "\n" not in reply["error"]
        assert (await read_artifact(slot, "binary", encoding="hex"))["success"] is False  # type: ignore[arg-type]


async def test_a_folder_as_services_hand_it_out(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        await slot.exec("mkdir d; echo hi > d/f; touch -d @3 d d/f")
        entries = [
            {"path": "d", "is_dir": True, "size": 0, "mtime": 3.0},
            {"path": "d/f", "is_dir": False, "size": 3, "mtime": 3.0},
        ]
        listed = {"success": True, "entries": entries, "truncated": False, "error": None}
        assert await list_artifacts(slot) == listed
        assert (await list_artifacts(slot, max_entries=1))["truncated"] is True
        assert (await list_artifacts(slot, "missing"))["success"] is False
        reply = await archive_artifact(slot, "d", format="tgz")
        data = base64.b64decode(reply["content"])
        assert check_archive_of(data) == {b"f": "file"}
        assert (reply["success"], reply["format"], reply["bytes"], reply["entry_count"]) == (True, "tgz", len(data), 1)
        assert (await archive_artifact(slot, "missing"))["error"]
        assert (await archive_artifact(slot, format="zip"))["success"] is False  # type: ignore[arg-type]
        await slot.exec("head -c 5000001 /dev/zero > zeros")
        reply = await archive_artifact(slot)
        assert (reply["success"], reply["content"]) == (False, "")


async def test_the_end_of_a_slot_is_no_reply(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease()
        await slot.release()
        with pytest.raises(LeaseStateError):
            await list_artifacts(slot)
        with pytest.raises(LeaseStateError):
            await read_artifact(slot, "x")
