from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sandboxd_client import Client

pytestmark = pytest.mark.namespaces


def test_small_files(client: Client) -> None:
    assert client.call("slot.write", b"hello", slot=0, path="a/b.txt", parents=True, mode=0o750)["size"] == 5
    assert client.sh("stat -c %a a/b.txt; cat a/b.txt").stdout == b"750\nhello"
    read = client.call("slot.read", slot=0, path="/workspace/a/b.txt", sha256=True)
    assert (read["size"], read.bodies["content"]) == (5, b"hello")
    assert read["sha256"] == hashlib.sha256(b"hello").hexdigest()
    part = client.call("slot.read", slot=0, path="a/b.txt", offset=1, length=3, sha256=True)
    assert (part.bodies["content"], part["size"], part["sha256"]) == (b"ell", 5, read["sha256"])
    assert client.call("slot.read", slot=0, path="a/b.txt", offset=99).bodies["content"] == b""
    assert client.sh("ls -A a").stdout == b"b.txt\n"


def test_large_files_both_ways(client: Client) -> None:
    content = bytes(range(256)) * 40000 + b"end"
    assert client.upload("slot.write", content, slot=0, path="large")["size"] == len(content)
    read = client.call("slot.read", slot=0, path="large", sha256=True)
    assert read.bodies["content"] == content
    assert read["sha256"] == hashlib.sha256(content).hexdigest()
    assert client.call("slot.read", slot=0, path="large", offset=len(content) - 3).bodies["content"] == b"end"


def test_files_of_every_size_around_the_limits(client: Client) -> None:
    for size in (0, 1, 65535, 65536, 65537, 131072, (1 << 20) + 1):
        content = b"x" * size
        client.upload("slot.write", content, slot=0, path="f")
        assert client.call("slot.read", slot=0, path="f").bodies["content"] == content


def test_only_regular_files_are_touched(client: Client) -> None:
    client.sh("mkfifo fifo; ln -s /dev/zero zero; ln -s a a; mkdir dir; ln -s nowhere dangling")
    for path, kind in {
        "fifo": "not_a_file",
        "zero": "not_a_file",
        "/dev/zero": "not_a_file",
        "dir": "is_directory",
        "missing": "not_found",
        "a": "not_found",
        "dangling": "not_found",
        "fifo/x": "not_found",
    }.items():
        assert client.call("slot.read", slot=0, path=path).kind == kind, path
    for path, kind in {
        "fifo": "not_a_file",
        "zero": "not_a_file",
        "dir": "is_directory",
        "no/parent": "not_found",
        "/etc/passwd": "permission_denied",
        "/usr/x": "permission_denied",
    }.items():
        assert client.call("slot.write", b"x", slot=0, path=path).kind == kind, path
    assert client.call("slot.write", b"x", slot=0, path="n" * 300).kind == "not_found"
    assert client.call("slot.write", b"x", slot=0, path="a\0b").kind == "bad_request"


def test_a_link_stays_a_link_and_its_target_changes(client: Client) -> None:
    client.sh("echo old > target; ln -s target link")
    client.call("slot.write", b"new", slot=0, path="link")
    assert client.sh("readlink link; cat target").stdout == b"target\nnew"


def test_a_file_in_a_folder_that_cannot_be_written_is_written_in_place(client: Client) -> None:
    client.sh("mkdir d; echo old > d/f; chmod 555 d")
    assert client.call("slot.write", b"n", slot=0, path="d/f")["size"] == 1
    assert client.sh("cat d/f").stdout == b"n"
    assert client.call("slot.write", b"n", slot=0, path="d/g").kind in ("permission_denied", "not_found")


def test_limits_of_size(client: Client) -> None:
    client.sh("head -c 2000000 /dev/zero > f")
    assert client.call("slot.read", slot=0, path="f", max_bytes=1000).kind == "too_large"
    assert client.call("slot.read", slot=0, path="f", length=1000, max_bytes=1000)["bodies"] == {"content": 1000}
    assert client.call("slot.write", b"x" * 11, slot=0, path="g", max_bytes=10).kind == "too_large"
    assert client.upload("slot.write", bytes(1 << 21), slot=0, path="g", max_bytes=10).kind == "too_large"
    assert client.sh("ls -A").stdout == b"f\n"


def test_a_full_file_system_is_said(client: Client) -> None:
    client.open(1, limits={"tmp_bytes": 1 << 20})
    assert client.upload("slot.write", bytes(2 << 20), slot=1, path="/tmp/f").kind == "no_space"
    assert client.sh("ls -A /tmp", slot=1).stdout == b""
    client.call("slot.reset", slot=1)


def test_files_of_the_kernel_can_be_read(client: Client) -> None:
    assert b"MemTotal" in client.call("slot.read", slot=0, path="/proc/meminfo").bodies["content"]


def test_a_transfer_can_be_cancelled(client: Client) -> None:
    client.sh("head -c 5000000 /dev/zero > f")
    client.auto_credit = False
    reading = client.send("slot.read", slot=0, path="f")
    writing = client.send("slot.write", slot=0, path="g", body={"size": 5000000})
    client.notify("data", b"abc", id=writing, channel="body", offset=0)
    client.notify("cancel", id=reading)
    assert client.wait(reading).kind == "cancelled"
    client.notify("cancel", id=writing)
    assert client.wait(writing).kind == "cancelled"
    assert client.sh("ls -A").stdout == b"f\n"
