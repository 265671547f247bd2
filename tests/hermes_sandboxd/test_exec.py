from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from sandboxd_client import processes_with, wait_until

if TYPE_CHECKING:
    from sandboxd_client import Client

pytestmark = pytest.mark.namespaces


def test_output_and_exit_code(client: Client) -> None:
    done = client.sh("echo out; echo err >&2; exit 3")
    assert (done["exit_code"], done["signal"], done.stdout, done.stderr) == (3, None, b"out\n", b"err\n")
    assert (done["timed_out"], done["cancelled"], done["limit"], done["truncated"]) == (False, False, None, False)
    assert (done["stdout_bytes"], done["stderr_bytes"]) == (4, 4)
    assert 0 < done["duration_s"] < 60


def test_a_signal_is_no_exit_code(client: Client) -> None:
    done = client.sh("kill -11 $$")
    assert (done["exit_code"], done["signal"]) == (None, 11)


def test_argv_is_run_directly(client: Client) -> None:
    assert client.call("slot.exec", slot=0, argv=["printf", "%s|", "a b", "$HOME", ""]).stdout == b"a b|$HOME||"


def test_a_command_that_cannot_be_started_is_a_result(client: Client) -> None:
    missing = client.call("slot.exec", slot=0, argv=["no-such-program"])
    assert (missing["exit_code"], missing.stderr) == (127, b"hermes: no-such-program: not found\n")
    live = client.call("slot.exec", slot=0, argv=["no-such-program"], stream=True).live
    assert b"".join(data for stream, _, data in live if stream == "stderr") == missing.stderr
    client.call("slot.write", b"#!/bin/sh\n", slot=0, path="plain")
    assert client.call("slot.exec", slot=0, argv=["./plain"])["exit_code"] == 126
    assert client.call("slot.exec", slot=0, argv=["/workspace"])["exit_code"] == 126
    assert client.sh("true", cwd="/nowhere")["exit_code"] == 126
    huge = client.call("slot.exec", slot=0, argv=["/bin/echo", *(["x" * 1000] * 60)])
    assert huge["exit_code"] == 0


def test_the_environment_is_clean_and_layered(client: Client) -> None:
    client.open(1, env={"A": "slot", "B": "slot"})
    done = client.sh("env | sort", slot=1, env={"B": "call"})
    assert done.stdout.decode().split() == [
        "A=slot",
        "B=call",
        "HOME=/home/agent",
        "LANG=C.UTF-8",
        "LOGNAME=agent",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PWD=/workspace",
        "SHELL=/bin/sh",
        "TERM=dumb",
        "USER=agent",
    ]
    client.call("slot.reset", slot=1)


def test_cwd_is_relative_to_the_workspace(client: Client) -> None:
    client.sh("mkdir -p a/b")
    assert client.sh("pwd", cwd="a/b").stdout == b"/workspace/a/b\n"
    assert client.sh("pwd", cwd="/tmp").stdout == b"/tmp\n"
    assert client.sh("pwd").stdout == b"/workspace\n"


def test_standard_input(client: Client) -> None:
    assert client.call("slot.exec", b"hello", slot=0, argv=["cat"]).stdout == b"hello"
    assert client.sh("cat; echo end").stdout == b"end\n"
    large = bytes(range(256)) * 20000
    done = client.upload("slot.exec", large, slot=0, argv=["md5sum"], output_cap=1 << 23)
    assert done["exit_code"] == 0
    assert client.upload("slot.exec", large, slot=0, argv=["cat"], output_cap=1 << 23).stdout == large


def test_input_that_nobody_reads_does_no_harm(client: Client) -> None:
    assert client.upload("slot.exec", bytes(5 << 20), slot=0, argv=["true"])["exit_code"] == 0
    assert client.upload("slot.exec", bytes(5 << 20), slot=0, argv=["head", "-c", "3"]).stdout == bytes(3)
    assert client.sh("echo still").stdout == b"still\n"


def test_output_is_capped_head_and_tail(client: Client) -> None:
    done = client.sh("printf start; head -c 5000000 /dev/zero | tr '\\0' x; printf end", output_cap=1000)
    assert done["truncated"]
    assert done["stdout_bytes"] == 5000008
    head, tail = done.stdout.split(b"\n[hermes: 4999008 bytes left out]\n")
    assert (len(head), len(tail)) == (500, 500)
    assert head.startswith(b"start")
    assert tail.endswith(b"xend")
    exact = client.sh("printf 0123456789", output_cap=10)
    assert (exact.stdout, exact["truncated"]) == (b"0123456789", False)
    assert client.sh("printf 0123456789", output_cap=0).stdout == b"\n[hermes: 10 bytes left out]\n"


def test_large_output_arrives_whole(client: Client) -> None:
    done = client.sh("seq 1 400000; seq 1 300000 >&2", output_cap=1 << 23)
    assert done.stdout == b"".join(b"%d\n" % number for number in range(1, 400001))
    assert done.stderr == b"".join(b"%d\n" % number for number in range(1, 300001))


def test_background_children_delay_nothing_and_live_on(client: Client) -> None:
    start = time.monotonic()
    done = client.sh("sleep 100 & echo started; echo to-err >&2")
    assert (done.stdout, done.stderr) == (b"started\n", b"to-err\n")
    assert time.monotonic() - start < 60
    # It also keeps a working output: nobody gets SIGPIPE because a call ended.
    assert client.sh("(sleep 0.2; echo late; echo late; touch survived) & echo now").stdout == b"now\n"
    wait_until(lambda: client.sh("test -e survived")["exit_code"] == 0)
    assert client.sh("pgrep -x sleep | wc -l; pkill sleep; true").stdout == b"1\n"


def test_all_that_a_command_wrote_arrives_though_its_pipe_stays_open(client: Client) -> None:
    for _ in range(20):
        done = client.sh("sleep 100 & head -c 60000 /dev/zero; head -c 60000 /dev/zero >&2")
        assert (done["stdout_bytes"], done["stderr_bytes"]) == (60000, 60000)


def test_a_background_child_that_writes_without_end_cannot_hold_a_call(client: Client) -> None:
    start = time.monotonic()
    assert client.sh("yes & yes >&2 & echo done")["exit_code"] == 0
    assert client.sh("echo next").stdout == b"next\n"
    assert time.monotonic() - start < 60


def test_a_timeout_kills_the_tree(client: Client) -> None:
    marker = "4242.17"
    command = f"""
    echo before
    setsid sh -c 'trap "" TERM HUP INT; sleep {marker}; sleep {marker}' >/dev/null 2>&1 &
    (sleep {marker} &)
    python3 -c '
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.execvp("sleep", ["sleep", "{marker}"])
    os._exit(0)
' &
    sleep {marker}
    """
    start = time.monotonic()
    done = client.sh(command, timeout_s=1.0)
    assert time.monotonic() - start < 60
    assert (done["timed_out"], done["exit_code"], done["signal"], done.stdout) == (True, None, 9, b"before\n")
    assert processes_with(marker) == []
    assert client.sh("echo usable").stdout == b"usable\n"


def test_a_timeout_spares_what_was_alive_before(client: Client) -> None:
    client.sh("sh -c 'while :; do sleep 0.05; echo x >> beats; done' >/dev/null 2>&1 &")
    done = client.sh("setsid sleep 4242.18 & sleep 4242.18", timeout_s=0.5)
    assert done["timed_out"]
    assert processes_with("4242.18") == []
    before = int(client.sh("wc -l < beats").stdout)
    wait_until(lambda: int(client.sh("wc -l < beats").stdout) > before)


def test_a_timeout_ends_a_fork_bomb(client: Client) -> None:
    client.sh("sleep 4242.19 &")
    bomb = "f() { while :; do f & sleep 0.001; done; }; f 2>/dev/null & sleep 4242.19"
    argv = ["prlimit", "--nproc=150", "/bin/sh", "-c", bomb]
    done = client.call("slot.exec", slot=0, argv=argv, timeout_s=0.3)
    assert done.kind == "slot_dead" or done["timed_out"]
    assert client.call("slot.reset", slot=0)["clean"]
    client.open(0)


def test_cancelling_kills_and_still_answers(client: Client) -> None:
    running = client.send_sh("echo begun; setsid sleep 4242.20 & sleep 4242.20")
    waiting = client.send_sh("echo never")
    time.sleep(0.2)
    client.notify("cancel", id=waiting)
    client.notify("cancel", id=running)
    client.notify("cancel", id=running)
    done = client.wait(running)
    assert (done["cancelled"], done["exit_code"], done.stdout) == (True, None, b"begun\n")
    assert client.wait(waiting).kind == "cancelled"
    assert processes_with("4242.20") == []
    assert client.sh("echo usable").stdout == b"usable\n"


def test_requests_of_a_slot_run_in_order_and_slots_do_not_wait(client: Client) -> None:
    client.open(1)
    first = client.send_sh("sleep 2; echo first >> order")
    second = client.send_sh("cat order")
    assert client.sh("echo other", slot=1).stdout == b"other\n"
    assert not client.has_answer(first)
    assert client.wait(second).stdout == b"first\n"
    assert client.wait(first)["exit_code"] == 0
    client.call("slot.reset", slot=1)


def test_live_output(client: Client) -> None:
    request = client.send_sh("echo one; sleep 0.2; echo two; echo three >&2", stream=True)
    while not client.answer(request).live:
        client.step()
    assert client.answer(request).live == [("stdout", 0, b"one\n")]
    done = client.wait(request)
    assert b"".join(data for stream, _, data in done.live if stream == "stdout") == b"one\ntwo\n"
    assert b"".join(data for stream, _, data in done.live if stream == "stderr") == b"three\n"
    assert (done.stdout, done.stderr) == (b"one\ntwo\n", b"three\n")


def test_live_output_waits_for_its_reader(client: Client) -> None:
    client.auto_credit = False
    request = client.send_sh("cat /dev/zero", stream=True)
    received = 0
    while received < 1 << 20:
        message, body = client.receive()
        assert message["method"] == "output"
        received += len(body or b"")
    assert received == 1 << 20
    client.open(1)
    client.notify("credit", id=request, bytes=10)
    message, body = client.receive()
    assert (message["method"], len(body or b"")) == ("output", 10)
    client.auto_credit = True
    client.notify("credit", id=request, bytes=(1 << 20))
    client.call("slot.reset", slot=1)
    client.notify("cancel", id=request)
    assert client.wait(request)["cancelled"]


def test_the_terminal_of_the_host_is_out_of_reach(client: Client) -> None:
    done = client.sh("cat /dev/tty; ps -o pid=,sid= -p $$ | tr -s ' '")
    assert b"cat" in done.stderr
    pid, session = done.stdout.split()
    assert pid == session


@pytest.mark.parametrize(
    "params",
    [
        {"argv": []},
        {"argv": "echo"},
        {"argv": ["a\0b"]},
        {"argv": ["true"], "timeout_s": 0},
        {"argv": ["true"], "timeout_s": "1"},
        {"argv": ["true"], "env": {"A=B": "c"}},
        {"argv": ["true"], "unknown": 1},
        {"argv": ["true"], "output_cap": -1},
        {},
    ],
)
def test_wrong_parameters_are_refused(client: Client, params: dict[str, Any]) -> None:
    assert client.call("slot.exec", slot=0, **params).kind == "bad_request"
