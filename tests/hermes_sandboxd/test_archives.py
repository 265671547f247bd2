from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from archives import contents, folder, hostile, link, many, member, pax, tar, zeros
from sandboxd_client import is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd_client import Answer, Client, Daemon

pytestmark = pytest.mark.namespaces

_HOSTILE = dict(hostile())


def _extract(client: Client, archive: bytes | bytearray, path: str = "d", **params: Any) -> Answer:  # noqa: ANN401 - those of the protocol
    if len(archive) <= 65536:
        return client.call("slot.extract", bytes(archive), slot=0, path=path, **params)
    return client.upload("slot.extract", bytes(archive), slot=0, path=path, **params)


def _archive(client: Client, path: str = "d", **params: Any) -> Answer:  # noqa: ANN401 - those of the protocol
    return client.call("slot.archive", slot=0, path=path, **params)


# Packing.


def test_a_folder_becomes_an_archive_of_its_content(client: Client) -> None:
    client.sh(
        "mkdir -p d/sub/empty; echo hello > d/f; chmod 750 d/f d/sub; ln -s ../f d/sub/l; ln -s /etc/passwd d/out"
    )
    answer = _archive(client)
    assert contents(answer.bodies["content"]) == {
        "f": ("0", 0o750, b"hello\n"),
        "out": ("2", 0o777, b"/etc/passwd"),
        "sub": ("5", 0o750, b""),
        "sub/empty": ("5", 0o755, b""),
        "sub/l": ("2", 0o777, b"../f"),
    }
    assert {key: answer[key] for key in ("kind", "entries", "size", "skipped", "shortened")} == {
        "kind": "folder",
        "entries": 5,
        "size": 6,
        "skipped": 0,
        "shortened": 0,
    }
    assert _archive(client, "/workspace/d/").bodies == answer.bodies


def test_a_file_becomes_an_archive_of_itself(client: Client) -> None:
    client.sh("mkdir d; echo hello > d/f")
    answer = _archive(client, "d/f")
    assert contents(answer.bodies["content"]) == {"f": ("0", 0o644, b"hello\n")}
    assert answer["kind"] == "file"


def test_an_empty_folder_becomes_an_empty_archive(client: Client) -> None:
    client.sh("mkdir d")
    answer = _archive(client)
    assert (contents(answer.bodies["content"]), answer["entries"]) == ({}, 0)
    assert _extract(client, answer.bodies["content"], "e")["entries"] == 0
    assert client.sh("ls -Ad e").stdout == b"e\n"


def test_what_cannot_be_packed_says_why(client: Client) -> None:
    client.sh("mkdir -p d/closed; mkfifo pipe; ln -s d link; touch d/f; chmod 0 d/closed")
    assert _archive(client, "missing").kind == "not_found"
    assert _archive(client, "pipe").kind == "not_a_file"
    assert _archive(client, "link").kind == "not_a_file"
    assert _archive(client, "d").kind == "permission_denied"
    client.sh("chmod 700 d/closed; chmod 0 d/f")
    assert _archive(client, "d").kind == "permission_denied"


def test_pipes_and_sockets_are_left_out_and_counted(client: Client) -> None:
    client.sh("mkdir d; mkfifo d/p; echo > d/f; python3 -c 'import socket; socket.socket(1).bind(\"d/s\")'")
    answer = _archive(client)
    assert (list(contents(answer.bodies["content"])), answer["skipped"], answer["entries"]) == (["f"], 2, 1)


def test_the_size_of_what_is_packed_is_limited(client: Client) -> None:
    client.sh("mkdir d; cd d; head -c 600000 /dev/urandom > a; head -c 600000 /dev/urandom > b; touch c")
    assert _archive(client, max_bytes=1_199_999).kind == "too_large"
    assert _archive(client, max_entries=2).kind == "too_large"
    assert _archive(client, "d/a", max_bytes=1000).kind == "too_large"
    answer = _archive(client, max_bytes=1_200_000, max_entries=3)
    assert (answer["size"], answer["entries"]) == (1_200_000, 3)
    assert set(contents(answer.bodies["content"])) == {"a", "b", "c"}


def test_files_that_change_while_they_are_read_leave_the_archive_whole(client: Client) -> None:
    client.sh("mkdir d; head -c 5000000 /dev/urandom > d/a; echo end > d/b")
    client.sh("(while :; do head -c 5000000 /dev/urandom > d/a; : > d/a; done) >/dev/null 2>&1 &")
    for _ in range(5):
        answer = _archive(client)
        assert contents(answer.bodies["content"])["b"][2] == b"end\n"
        assert answer["entries"] == 2


def test_a_deep_tree_can_be_packed(client: Client) -> None:
    client.sh("mkdir -p d/$(printf 'x/%.0s' $(seq 200)); echo 1 > d/$(printf 'x/%.0s' $(seq 200))f")
    packed = _archive(client).bodies["content"]
    assert contents(packed)["x/" * 200 + "f"][2] == b"1\n"
    assert _extract(client, packed, "e")["entries"] == 201
    assert client.sh("diff -r d e").stdout == b""


# Unpacking.


def test_an_archive_is_unpacked_to_a_new_folder(client: Client) -> None:
    archive = tar(
        folder("./"),
        folder("sub/", 0o700),
        member("sub/f", b"hello", mode=0o4755),
        link("sub/l", "../top"),
        member("top", b"t", mode=0o400),
        member("hard", kind=b"1", target="sub/f"),
        folder("closed", 0o500),
        member("closed/f", b"x"),
    )
    for packed in (archive, gzip.compress(archive)):
        answer = _extract(client, packed, "a/b", max_entries=7, max_bytes=7)
        assert (answer["entries"], answer["size"]) == (7, 7)
        found = client.sh(
            "cd a/b; find . -printf '%P %y %m %l\n' | sort; cat sub/f top hard closed/f; stat -c %Y top sub"
        )
        assert found.stdout.decode() == (
            " d 755 \nclosed d 500 \nclosed/f f 644 \nhard f 755 \nsub d 700 \nsub/f f 755 \nsub/l l 777 ../top\n"
            "top f 400 \nhellothellox1000000000\n1000000000\n"
        )
        client.sh("chmod -R u+w a; rm -r a")


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_archive_is_refused_whole(client: Client, name: str) -> None:
    assert _extract(client, _HOSTILE[name], "d/e").kind == "bad_archive"
    assert client.sh("ls -A . /tmp").stdout == b".:\n\n/tmp:\n"


@pytest.mark.parametrize("size", [1 << 20, 300 << 20, 10 << 30])
def test_zeros_without_end_are_refused(client: Client, size: int) -> None:
    assert _extract(client, zeros(size), max_bytes=size - 1).kind == "too_large"
    # The header says how much there is; a small lie about it does not help.
    lying = gzip.compress(member("zeros", size=10) + bytes(50 << 20))
    assert _extract(client, lying, max_bytes=1 << 20, max_entries=10).kind in ("too_large", "bad_archive")
    assert client.sh("ls -A").stdout == b""


def test_a_million_entries_are_refused(client: Client) -> None:
    bomb = many(1_000_000)
    assert _extract(client, bomb).kind == "too_large"
    assert _extract(client, gzip.compress(tar(*[folder("./")] * 5000)), max_entries=100).kind == "too_large"
    deep = gzip.compress(tar(*[member(f"{n}/" + "x/" * 45 + "f") for n in range(100)]))
    assert _extract(client, deep, max_entries=4000).kind == "too_large"
    assert client.sh("ls -A").stdout == b""


def test_a_body_larger_than_anything_that_it_may_unpack_to_is_refused_before_it_is_sent(client: Client) -> None:
    request = client.send("slot.extract", slot=0, path="d", max_bytes=10, max_entries=10, body={"size": 10 << 20})
    assert client.wait(request).kind == "too_large"
    assert client.call("slot.extract", slot=0, path="d", body={"size": 1 << 50}).kind == "too_large"


def test_nothing_is_written_through_what_the_agent_has_put_in_the_way(client: Client) -> None:
    client.sh(
        "mkdir -p d out; echo mine > out/file; ln -s ../out d/folder; ln -s ../out/file d/file; ln -s /dev/full d/full;"
        "mkfifo d/pipe; ln -s nowhere d/link; ln out/file d/hard; echo old > d/kept"
    )
    archive = tar(
        member("folder/file", b"1"),
        member("file", b"2"),
        member("full", b"3"),
        member("pipe", b"4"),
        link("link", "file"),
        member("hard", b"5"),
    )
    assert _extract(client, archive)["entries"] == 7
    found = client.sh(
        "cat out/file d/kept; cat d/folder/file d/file d/full d/pipe d/link d/hard; find d -type p -o -type l"
    )
    assert found.stdout == b"mine\nold\n123425d/link\n"


def test_a_folder_is_not_replaced_by_a_file(client: Client) -> None:
    client.sh("mkdir -p d/a d/b; echo > d/b/f")
    for what in (member("a", b"x"), link("b", "c")):
        answer = _extract(client, tar(member("first", b"x"), what))
        assert answer.kind == "is_directory"
    assert client.sh("find d | sort").stdout == b"d\nd/a\nd/b\nd/b/f\n"


def test_where_nothing_can_be_written_it_is_said(client: Client) -> None:
    archive = tar(member("f", b"x" * 3_000_000))
    assert _extract(client, archive, "/usr/x").kind == "permission_denied"
    client.sh("echo > file")
    assert _extract(client, archive, "file").kind == "not_a_file"
    assert _extract(client, archive, "file/x").kind in ("not_found", "not_a_file")
    client.open(1, limits={"tmp_bytes": 1 << 20})
    assert client.upload("slot.extract", bytes(archive), slot=1, path="/tmp/d").kind == "no_space"
    client.call("slot.reset", slot=1)


def test_archives_of_others_can_be_read(client: Client) -> None:
    for format_ in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", format=format_) as archive:
            info = tarfile.TarInfo("a" * 90 + "/" + "b" * 90)
            info.size, info.mtime, info.uname = 5, 1234.5, "somebody"
            if format_ == tarfile.USTAR_FORMAT:
                info.mtime = 1234
            archive.addfile(info, io.BytesIO(b"hello"))
        assert _extract(client, packed.getvalue())["entries"] == 2
        assert client.sh("cat d/*/*; rm -r d").stdout == b"hello"
    made = client.sh("mkdir s; echo 1 > s/ü; tar czf a.tgz -C s . && tar cf a.tar s/ü").stderr
    assert made == b""
    assert _extract(client, client.call("slot.read", slot=0, path="a.tgz").bodies["content"])["entries"] == 1
    assert _extract(client, client.call("slot.read", slot=0, path="a.tar").bodies["content"])["entries"] == 2
    comment = tar(pax(("comment", "0123456789abcdef"), kind=b"g"), pax(("mtime", "1.5")), member("f", b"x"))
    assert _extract(client, comment)["entries"] == 1


def test_what_was_packed_is_unpacked_the_same(client: Client) -> None:
    client.sh(
        r"""mkdir -p d/empty d/closed; cd d; head -c 10000000 /dev/urandom > large; : > nothing; ln -s large l
        touch "$(printf 'a\377b')" 'line
break' ' ' '\' ./-; ln -s "$(printf '\376')" odd; echo x > %s; echo y > closed/f; chmod 555 closed; chmod 641 nothing
        ln -s %s longlink""".replace("%s", "n" * 200)
    )
    packed = _archive(client).bodies["content"]
    assert len(packed) > 10_000_000
    assert _extract(client, packed, "e")["entries"] == 14
    assert _archive(client, "e").bodies["content"] == packed
    assert client.sh("diff -r --no-dereference d e; stat -c %a e/closed e/nothing").stdout == b"555\n641\n"
    client.sh("chmod 755 d/closed e/closed")


# The child that does it.


def _workers(daemon: Daemon) -> list[int]:
    """The children of supervisors that do the work of a request: those of a supervisor that have its command line."""
    found = []
    for pid in daemon.descendants():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            inner = Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].split("\n")[0].split()
        except OSError:
            continue
        if b"sandboxd" in line and len(inner) > 1:
            found.append(pid)
    return found


def _begin(client: Client, slot: int = 0) -> int:
    """Begin to pack something that nobody takes, so that it cannot end."""
    client.sh("mkdir -p d; head -c 30000000 /dev/urandom > d/f", slot=slot)
    client.auto_credit = False
    return client.send("slot.archive", slot=slot, path="d")


def test_a_cancelled_request_leaves_nothing_running(client: Client, shared_daemon: Daemon) -> None:
    request = _begin(client)
    wait_until(lambda: len(_workers(shared_daemon)) == 1)
    client.notify("cancel", id=request)
    assert client.wait(request).kind == "cancelled"
    assert _workers(shared_daemon) == []
    client.auto_credit = True
    request = client.send("slot.extract", slot=0, path="e", body={"size": 1 << 20})
    client.notify("data", b"abc", id=request, channel="body", offset=0)
    wait_until(lambda: len(_workers(shared_daemon)) == 1)
    client.notify("cancel", id=request)
    assert client.wait(request).kind == "cancelled"
    assert _workers(shared_daemon) == []
    assert client.sh("ls -A").stdout == b"d\n"


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_an_agent_that_ends_the_child_is_told_and_harms_nobody_else(client: Client, signal: str) -> None:
    """The agent sends the signal to every process that was not there before."""
    program = f"""
import glob, os, signal
before = set(glob.glob("/proc/[0-9]*"))
if os.fork() == 0:
    for descriptor in range(3):
        os.close(descriptor)
    before.add(f"/proc/{{os.getpid()}}")
    while True:
        for path in set(glob.glob("/proc/[0-9]*")) - before:
            try:
                os.kill(int(path[6:]), signal.SIG{signal})
                os._exit(0)
            except OSError:
                pass
"""
    client.sh("mkdir -p d; head -c 5000000 /dev/urandom > d/f")
    client.auto_credit = False
    assert client.call("slot.exec", slot=0, argv=["python3", "-c", program])["exit_code"] == 0
    assert _archive(client).kind == "interrupted"
    client.auto_credit = True
    assert client.sh("echo fine").stdout == b"fine\n"
    assert _archive(client)["entries"] == 1


def test_the_child_has_nothing_of_the_supervisor_but_its_pipes(client: Client, shared_daemon: Daemon) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may look at the child")
    request = _begin(client)
    wait_until(lambda: len(_workers(shared_daemon)) == 1)
    (worker,) = _workers(shared_daemon)
    wait_until(lambda: len(os.listdir(f"/proc/{worker}/fd")) == 6)
    kinds = sorted(
        os.readlink(f"/proc/{worker}/fd/{name}").partition(":")[0] for name in os.listdir(f"/proc/{worker}/fd")
    )
    assert kinds == ["/dev/null", "/workspace/d", "/workspace/d/f", "pipe", "pipe", "pipe"]
    assert Path(f"/proc/{worker}/oom_score_adj").read_text() == "1000\n"
    assert "CapEff:\t0000000000000000" in Path(f"/proc/{worker}/status").read_text()
    client.notify("cancel", id=request)
    client.wait(request)
    assert not is_alive(worker)


def test_a_transfer_does_not_hold_up_another_slot_nor_fill_the_memory(client: Client, shared_daemon: Daemon) -> None:
    client.open(1)
    request = _begin(client)
    for number in range(50):
        assert client.sh(f"echo {number}", slot=1).stdout == b"%d\n" % number
    assert not client.has_answer(request)
    assert client.call("health")["pss_bytes"] < 60 << 20
    client.notify("cancel", id=request)
    client.wait(request)
    client.call("slot.reset", slot=1)


def test_a_reset_ends_a_transfer(client: Client, start: Callable[..., Daemon]) -> None:
    daemon = start()
    own = daemon.client()
    own.open(0)
    request = _begin(own)
    wait_until(lambda: len(_workers(daemon)) == 1)
    own.close()
    daemon.stop()
    assert request > 0
