from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sandboxd_client import processes_with, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd_client import Answer, Client, Daemon

pytestmark = pytest.mark.namespaces


@pytest.fixture
def marker() -> str:
    """The end of a number of seconds to sleep, by which the processes of one test are found."""
    return f".{random.getrandbits(48)}"


def begin(client: Client, command: str, **params: Any) -> int:  # noqa: ANN401
    return int(client.call("slot.start", slot=0, argv=["/bin/sh", "-c", command], **params)["job"])


def poll(client: Client, job: int, **params: Any) -> Answer:  # noqa: ANN401
    return client.call("slot.poll", slot=0, job=job, **params)


def finish(client: Client, job: int, offset: int = 0) -> tuple[bytes, Answer]:
    """Poll until the job has ended; return all its output from `offset` on, and the last answer."""
    output = b""
    while True:
        answer = poll(client, job, offset=offset, wait_s=10)
        assert answer["offset"] == offset
        output += answer.bodies["output"]
        offset += len(answer.bodies["output"])
        if not answer["running"] and offset == answer["end"]:
            return output, answer


def test_output_of_both_streams_in_order_and_the_exit_code(client: Client) -> None:
    job = begin(client, "echo one; echo two >&2; pwd; echo $GREETING; exit 3", cwd="/tmp", env={"GREETING": "hello"})
    output, last = finish(client, job)
    assert output == b"one\ntwo\n/tmp\nhello\n"
    assert (last["running"], last["exit_code"], last["signal"], last["limit"]) == (False, 3, None, None)
    assert last["foreground"] is None


def test_jobs_have_numbers_and_are_listed(client: Client) -> None:
    first, second = begin(client, "exit 7"), begin(client, "sleep 100 # " + "x" * 200)
    finish(client, first)
    listed = client.call("slot.jobs", slot=0)["jobs"]
    assert [entry["job"] for entry in listed] == [first, second] == [1, 2]
    assert (listed[0]["argv"], listed[0]["running"], listed[0]["exit_code"]) == (["/bin/sh", "-c", "exit 7"], False, 7)
    assert (listed[1]["running"], listed[1]["exit_code"], listed[1]["signal"]) == (True, None, None)
    assert listed[1]["argv"][2].startswith("sleep 100 # xxx")
    assert listed[1]["argv"][2].endswith("…")
    assert listed[0]["age_s"] >= listed[1]["age_s"] >= 0


def test_what_cannot_be_started_is_refused(client: Client) -> None:
    missing = client.call("slot.start", slot=0, argv=["no-such-program"])
    assert missing.error is not None
    assert (missing.kind, missing.error["data"]["exit_code"]) == ("cannot_start", 127)
    folder = client.call("slot.start", slot=0, argv=["/workspace"], pty={"rows": 24, "columns": 80})
    assert folder.error is not None
    assert (folder.kind, folder.error["data"]["exit_code"]) == ("cannot_start", 126)
    assert begin(client, "true") == 1


def test_unknown_jobs_and_missing_terminals_are_refused(client: Client) -> None:
    for method in ("poll", "input", "kill"):
        assert client.call(f"slot.{method}", slot=0, job=9).kind == "unknown_job"
    assert client.call("slot.resize", slot=0, job=9, rows=1, columns=1).kind == "unknown_job"
    job = begin(client, "cat")
    assert client.call("slot.resize", slot=0, job=job, rows=1, columns=1).kind == "no_terminal"
    assert client.call("slot.poll", slot=0, job=job, wait_s=11).kind == "bad_request"


def test_a_poll_waits_for_output_and_for_the_end(client: Client) -> None:
    job = begin(client, "sleep 0.3; echo now; read line")
    woken = poll(client, job, wait_s=10)
    assert (woken.bodies["output"], woken["running"]) == (b"now\n", True)
    quiet = poll(client, job, offset=4, wait_s=0.05)
    assert (quiet.bodies["output"], quiet["running"], quiet["offset"], quiet["end"]) == (b"", True, 4, 4)
    assert client.call("slot.input", b"\n", slot=0, job=job)["size"] == 1
    ended = poll(client, job, offset=4, wait_s=10)
    assert (ended["running"], ended["exit_code"]) == (False, 0)


def test_a_waiting_poll_can_be_cancelled(client: Client) -> None:
    job = begin(client, "printf here; sleep 100")
    assert poll(client, job, wait_s=10).bodies["output"] == b"here"
    waiting = client.send("slot.poll", slot=0, job=job, offset=4, wait_s=10)
    client.notify("cancel", id=waiting)
    answer = client.wait(waiting)
    assert (answer["running"], answer["end"]) == (True, 4)


def test_times_tell_when_output_came(client: Client) -> None:
    job = begin(client, "printf one; sleep 0.4; printf two; sleep 100")
    wait_until(lambda: poll(client, job)["end"] == 6)
    first, second = poll(client, job)["times"]
    assert (first[0], second[0]) == (0, 3)
    assert second[1] > first[1]
    assert poll(client, job, offset=4)["times"] == [second]
    assert poll(client, job, max_bytes=3)["times"] == [first]
    assert poll(client, job, max_bytes=0)["times"] == []


def test_only_the_last_output_is_kept(client: Client) -> None:
    job = begin(client, "seq 1 200000", output_cap=1000)
    whole = b"".join(b"%d\n" % number for number in range(1, 200001))
    wait_until(lambda: not poll(client, job)["running"])
    answer = poll(client, job)
    assert (answer["offset"], answer["end"]) == (len(whole) - 1000, len(whole))
    assert answer.bodies["output"] == whole[-1000:]
    part = poll(client, job, offset=len(whole) - 10, max_bytes=4)
    assert (part["offset"], part.bodies["output"]) == (len(whole) - 10, whole[-10:-6])
    beyond = poll(client, job, offset=len(whole) + 5)
    assert (beyond["offset"], beyond.bodies["output"]) == (len(whole), b"")


def test_gigabytes_of_output_take_constant_memory(start: Callable[..., Daemon]) -> None:
    daemon = start(capacity=1)
    client = daemon.client()
    client.open(0)
    before = memory(daemon)
    made = client.call("slot.start", slot=0, argv=["head", "-c", "2000000000", "/dev/zero"], output_cap=1 << 20)
    highest = 0
    while True:
        answer = poll(client, made["job"], offset=1 << 40, wait_s=0.5, max_bytes=0)
        highest = max(highest, memory(daemon))
        if not answer["running"]:
            break
    assert answer["end"] == 2_000_000_000
    assert highest - before < 16 << 20
    assert len(poll(client, made["job"]).bodies["output"]) == 1 << 20
    assert len(poll(client, made["job"])["times"]) <= 1000


def memory(daemon: Daemon) -> int:
    """Resident bytes of the largest of the daemon's processes."""
    sizes = [0]
    for pid in daemon.descendants():
        try:
            line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line)
        except (OSError, StopIteration):
            continue
        sizes.append(int(line.split()[1]) * 1024)
    return max(sizes)


def test_input_larger_than_a_pipe_comes_back_whole(client: Client) -> None:
    job = begin(client, "cat", output_cap=8 << 20)
    data = random.Random(1).randbytes(5_000_000)
    assert client.upload("slot.input", data, slot=0, job=job, end=True)["size"] == len(data)
    output, last = finish(client, job)
    assert output == data
    assert last["exit_code"] == 0


def test_input_in_pieces_and_its_end(client: Client) -> None:
    job = begin(client, "cat; echo over")
    assert client.call("slot.input", b"one ", slot=0, job=job)["size"] == 4
    assert client.call("slot.input", slot=0, job=job)["size"] == 0
    assert client.call("slot.input", b"two ", slot=0, job=job, end=True)["size"] == 4
    assert client.call("slot.input", b"three", slot=0, job=job).kind == "input_closed"
    assert finish(client, job)[0] == b"one two over\n"
    assert client.call("slot.input", b"four", slot=0, job=job).kind == "input_closed"


def test_input_that_nobody_reads_is_held_up_and_can_be_cancelled(client: Client) -> None:
    job = begin(client, "sleep 100")
    data = bytes(4 << 20)
    request_id = client.send("slot.input", slot=0, job=job, body={"size": len(data)})
    for offset in range(0, 1 << 20, 65536):
        client.notify("data", data[:65536], id=request_id, channel="body", offset=offset)
    for offset in range(1 << 20, 3 << 19, 65536):
        while client._windows.get(request_id, 0) < 65536:
            client.step()
        client._windows[request_id] -= 65536
        client.notify("data", data[:65536], id=request_id, channel="body", offset=offset)
    waiting = client.send("slot.jobs", slot=0)
    client.notify("cancel", id=request_id)
    assert client.wait(request_id).kind == "cancelled"
    assert client.wait(waiting)["jobs"][0]["running"] is True
    assert client.call("slot.kill", slot=0, job=job).error is None
    assert poll(client, job)["signal"] == 9


def test_input_ends_when_its_reader_does(client: Client) -> None:
    job = begin(client, "head -c 10 >/dev/null; exit 5")
    answer = client.upload("slot.input", bytes(8 << 20), slot=0, job=job)
    assert answer.kind == "input_closed"
    assert finish(client, job)[1]["exit_code"] == 5


def test_signals(client: Client) -> None:
    polite = begin(client, "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.05; done")
    assert poll(client, polite, wait_s=10).bodies["output"] == b"ready\n"
    assert client.call("slot.kill", slot=0, job=polite, signal=15).error is None
    output, last = finish(client, polite)
    # The shell may also tell that its `sleep`, of the same group, was terminated.
    assert (output[-4:], last["exit_code"], last["signal"]) == (b"bye\n", 4, None)
    rough = begin(client, "sleep 100; true")
    assert client.call("slot.kill", slot=0, job=rough).error is None
    answer = poll(client, rough)
    assert (answer["running"], answer["exit_code"], answer["signal"]) == (False, None, 9)
    assert client.call("slot.kill", slot=0, job=rough).error is None
    assert client.call("slot.kill", slot=0, job=polite, signal=2).error is None
    realtime = begin(client, "sleep 100")
    client.call("slot.kill", slot=0, job=realtime, signal=40)
    assert finish(client, realtime)[1]["signal"] == 40


def test_kill_takes_the_whole_session_and_its_descendants_and_nothing_else(client: Client, marker: str) -> None:
    other = begin(client, f"sleep 9{marker}")
    client.sh(f"setsid sleep 8{marker} >/dev/null 2>&1 &")
    job = begin(client, f"(sleep 1{marker} &) ; setsid -f true; setsid sleep 2{marker} & exec sleep 3{marker}")
    wait_until(lambda: len(processes_with(marker)) == 5)
    assert client.call("slot.kill", slot=0, job=job).error is None
    assert sorted(client.sh("pgrep -ax sleep | cut -d' ' -f3").stdout.split()) == [
        f"8{marker}".encode(),
        f"9{marker}".encode(),
    ]
    assert poll(client, other)["running"] is True


def test_kill_reaches_what_outlived_the_job(client: Client, marker: str) -> None:
    job = begin(client, f"sleep 5{marker} & echo started")
    wait_until(lambda: not poll(client, job)["running"])
    wait_until(lambda: len(processes_with(f"5{marker}")) == 1)
    client.call("slot.kill", slot=0, job=job)
    assert processes_with(f"5{marker}") == []
    assert (poll(client, job)["exit_code"], poll(client, job)["signal"]) == (0, None)


def test_late_output_of_children_is_read(client: Client) -> None:
    job = begin(client, "(sleep 0.5; echo late) & echo early")
    wait_until(lambda: not poll(client, job)["running"])
    assert poll(client, job).bodies["output"] == b"early\n"
    wait_until(lambda: poll(client, job).bodies["output"] == b"early\nlate\n")


def test_jobs_survive_the_timeouts_and_cancels_of_commands(client: Client) -> None:
    ticking = begin(client, "while :; do sleep 0.02; echo tick; done")
    # Alone in the slot, without any orphan that would be looked for anyway.
    assert client.sh("sleep 100", timeout_s=0.2)["timed_out"] is True
    running = client.send_sh("echo; sleep 100", stream=True)
    client.step()
    client.notify("cancel", id=running)
    assert client.wait(running)["cancelled"] is True
    end = poll(client, ticking)["end"]
    later = poll(client, ticking, offset=end, wait_s=10)
    assert (later["running"], later["end"] > end) == (True, True)


def test_what_a_job_abandons_meanwhile_survives_too(client: Client, marker: str) -> None:
    job = begin(client, f"read line; (sleep 6{marker} &); echo gone; read line")
    client.call("slot.input", b"\n", slot=0, job=job)
    # The child loses its parent while the command runs.
    assert client.sh("sleep 100", timeout_s=0.5)["timed_out"] is True
    assert poll(client, job, wait_s=10).bodies["output"] == b"gone\n"
    assert len(processes_with(f"sleep\x006{marker}")) == 1


def test_jobs_die_with_the_lease(start: Callable[..., Daemon], marker: str) -> None:
    client = start(capacity=1).client()
    client.open(0)
    argv = ["/bin/sh", "-c", f"sleep 7{marker} & setsid sleep 7{marker} & sleep 7{marker}"]
    assert client.call("slot.start", slot=0, argv=argv)["job"] == 1
    assert client.call("slot.start", slot=0, argv=argv, pty={"rows": 24, "columns": 80})["job"] == 2
    wait_until(lambda: len(processes_with(f"sleep\x007{marker}")) == 6)
    assert client.call("slot.reset", slot=0)["clean"] is True
    assert processes_with(f"7{marker}") == []
    client.open(0)
    assert client.call("slot.jobs", slot=0)["jobs"] == []
    assert poll(client, 1).kind == "unknown_job"


def test_ended_jobs_make_room_for_new_ones_and_running_ones_do_not(client: Client) -> None:
    lasting = begin(client, "exec sleep 100")
    ended = begin(client, "sleep 100 & echo kept")
    wait_until(lambda: not poll(client, ended)["running"])
    for _ in range(62):
        begin(client, "exec sleep 100")
    assert len(client.call("slot.jobs", slot=0)["jobs"]) == 64
    begin(client, "exec sleep 100")
    assert poll(client, ended).kind == "unknown_job"
    assert poll(client, lasting)["running"] is True
    refused = client.call("slot.start", slot=0, argv=["true"])
    assert refused.kind == "too_many_jobs"
    client.call("slot.kill", slot=0, job=lasting)
    assert begin(client, "true") == 66
