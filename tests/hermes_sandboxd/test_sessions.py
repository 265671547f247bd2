from __future__ import annotations

import random
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sandboxd_client import processes_with, wait_until

from hermes_sandboxd import encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd_client import Answer, Client, Daemon

pytestmark = pytest.mark.namespaces


def test_hello_says_what_the_daemon_is(shared_daemon: Daemon) -> None:
    hello = shared_daemon.client("hello").hello
    assert hello["protocol"] == 1
    assert hello["daemon_id"] == shared_daemon.ready["daemon_id"]
    assert (hello["resumed"], hello["isolation"], hello["capacity"]) == (False, "namespaces", 8)
    assert hello["limits"]["wall_time"]
    assert shared_daemon.client("hello").hello["resumed"]


def test_nothing_is_served_before_hello(shared_daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(5)
        stream.connect(shared_daemon.socket)
        stream.sendall(encode_frame({"jsonrpc": "2.0", "id": 1, "method": "health", "params": {}}))
        assert b"unauthorized" in stream.recv(4096)
        assert stream.recv(4096) == b""


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"x" * 70000, b"[1]\n", b'{"id":1,"method":7}\n'])
def test_a_stranger_is_hung_up_on(shared_daemon: Daemon, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(5)
        stream.connect(shared_daemon.socket)
        try:
            stream.sendall(data)
            while stream.recv(4096):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert shared_daemon.client("after").hello.error is None


def test_wrong_protocol(shared_daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(5)
        stream.connect(shared_daemon.socket)
        params: dict[str, Any] = {"protocol": 99, "token": None, "session": "x", "features": []}
        stream.sendall(encode_frame({"jsonrpc": "2.0", "id": 1, "method": "hello", "params": params}))
        assert b"unsupported_protocol" in stream.recv(4096)
        assert stream.recv(4096) == b""


def test_a_token_is_checked(start: Callable[..., Daemon]) -> None:
    daemon = start("--tcp", "127.0.0.1:0", env={"HERMES_SANDBOX_TOKEN": "sécret"})
    assert daemon.tcp_client(token=None).hello.kind == "unauthorized"
    assert daemon.tcp_client(token="wrong").hello.kind == "unauthorized"
    assert daemon.client(token="sécre").hello.kind == "unauthorized"
    client = daemon.tcp_client(token="sécret")
    client.open(0)
    assert client.sh("env; cat /proc/self/environ").stdout.count("sécret".encode()) == 0
    daemon.stop()


def test_a_port_that_is_taken_is_told_in_one_line(
    start: Callable[..., Daemon], capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        daemon = start("--tcp", address, env={"HERMES_SANDBOX_TOKEN": "secret"})
        assert daemon.process.wait(10) == 1  # and not 2: another port will do
    assert capfd.readouterr().err == f"hermes-sandboxd: cannot listen at {address}: Address already in use\n"
    assert not Path(daemon.socket).exists()


def test_tcp_without_a_token_is_refused(start: Callable[..., Daemon]) -> None:
    daemon = start("--tcp", "127.0.0.1:0")
    assert daemon.process.wait(10) == 2
    assert daemon.ready == {}


def _reconnect(daemon: Daemon, old: Client) -> Client:
    client = daemon.client(old.session)
    assert client.hello["resumed"]
    client.take_over(old)
    return client


def test_a_thousand_calls_across_dropped_connections_run_once_each(start: Callable[..., Daemon]) -> None:
    daemon = start()
    client = daemon.client("many")
    for slot in range(4):
        client.open(slot)
    chance = random.Random(7)
    pending: dict[int, dict[str, Any]] = {}
    answered: dict[int, Answer] = {}
    sent = drops = 0
    while len(answered) < 1000:
        while sent < 1000 and len(pending) < 100:
            slot = sent % 4
            params: dict[str, Any] = {"slot": slot, "argv": ["/bin/sh", "-c", f"echo {sent} >> runs; echo {sent}"]}
            pending[client.send("slot.exec", **params)] = params
            sent += 1
        if chance.random() < 0.03:
            drops += 1
            if chance.random() < 0.5:
                client.close()
            # Otherwise the old connection is left half-open, and evicted by the new one.
            client = _reconnect(daemon, client)
            for request_id, params in pending.items():
                if not client.has_answer(request_id):
                    client.send_as(request_id, "slot.exec", _resume={}, **params)
            continue
        request_id = next(iter(pending))
        answered[request_id] = client.wait(request_id)
        del pending[request_id]
    assert drops > 5
    assert sorted(int(answer.stdout) for answer in answered.values()) == list(range(1000))
    runs = [int(line) for slot in range(4) for line in client.sh("cat runs", slot=slot).stdout.split()]
    assert sorted(runs) == list(range(1000))
    daemon.stop()


def test_a_large_answer_is_resumed_where_it_stopped(shared_daemon: Daemon) -> None:
    first = shared_daemon.client("resume-answer")
    first.open(5)
    first.auto_credit = False
    argv = ["/bin/sh", "-c", "echo run >> runs; seq 1 600000"]
    request = first.send("slot.exec", slot=5, argv=argv, output_cap=1 << 23)
    while len(first.answer(request).bodies.get("stdout", b"")) < 500000:
        first.step()
    have = first.answer(request).bodies["stdout"][:400001]
    first.close()
    client = _reconnect(shared_daemon, first)
    client.answer(request).bodies["stdout"] = have
    client.send_as(request, "slot.exec", _resume={"stdout": len(have)}, slot=5, argv=argv, output_cap=1 << 23)
    assert client.wait(request).stdout == b"".join(b"%d\n" % number for number in range(1, 600001))
    assert client.sh("cat runs", slot=5).stdout == b"run\n"
    client.call("slot.reset", slot=5)


def test_live_output_is_resumed(shared_daemon: Daemon) -> None:
    first = shared_daemon.client("resume-live")
    first.open(5)
    params: dict[str, Any] = {"slot": 5, "argv": ["/bin/sh", "-c", "seq 1 500000"], "stream": True, "output_cap": 100}
    request = first.send("slot.exec", **params)
    while sum(len(data) for _, _, data in first.answer(request).live) < 1500000:
        first.step()
    live = first.answer(request).live
    first.close()
    client = _reconnect(shared_daemon, first)
    client.send_as(request, "slot.exec", _resume={"output:stdout": sum(len(data) for _, _, data in live)}, **params)
    done = client.wait(request)
    assert done["stdout_bytes"] == 3388895
    assert b"".join(data for _, _, data in live + done.live) == b"".join(b"%d\n" % n for n in range(1, 500001))
    client.call("slot.reset", slot=5)


def test_a_new_connection_gets_nothing_before_it_says_what_it_has(shared_daemon: Daemon) -> None:
    first = shared_daemon.client("quiet")
    first.open(5)
    argv = ["/bin/sh", "-c", "echo one; sleep 0.3; echo two; sleep 0.3"]
    params: dict[str, Any] = {"slot": 5, "argv": argv, "stream": True}
    request = first.send("slot.exec", **params)
    while not first.answer(request).live:
        first.step()
    first.close()
    client = _reconnect(shared_daemon, first)
    wait_until(lambda: client.call("health")["slots"]["5"]["running"] is None)
    assert client.answer(request).live == []
    assert not client.has_answer(request)
    client.send_as(request, "slot.exec", _resume={"output:stdout": 4}, **params)
    done = client.wait(request)
    assert done.live == [("stdout", 4, b"two\n")]
    assert done.stdout == b"one\ntwo\n"
    client.call("slot.reset", slot=5)


def test_an_upload_is_resumed(shared_daemon: Daemon) -> None:
    first = shared_daemon.client("resume-upload")
    first.open(5)
    content = bytes(range(256)) * 20000
    params: dict[str, Any] = {"slot": 5, "path": "f", "body": {"size": len(content)}}
    request = first.send("slot.write", **params)
    for offset in range(0, 1 << 20, 65536):
        first.notify("data", content[offset : offset + 65536], id=request, channel="body", offset=offset)
    first.close()
    client = _reconnect(shared_daemon, first)
    client.send_as(request, "slot.write", _resume={}, **params)
    client.feed(request, content)
    assert client.wait(request)["size"] == len(content)
    assert client.call("slot.read", slot=5, path="f").bodies["content"] == content
    client.call("slot.reset", slot=5)


def test_an_answer_is_kept_until_it_is_acknowledged(shared_daemon: Daemon) -> None:
    client = shared_daemon.client("ack")
    client.open(5)
    client.auto_ack = False
    request = client.send("slot.exec", slot=5, argv=["/bin/sh", "-c", "echo run >> runs; echo once"])
    assert client.wait(request).stdout == b"once\n"
    client.send_as(request, "slot.exec", slot=5, argv=["never", "looked", "at"])
    assert client.wait(request).stdout == b"once\n"
    client.notify("ack", ids=[request])
    client.send_as(request, "slot.exec", slot=5, argv=["true"])
    assert client.wait(request).kind == "stale_id"
    client.send_as(1, "health")
    assert client.wait(1).kind == "stale_id"
    client.auto_ack = True
    assert client.sh("cat runs", slot=5).stdout == b"run\n"
    client.call("slot.reset", slot=5)


def test_orphans_are_closed_after_a_grace(start: Callable[..., Daemon]) -> None:
    daemon = start(orphan_grace_s=0.5)
    client = daemon.client("orphan")
    client.open(0)
    client.send_sh("sleep 4242.21")
    wait_until(lambda: len(processes_with("4242.21")) > 0)
    client.close()
    watcher = daemon.client("watcher")
    assert watcher.call("health")["slots"]["0"]["running"] == "slot.exec"
    wait_until(lambda: processes_with("4242.21") == [])
    wait_until(lambda: watcher.call("health")["slots"] == {})
    watcher.open(0)
    assert not daemon.client("orphan").hello["resumed"]
    daemon.stop()


def test_a_session_that_comes_back_in_time_keeps_its_slots(start: Callable[..., Daemon]) -> None:
    daemon = start(orphan_grace_s=2.0)
    client = daemon.client("back")
    client.open(0)
    for _ in range(3):  # longer away in all than the grace, but never at once
        client.close()
        time.sleep(0.8)
        client = _reconnect(daemon, client)
    time.sleep(1.4)
    assert client.sh("echo here").stdout == b"here\n"
    daemon.stop()


def test_a_slot_is_one_sessions_own(shared_daemon: Daemon, client: Client) -> None:
    other = shared_daemon.client("other")
    assert other.sh("true").kind == "unknown_slot"
    assert other.call("slot.open", slot=0).kind == "slot_busy"
    assert other.call("slot.reset", slot=0).kind == "unknown_slot"
    assert other.call("slot.open", slot=8).kind == "unknown_slot"
    assert client.call("slot.open", slot=0).kind == "slot_busy"
    assert client.call("no.such").error is not None
    assert client.call("health")["slots"]["0"]["session"] == client.session


def test_requests_may_be_sent_ahead(shared_daemon: Daemon) -> None:
    client = shared_daemon.client("ahead")
    ids = [
        client.send("slot.open", slot=6),
        client.send_sh("echo 1 > f; cat f", slot=6),
        client.send("slot.reset", slot=6),
        client.send("slot.open", slot=6),
        client.send_sh("ls -A", slot=6),
        client.send("slot.reset", slot=6),
        client.send_sh("true", slot=6),
    ]
    answers = [client.wait(request) for request in ids]
    assert answers[1].stdout == b"1\n"
    assert answers[4].stdout == b""
    assert answers[5]["clean"]
    assert answers[6].kind == "unknown_slot"


def test_gigabytes_of_one_slot_do_not_delay_another(client: Client) -> None:
    client.open(1)
    flood = client.send("slot.exec", slot=1, argv=["head", "-c", "300000000", "/dev/zero"], stream=True, output_cap=100)
    times = []
    while client.answer(flood).result is None:
        start = time.monotonic()
        assert client.sh("true")["exit_code"] == 0
        times.append(time.monotonic() - start)
        client.answer(flood).live.clear()
    assert client.wait(flood)["stdout_bytes"] == 300000000
    # The bar is 5 ms on a quiet machine; this one is shared with every other test.
    assert sorted(times)[len(times) // 2] < 0.1
    client.call("slot.reset", slot=1)


def test_a_session_that_ends_leaves_its_slots_to_others(start: Callable[..., Daemon]) -> None:
    daemon = start()
    client, other = daemon.client("one"), daemon.client("two")
    for slot in (0, 1):
        client.open(slot)
    client.sh("echo mine > file; setsid sleep 4242.41 &")
    running = client.send_sh("sleep 4242.41", slot=1)
    wait_until(lambda: len(processes_with("4242.41")) >= 2)
    assert other.call("slot.open", slot=0).kind == "slot_busy"
    assert client.call("session.end").result == {"unclean": []}
    assert client.wait(running).kind == "shutting_down"
    assert processes_with("4242.41") == []
    for slot in (0, 1):
        other.open(slot)
        assert other.sh("ls -A", slot=slot).stdout == b""
    assert client.call("slot.open", slot=2).kind == "session_ended"
    assert client.call("health").kind == "session_ended"
    assert not daemon.client("one").hello["resumed"]
    daemon.stop()


def test_a_session_ends_while_a_slot_is_being_opened(start: Callable[..., Daemon]) -> None:
    daemon = start()
    client = daemon.client("one")
    opening = client.send("slot.open", slot=0)
    assert client.call("session.end").result == {"unclean": []}
    assert client.has_answer(opening)
    client.close()
    other = daemon.client("two")
    assert other.call("health")["slots"] == {}
    other.open(0)
    assert other.call("session.end").error is None
    other.close()
    daemon.stop()


def test_hello_tells_why_no_slot_can_be_opened(shared_daemon: Daemon, start: Callable[..., Daemon]) -> None:
    assert shared_daemon.client("well").hello["obstacle"] is None
    without = start("--isolation", "namespaces", bwrap="/nothing")
    assert "cannot be run" in without.client().hello["obstacle"]
