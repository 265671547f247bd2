from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from hermes_core.exceptions import ProtocolError, SandboxLostError, UsageError
from hermes_core.sandbox._session import Session
from hermes_sandboxd import CHUNK_BYTES, WINDOW_BYTES, FrameDecoder

if TYPE_CHECKING:
    from hermes_core.sandbox._exchange import Exchange

pytestmark = pytest.mark.anyio  # an exchange holds an event of the running loop


def connected() -> Session:
    session = Session(lambda: None)
    session.connected()
    return session


def ask(
    session: Session, method: str = "slot.exec", body: bytes = b"", *, slot: int = 0, live: bool = False
) -> Exchange:
    return session.open(method, {"slot": slot}, slot=slot, body=body, live=live)


def written(session: Session) -> list[tuple[dict[str, Any], bytes | None]]:
    """Everything that the session would write now."""
    decoder, frames = FrameDecoder(), []
    while data := session.take():
        frames += decoder.feed(data)
    assert decoder.pending == 0  # whole frames only
    return frames


def methods(session: Session) -> list[str]:
    return [message["method"] for message, _ in written(session)]


def answer(exchange: Exchange, **result: object) -> tuple[dict[str, Any], bytes | None]:
    return {"jsonrpc": "2.0", "id": exchange.request_id, "result": result}, None


def note(
    method: str, exchange: Exchange, body: bytes | None = None, **params: object
) -> tuple[dict[str, Any], bytes | None]:
    return {"jsonrpc": "2.0", "method": method, "params": {"id": exchange.request_id, **params}}, body


async def test_requests_that_are_ready_together_leave_in_one_write() -> None:
    session = connected()
    exchanges = [ask(session) for _ in range(5)]
    frames = FrameDecoder().feed(session.take())
    assert [message["id"] for message, _ in frames] == [exchange.request_id for exchange in exchanges]
    assert session.take() == b""
    assert session.batch_sizes == Counter({5: 1})


async def test_acknowledgements_ride_on_later_requests_when_there_are_some() -> None:
    session = connected()
    exchanges = [ask(session) for _ in range(16)]
    written(session)
    session.receive([answer(exchange) for exchange in exchanges[:15]])
    ask(session)
    assert methods(session) == ["slot.exec"]
    session.receive([answer(exchanges[15])])
    assert written(session) == []
    ask(session)
    assert written(session)[-1][0]["params"] == {"ids": [exchange.request_id for exchange in exchanges]}


async def test_a_large_answer_is_acknowledged_at_once() -> None:
    session = connected()
    exchange = ask(session)
    written(session)
    session.receive([note("data", exchange, bytes(70_000), channel="stdout", offset=0)])
    session.receive([answer(exchange, bodies={"stdout": 70_000})])
    assert methods(session) == ["ack"]


async def test_many_acknowledgements_do_not_wait() -> None:
    woken: list[bool] = []
    session = Session(lambda: woken.append(True))
    session.connected()
    exchanges = [ask(session) for _ in range(64)]
    written(session)
    woken.clear()
    session.receive([answer(exchange) for exchange in exchanges])
    assert woken
    assert written(session)[0][0]["params"]["ids"] == [exchange.request_id for exchange in exchanges]


async def test_a_large_body_follows_in_chunks_within_its_window() -> None:
    session = connected()
    data = bytes(range(256)) * (3 * WINDOW_BYTES // 256)
    exchange = ask(session, "slot.write", data)
    frames = written(session)
    assert frames[0][0]["params"]["body"] == {"size": len(data)}
    assert max(len(body or b"") for _, body in frames) == CHUNK_BYTES
    received = b"".join(body or b"" for _, body in frames)
    assert len(received) == WINDOW_BYTES
    while len(received) < len(data):
        session.receive([note("credit", exchange, bytes=700_001)])
        more = written(session)
        received += b"".join(body or b"" for _, body in more)
    assert received == data
    assert more[-1][0]["params"]["end"] is True


async def test_bodies_take_turns_and_requests_go_before_them() -> None:
    session = connected()
    first, second = (ask(session, "slot.write", bytes(1 << 20), slot=slot) for slot in (0, 1))
    assert session.take()
    third = ask(session, slot=2)
    frames = written(session)
    assert frames[0][0]["id"] == third.request_id
    ids = [message["params"]["id"] for message, _ in frames[1:]]
    assert ids[:4] in ([first.request_id, second.request_id] * 2, [second.request_id, first.request_id] * 2)


async def test_an_answer_brings_the_bodies_inside_it_or_before_it() -> None:
    session = connected()
    inside, before = ask(session), ask(session)
    message, _ = answer(inside, bodies={"stdout": 2, "stderr": 3})
    session.receive(
        [
            (message, b"oueee"),
            note("data", before, b"ab", channel="stdout", offset=0),
            note("data", before, b"c", channel="stdout", offset=2),
            answer(before, bodies={"stdout": 3, "stderr": 0}),
        ]
    )
    assert inside.bodies() == {"stdout": [b"ou"], "stderr": [b"eee"]}
    assert before.bodies() == {"stdout": [b"ab", b"c"], "stderr": []}


async def test_unanswered_requests_are_sent_again_unchanged_with_what_is_here() -> None:
    session = connected()
    exchange = ask(session, body=b"stdin")
    (first, body) = written(session)[0]
    session.receive([note("data", exchange, b"abc", channel="stdout", offset=0)])
    session.disconnected()
    assert session.take() == b""
    late = ask(session)
    session.connected()
    (again, body_again), (late_message, _) = written(session)
    assert again.pop("resume") == {"stdout": 3}
    assert (again, body_again) == (first, body)
    assert late_message["id"] == late.request_id
    assert "resume" not in late_message
    session.receive([note("data", exchange, b"bcd", channel="stdout", offset=1)])  # overlaps
    session.receive([answer(exchange, bodies={"stdout": 4})])
    assert b"".join(exchange.bodies()["stdout"]) == b"abcd"


async def test_a_gap_in_a_body_is_a_breach_of_the_protocol() -> None:
    session = connected()
    exchange = ask(session)
    with pytest.raises(ProtocolError, match="missing"):
        session.receive([note("data", exchange, b"abc", channel="stdout", offset=1)])


async def test_a_body_is_sent_again_from_its_start() -> None:
    session = connected()
    ask(session, "slot.write", bytes(200_000))
    written(session)
    session.disconnected()
    session.connected()
    frames = written(session)
    assert [message["params"]["offset"] for message, _ in frames[1:]][:2] == [0, CHUNK_BYTES]
    assert sum(len(body or b"") for _, body in frames[1:]) == 200_000


async def test_an_abandoned_request_is_cancelled_and_its_bytes_are_credited() -> None:
    session = connected()
    exchange = ask(session)
    written(session)
    session.abandon(exchange)
    session.abandon(exchange)
    assert methods(session) == ["cancel"]
    session.receive([note("data", exchange, bytes(WINDOW_BYTES // 4), channel="stdout", offset=0)])
    assert methods(session) == ["credit"]
    assert exchange.chunks == {}
    session.disconnected()
    session.connected()
    assert methods(session) == ["slot.exec", "cancel"]
    session.receive([answer(exchange)])
    assert session._pending == {}


async def test_a_request_that_never_left_is_simply_forgotten() -> None:
    session = connected()
    session.disconnected()
    session.abandon(ask(session))
    session.connected()
    assert written(session) == []


async def test_a_cancelled_upload_sends_no_more() -> None:
    session = connected()
    exchange = ask(session, "slot.write", bytes(3 * WINDOW_BYTES))
    written(session)
    session.abandon(exchange)
    session.receive([note("credit", exchange, bytes=WINDOW_BYTES)])
    assert methods(session) == ["cancel"]


async def test_live_output_is_credited_when_it_was_taken() -> None:
    session = connected()
    exchange = ask(session, live=True)
    written(session)
    session.receive([note("output", exchange, bytes(WINDOW_BYTES), stream="stdout", offset=0)])
    assert written(session) == []
    stream, data, connection = exchange.output.popleft()
    assert (stream, len(data)) == ("stdout", WINDOW_BYTES)
    session.consumed(exchange, len(data), connection)
    assert methods(session) == ["credit"]


async def test_what_an_earlier_connection_brought_earns_no_credit_in_a_later_one() -> None:
    session = connected()
    exchange = ask(session, live=True)
    session.receive([note("output", exchange, bytes(WINDOW_BYTES), stream="stdout", offset=0)])
    session.disconnected()
    session.connected()
    written(session)
    _, data, connection = exchange.output.popleft()
    session.consumed(exchange, len(data), connection)
    assert written(session) == []


async def test_a_lost_sandbox_answers_everyone_and_takes_nothing_new() -> None:
    session = connected()
    exchange = ask(session)
    session.lose("it burnt down")
    assert exchange.lost == "it burnt down"
    assert exchange.changed.is_set()
    with pytest.raises(SandboxLostError, match="burnt"):
        ask(session)


async def test_a_request_that_does_not_fit_a_frame_is_refused_at_once() -> None:
    session = connected()
    with pytest.raises(UsageError, match="too long"):
        session.open("slot.exec", {"argv": ["x" * 70_000]}, slot=0, body=b"", live=False)
    assert written(session) == []


async def test_cancelling_a_slot_touches_no_other() -> None:
    session = connected()
    mine, other = ask(session, slot=3), ask(session, slot=4)
    written(session)
    session.cancel_slot(3)
    assert [message["params"] for message, _ in written(session)] == [{"id": mine.request_id}]
    assert not other.cancelled
