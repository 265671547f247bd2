"""Whatever a client sends: the daemon lives, and nobody else notices."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sandboxd_client import Client, Daemon, wait_until

from hermes_sandboxd import MAX_BODY, MAX_LINE, WINDOW_BYTES, FrameDecoder, FrameError, encode_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

# Frames alone.

_numbers = st.sampled_from([-1, 0, 1, 2, 3, 7, 2**31, 2**63, 2**80, -(2**80), True, False, 0.5, -0.0, 1e308])
_odd = (
    _numbers
    | st.sampled_from([None, "", "1", "\ud800", "\0", "..", "é" * 40, [], {}, [[]], {"": None}, float("nan")])
    | st.sampled_from([float("inf"), ["/bin/sh"], {"stdout": -1}, {"stdout": 2**80, "output:stdout": "x"}])
)
_json = st.recursive(_odd | st.text(max_size=20), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
_garbage = st.binary(max_size=300) | st.sampled_from(
    [
        b"\n",
        b"{}\n",
        b'{"n":0}\n',
        b'{"n":300000}\n',
        b'{"n":1e2}\n' + bytes(100),
        b'{"n":NaN}\n',
        b'{"jsonrpc":"2.0","n":',
        b"[" * 2000 + b"\n",
        b'{"a":' * 900 + b"1" + b"}" * 900 + b"\n",
        b'{"a":' + b"9" * 5000 + b"}\n",
        b'{"\xed\xa0\x80":1}\n',
        b"\xff\xfe\n",
        b"x" * MAX_LINE,
    ]
)


def decoded(pieces: list[bytes]) -> list[tuple[dict[str, Any], bytes | None]] | None:
    """What a decoder makes of a stream in pieces: its frames, or None for a broken one."""
    decoder = FrameDecoder()
    frames = []
    try:
        for piece in pieces:
            frames += decoder.feed(piece)
            assert decoder.pending <= MAX_LINE + MAX_BODY
    except FrameError:
        return None
    return frames


@settings(deadline=None, max_examples=300)
@given(st.lists(_garbage | st.builds(encode_frame, st.just({"a": 1}), st.binary(max_size=99)), max_size=6), st.data())
def test_pieces_of_a_stream_do_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in itertools.pairwise([0, *cuts, len(stream)])]
    # NaN is not equal to itself, so what was decoded is compared as text.
    assert repr(decoded(pieces)) == repr(decoded([stream]))


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text().filter(lambda name: name != "n"), _odd), st.none() | st.binary(max_size=99))
def test_a_frame_that_is_cut_off_waits(message: dict[str, Any], body: bytes | None) -> None:
    frame = encode_frame(message, body)
    for size in {1, len(frame) // 2, len(frame) - 1}:
        decoder = FrameDecoder()
        assert decoder.feed(frame[:size]) == []
        ((found, found_body),) = decoder.feed(frame[size:])
        assert found_body == body
        found.pop("n", None)
        assert json.dumps(found) == json.dumps(message)


@pytest.mark.parametrize("size", [1, 4096, 65536, 300000])
def test_an_endless_line_is_refused_before_it_is_stored(size: int) -> None:
    decoder = FrameDecoder()
    for _ in range((MAX_LINE - 1) // size):
        assert decoder.feed(b"x" * size) == []
    with pytest.raises(FrameError):
        decoder.feed(b"x" * size)


# A real daemon.


class FuzzedDaemon(Daemon):
    """With two clients that behave, whose answers are looked at after everything that others do."""

    def __init__(self) -> None:
        super().__init__(capacity=6, orphan_grace_s=0.2)
        self.numbers = itertools.count()
        self.good = [self.client("good-0"), self.client("good-1")]
        for slot, client in enumerate(self.good):
            client.open(slot)

    def check(self) -> None:
        tags = [f"tag-{next(self.numbers)}" for _ in self.good]
        sent = [
            client.send_sh(f"echo {tag}", slot) for slot, (client, tag) in enumerate(zip(self.good, tags, strict=True))
        ]
        for client, request, tag in zip(self.good, sent, tags, strict=True):
            answer = client.wait(request)
            assert answer.error is None
            assert answer.stdout == f"{tag}\n".encode()
        assert self.process.poll() is None

    def check_identity(self) -> None:
        newcomer = self.client(f"newcomer-{next(self.numbers)}")
        assert newcomer.hello["daemon_id"] == self.good[0].hello["daemon_id"]
        newcomer.close()


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[FuzzedDaemon]:
    daemon = FuzzedDaemon()
    yield daemon
    for client in daemon.good:
        client.close()
    daemon.stop()


class Hostile:
    """A connection that says whatever it likes and reads nothing unless asked to."""

    def __init__(self, path: str, session: str) -> None:
        self.session = session
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._socket.setblocking(False)

    def say(self, data: bytes) -> None:
        # What does not fit is cut off, in the middle of a frame too.
        with contextlib.suppress(OSError):
            self._socket.send(data)

    def request(
        self, request_id: object, method: object, params: object, body: bytes | None = None, **more: object
    ) -> None:
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params, **more}
        with contextlib.suppress(FrameError):
            self.say(encode_frame(message, body))

    def notify(self, method: object, params: object, body: bytes | None = None) -> None:
        with contextlib.suppress(FrameError):
            self.say(encode_frame({"jsonrpc": "2.0", "method": method, "params": params}, body))

    def hello(self) -> None:
        self.request(1, "hello", {"protocol": 1, "token": None, "session": self.session, "features": []})

    def read(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.recv(1 << 20)

    def close(self) -> None:
        self._socket.close()


# Two sessions, so that one often takes over what the other began.
_who = st.integers(0, 1)
_ids = st.integers(1, 6)
_slots = st.integers(-1, 6)
_bodies = st.none() | st.binary(max_size=40)
_METHODS = [
    *("health", "slot.open", "slot.exec", "slot.start", "slot.poll", "slot.input", "slot.resize", "slot.kill"),
    *("slot.jobs", "slot.read", "slot.write", "slot.list", "slot.archive", "slot.extract", "slot.grade", "slot.reset"),
]
_FIELDS = [
    *("slot", "argv", "timeout_s", "cwd", "env", "stream", "merge", "output_cap", "body", "path", "offset", "length"),
    *("max_bytes", "sha256", "mode", "parents", "limits", "network", "job", "rows", "columns", "signal", "strange"),
]
_commands = st.sampled_from(
    [["true"], ["cat"], ["head", "-c", "200000", "/dev/zero"], ["sleep", "9"], ["\ud800"], ["a" * 70], ["x\udc80"]]
)
_fair: dict[str, st.SearchStrategy[Any]] = {
    "argv": _commands,
    "path": st.sampled_from(["f", "/etc/passwd", "/dev/zero", "/proc/self/mem", "a/b", "\ud800"]),
    "timeout_s": st.sampled_from([0.05, 1e-9, 1]),
    "body": st.sampled_from([{"size": 0}, {"size": 100}, {"size": 2**61}]),
    "stream": st.booleans(),
    "job": _ids,
}


class Fuzzing(RuleBasedStateMachine):
    """Hostile connections in any order; `daemon` is set by the test."""

    daemon: FuzzedDaemon

    def __init__(self) -> None:
        super().__init__()
        number = next(self.daemon.numbers)
        self.hostile = [Hostile(self.daemon.socket, f"hostile-{number}-{index}") for index in range(2)]
        for hostile in self.hostile:
            hostile.hello()

    def teardown(self) -> None:
        for hostile in self.hostile:
            hostile.close()
        self.daemon.check_identity()

    @rule(who=_who, polite=st.booleans())
    def connect_again(self, who: int, polite: bool) -> None:
        session = self.hostile[who].session
        self.hostile[who].close()
        self.hostile[who] = Hostile(self.daemon.socket, session)
        if polite:
            self.hostile[who].hello()

    @rule(who=_who, params=st.dictionaries(st.sampled_from(["protocol", "token", "session", "features"]), _odd) | _json)
    def say_hello_strangely(self, who: int, params: object) -> None:
        self.hostile[who].request(1, "hello", params)

    @rule(who=_who, number=_ids, slot=_slots, network=st.sampled_from(["none", "host", 3]))
    def open(self, who: int, number: int, slot: int, network: object) -> None:
        self.hostile[who].request(number, "slot.open", {"slot": slot, "network": network})

    @rule(
        who=_who,
        number=_ids,
        method=st.sampled_from(_METHODS),
        slot=_slots,
        names=st.sets(st.sampled_from(sorted(_fair))),
        body=_bodies,
        data=st.data(),
    )
    def ask(
        self, who: int, number: int, method: str, slot: int, names: set[str], body: bytes | None, data: st.DataObject
    ) -> None:
        params = {"slot": slot, **{name: data.draw(_fair[name]) for name in sorted(names)}}
        self.hostile[who].request(number, method, params, body)

    @rule(who=_who, number=_ids, slot=_slots, size=st.sampled_from([None, 100, 2**20]), stream=st.booleans())
    def run(self, who: int, number: int, slot: int, size: int | None, stream: bool) -> None:
        params: dict[str, Any] = {"slot": slot, "argv": ["/bin/sh", "-c", "cat; seq 100000"], "stream": stream}
        params["timeout_s"] = 0.1
        if size is not None:
            params["body"] = {"size": size}
        self.hostile[who].request(number, "slot.exec", params)

    @rule(
        who=_who,
        number=_ids | _odd,
        method=st.sampled_from(_METHODS) | _odd,
        params=st.dictionaries(st.sampled_from(_FIELDS), _odd, max_size=6) | _json,
        body=_bodies,
        resume=_odd,
    )
    def ask_strangely(
        self, who: int, number: object, method: object, params: object, body: bytes | None, resume: object
    ) -> None:
        self.hostile[who].request(number, method, params, body, resume=resume)

    @rule(who=_who, number=_ids | _odd, offset=_numbers, channel=_odd, end=_odd, body=_bodies)
    def send_data(
        self, who: int, number: object, offset: object, channel: object, end: object, body: bytes | None
    ) -> None:
        self.hostile[who].notify("data", {"id": number, "channel": channel, "offset": offset, "end": end}, body)

    @rule(who=_who, number=_ids | _odd, count=_odd)
    def send_credit(self, who: int, number: object, count: object) -> None:
        self.hostile[who].notify("credit", {"id": number, "bytes": count})

    @rule(who=_who, method=st.sampled_from(["cancel", "ack", "credit", "data", "output", "strange"]), params=_json)
    def notify_strangely(self, who: int, method: str, params: object) -> None:
        self.hostile[who].notify(method, params)

    @rule(who=_who, number=_ids | _odd)
    def cancel(self, who: int, number: object) -> None:
        self.hostile[who].notify("cancel", {"id": number})

    @rule(who=_who, numbers=st.lists(_ids | _odd, max_size=4) | _odd)
    def acknowledge(self, who: int, numbers: object) -> None:
        self.hostile[who].notify("ack", {"ids": numbers})

    @rule(who=_who, data=_garbage)
    def say_garbage(self, who: int, data: bytes) -> None:
        self.hostile[who].say(data)

    @rule(who=_who, keep=st.integers(1, 60))
    def cut_off(self, who: int, keep: int) -> None:
        frame = encode_frame({"jsonrpc": "2.0", "id": 6, "method": "health", "params": {}}, b"body")
        self.hostile[who].say(frame[:keep])
        self.hostile[who].close()
        self.hostile[who] = Hostile(self.daemon.socket, self.hostile[who].session)
        self.hostile[who].hello()

    @rule(who=_who)
    def read(self, who: int) -> None:
        self.hostile[who].read()

    @invariant()
    def others_are_answered(self) -> None:
        self.daemon.check()


@pytest.mark.namespaces
def test_hostile_clients_disturb_nobody(fuzzed: FuzzedDaemon) -> None:
    Fuzzing.daemon = fuzzed
    checks = settings(
        max_examples=int(os.environ.get("HERMES_FUZZ_EXAMPLES", "15")),
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Fuzzing, settings=checks)
    # What the hostile sessions held is free again, and whole.
    newcomer = fuzzed.client("after")
    wait_until(lambda: set(newcomer.call("health")["slots"]) == {"0", "1"})
    for slot in range(2, 6):
        newcomer.open(slot)
        assert newcomer.sh("echo here; ls -A", slot).stdout == b"here\n"
        newcomer.call("slot.reset", slot=slot)
    newcomer.close()


@pytest.mark.namespaces
def test_shuffled_requests_get_their_own_answers(fuzzed: FuzzedDaemon) -> None:
    chance = random.Random(11)
    clients = [fuzzed.client(f"shuffled-{index}") for index in range(3)]
    waiting: list[tuple[Client, int, bytes]] = []
    for index, client in enumerate(clients):
        client.open(2 + index)
    for number in range(300):
        index = chance.randrange(3)
        tag = f"{index}-{number}-" + "x" * chance.choice([0, 100, 40000])
        request = clients[index].send("slot.exec", tag.encode(), slot=2 + index, argv=["cat"])
        waiting.append((clients[index], request, tag.encode()))
        if len(waiting) > 30:
            chance.shuffle(waiting)
            client, request, expected = waiting.pop()
            assert client.wait(request).stdout == expected
    for client, request, expected in waiting:
        assert client.wait(request).stdout == expected
    for index, client in enumerate(clients):
        client.call("slot.reset", slot=2 + index)
        client.close()


@pytest.fixture
def hostile(fuzzed: FuzzedDaemon) -> Iterator[Client]:
    """A session with slot 5 open."""
    client = fuzzed.client(f"hostile-{next(fuzzed.numbers)}")
    client.open(5)
    yield client
    client.close()
    fuzzed.check()
    wait_until(lambda: "5" not in fuzzed.good[0].call("health")["slots"])


def is_closed(client: Client) -> bool:
    try:
        while True:
            client.receive()
    except (EOFError, ConnectionError):
        return True


@pytest.mark.namespaces
@pytest.mark.parametrize("count", [-1, True, 0.5, "1", None, [], float("nan")])
def test_credit_must_be_a_whole_number(hostile: Client, count: object) -> None:
    request = hostile.send_sh("sleep 9", 5)
    hostile.notify("credit", id=request, bytes=count)
    assert is_closed(hostile)


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("offset", "size", "end"), [(-1, 1, False), (1, 1, False), (2**80, 1, False), (0, 11, False), (0, 9, True)]
)
def test_a_body_must_be_what_was_announced(hostile: Client, offset: int, size: int, end: bool) -> None:
    request = hostile.send("slot.exec", slot=5, argv=["cat"], body={"size": 10})
    hostile.notify("data", bytes(size), id=request, channel="body", offset=offset, end=end)
    assert is_closed(hostile)


@pytest.mark.namespaces
def test_a_body_without_credit_ends_the_connection(hostile: Client) -> None:
    request = hostile.send("slot.exec", slot=5, argv=["sleep", "9"], body={"size": 1 << 40})
    with contextlib.suppress(ConnectionError):
        for offset in range(0, 8 * WINDOW_BYTES, 65536):
            hostile.notify("data", bytes(65536), id=request, channel="body", offset=offset)
    assert is_closed(hostile)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.namespaces
def test_credit_for_what_was_never_sent_buys_nothing(hostile: Client, fuzzed: FuzzedDaemon) -> None:
    hostile.auto_credit = False
    argv = ["head", "-c", "500000000", "/dev/zero"]
    request = hostile.send("slot.exec", slot=5, argv=argv, stream=True, timeout_s=1.0, output_cap=100)
    for _ in range(20):
        hostile.notify("credit", id=request, bytes=2**80)
    before = resident_bytes(fuzzed.process.pid)
    # Longer than the command's deadline, and the two seconds after which the slot of a silent supervisor is killed.
    time.sleep(4.0)
    assert resident_bytes(fuzzed.process.pid) - before < 64 << 20
    hostile.notify("credit", id=request, bytes=2**80)
    answer = hostile.wait(request)
    assert answer["timed_out"]
    # Sent at most: a window each time that credit came.
    assert sum(len(data) for _, _, data in answer.live) < 30 << 20


@pytest.mark.namespaces
def test_the_longest_requests_are_refused_and_the_slot_lives(hostile: Client) -> None:
    kinds = set()
    for size in range(MAX_LINE - 500, MAX_LINE - 60, 20):
        message: dict[str, Any] = {"slot": 5, "argv": ["true"], "env": {"A": ""}}
        room = size - len(
            encode_frame({"jsonrpc": "2.0", "id": hostile.next_id, "method": "slot.exec", "params": message})
        )
        message["env"] = {"A": "x" * room}
        answer = hostile.call("slot.exec", **message)
        kinds.add(answer.kind)
        assert answer.kind == "bad_request" or answer["exit_code"] == 0
    assert kinds == {None, "bad_request"}
    # Escaped on its way on, because of the lone surrogate, it is three times as long.
    assert hostile.call("slot.exec", slot=5, argv=["true", "\ud800" * 100, "é" * 20]).error is None
    request, hostile.next_id = hostile.next_id, hostile.next_id + 1
    head = f'{{"jsonrpc":"2.0","id":{request},"method":"slot.exec","params":{{"slot":5,"argv":["true","'
    hostile.raw(head.encode() + rb"\ud800" + "é".encode() * 25000 + b'"]}}\n')
    assert hostile.wait(request).kind == "bad_request"
    assert hostile.sh("echo alive", 5).stdout == b"alive\n"


@pytest.mark.namespaces
def test_an_environment_that_is_too_long_costs_no_slot(fuzzed: FuzzedDaemon) -> None:
    client = fuzzed.client(f"long-{next(fuzzed.numbers)}")
    for size in (64800, 65300, 65400):
        assert client.call("slot.open", slot=5, env={"A": "x" * size}).kind == "bad_request"
    client.open(5)
    assert client.sh("echo alive", 5).stdout == b"alive\n"
    assert client.call("slot.reset", slot=5)["clean"]
    client.close()


@pytest.mark.namespaces
def test_what_is_never_acknowledged_is_bounded(fuzzed: FuzzedDaemon) -> None:
    client = fuzzed.client(f"hoarder-{next(fuzzed.numbers)}")
    client.auto_ack = False
    kinds = [client.wait(client.send("slot.reset", slot=4)).kind for _ in range(4200)]
    assert kinds[:4000] == ["unknown_slot"] * 4000
    assert kinds[-1] == "too_many_requests"
    client.notify("ack", ids=list(range(1, 4000)))
    assert client.call("slot.reset", slot=4).kind == "unknown_slot"
    client.close()
    fuzzed.check()


@pytest.mark.namespaces
def test_large_answers_that_are_never_taken_are_bounded(start: Any) -> None:  # noqa: ANN401
    daemon = start()
    client = daemon.client("hoarder")
    client.open(0)
    client.auto_ack = client.auto_credit = False
    argv = ["head", "-c", "1000000", "/dev/zero"]
    kind = None
    for _ in range(700):
        kind = client.call("slot.exec", slot=0, argv=argv).kind
        if kind is not None:
            break
    assert kind == "too_many_requests"
    assert resident_bytes(daemon.process.pid) < 800 << 20
    daemon.stop()


@pytest.mark.namespaces
def test_a_client_that_never_reads_is_not_listened_to(fuzzed: FuzzedDaemon) -> None:
    stubborn = socket.socket(socket.AF_UNIX)
    stubborn.connect(fuzzed.socket)
    hello: dict[str, Any] = {
        "protocol": 1,
        "token": None,
        "session": f"stubborn-{next(fuzzed.numbers)}",
        "features": [],
    }
    stubborn.sendall(encode_frame({"jsonrpc": "2.0", "id": 1, "method": "hello", "params": hello}))
    before = resident_bytes(fuzzed.process.pid)
    # One request whose answer is long, asked for again and again: each time it is sent.
    unknown = {"jsonrpc": "2.0", "id": 2, "method": "slot.exec", "params": {"slot": 4, "argv": [], "env": "x" * 60000}}
    stubborn.sendall(encode_frame(unknown))
    again = encode_frame({"jsonrpc": "2.0", "id": 2, "method": "", "params": {}}) * 1000
    sent = threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError):
            for _ in range(2000):
                stubborn.sendall(again)
        sent.set()

    thread = threading.Thread(target=flood)
    thread.start()
    for _ in range(20):
        fuzzed.check()
    assert not sent.wait(2.0)
    assert resident_bytes(fuzzed.process.pid) - before < 64 << 20
    fuzzed.check()
    stubborn.shutdown(socket.SHUT_RDWR)
    thread.join()
    stubborn.close()
