from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_core.execution import ToolCall, ToolDefinition
from hermes_core.models import HERMES_FORMAT, Message, plain_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

GOOD = '<tool_call>{"name": "ls", "arguments": {"path": "."}}</tool_call>'

names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
encodable = st.dictionaries(st.text(), json_values, max_size=4)
contents = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"])).map(str.strip)
noise = st.lists(
    st.sampled_from(
        [
            "<tool_call>",
            "</tool_call>",
            "<think>",
            "</think>",
            GOOD,
            "{",
            "}",
            '"',
            "\\",
            "[",
            " ",
            "\n",
            "name",
            ":",
            ",",
            "x{}",
            "1e999",
            "NaN",
            '"name"',
            '"arguments"',
            "é",
        ]
    ),
    max_size=30,
).map("".join)


def essence(calls: Sequence[ToolCall]) -> list[tuple[str, Any]]:
    return [(call.name, dict(call.arguments)) for call in calls]


@given(contents, st.lists(st.tuples(names, encodable), min_size=1, max_size=4))
def test_parsing_undoes_rendering(content: str, made: list[tuple[str, dict[str, Any]]]) -> None:
    calls = [ToolCall(name, arguments) for name, arguments in made]
    parsed = HERMES_FORMAT.parse(HERMES_FORMAT.render_turn(content, calls))
    assert parsed.content == content
    assert essence(parsed.calls) == essence(calls)
    assert not parsed.malformed


@given(noise)
@settings(max_examples=500)
def test_no_text_breaks_the_parser_and_every_call_is_well_formed(text: str) -> None:
    parsed = HERMES_FORMAT.parse(text)
    for call in parsed.calls:
        assert call.name
        json.dumps(dict(call.arguments), allow_nan=False).encode()
    assert len(parsed.calls) <= text.count("</tool_call>")
    if "<tool_call>" not in text:
        assert parsed.content == text
        assert not parsed.calls
        assert not parsed.malformed


@given(st.text())
def test_text_without_tags_is_content(text: str) -> None:
    parsed = HERMES_FORMAT.parse(text)
    assert (parsed.content, parsed.calls, parsed.malformed) == (text, (), ())


def test_calls_are_taken_out_of_the_content() -> None:
    parsed = HERMES_FORMAT.parse(f"Let me look.\n{GOOD}\n{GOOD}")
    assert parsed.content == "Let me look."
    assert essence(parsed.calls) == [("ls", {"path": "."})] * 2
    assert parsed.calls[0].id != parsed.calls[1].id


def test_the_name_may_stand_before_the_arguments() -> None:
    assert essence(HERMES_FORMAT.parse('<tool_call>\nls {"path": "."}\n</tool_call>').calls) == [("ls", {"path": "."})]


def test_a_call_keeps_its_own_id() -> None:
    (call,) = HERMES_FORMAT.parse('<tool_call>{"id": "c7", "name": "ls", "arguments": {}}</tool_call>').calls
    assert call.id == "c7"


def test_tags_within_strings_are_strings() -> None:
    arguments = {"content": "<tool_call></tool_call><think></think>"}
    text = f"<tool_call>{json.dumps({'name': 'write', 'arguments': arguments})}</tool_call>"
    assert essence(HERMES_FORMAT.parse(text).calls) == [("write", arguments)]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('<tool_call>{"name": "ls", "arguments": {}}', "not closed"),
        ('<tool_call>{"name": "ls", "argu', "not closed"),
        ('<tool_call>{"name": "ls", "arguments": {}} and more</tool_call>', "text follows"),
        ('<tool_call>{"name": "ls", "arguments": }</tool_call>', "invalid JSON"),
        ('<tool_call>{"name": "ls", "arguments": {"x": NaN}}</tool_call>', "NaN"),
        ('<tool_call>{"name": "ls", "arguments": {"x": 1e999}}</tool_call>', "range"),
        ('<tool_call>{"name": "ls", "arguments": {"x": "\\ud800"}}</tool_call>', "surrogate"),
        ('<tool_call>{"name": "ls", "arguments": "{}"}</tool_call>', '"arguments"'),
        ('<tool_call>{"arguments": {}}</tool_call>', '"name"'),
        ('<tool_call>[{"name": "ls"}]</tool_call>', "object is expected"),
        ("<tool_call></tool_call>", "object is expected"),
        ("<tool_call>ls</tool_call>", "object is expected"),
        ("<tool_call>" + '{"a":' * 100_000 + "</tool_call>", "nested"),
        ("<tool_call>{" + f'"a": {"1" * 5000}' + "}</tool_call>", "invalid JSON"),
    ],
)
def test_what_is_not_well_formed_is_no_call(text: str, error: str) -> None:
    parsed = HERMES_FORMAT.parse(f"{text}")
    assert not parsed.calls
    assert len(parsed.malformed) == 1
    assert error in parsed.malformed[0].error
    assert len(parsed.malformed[0].text) <= 2000
    assert parsed.content == text


def test_a_malformed_call_does_not_hide_the_next_one() -> None:
    parsed = HERMES_FORMAT.parse(f"<tool_call>oops</tool_call>{GOOD}")
    assert len(parsed.calls) == len(parsed.malformed) == 1
    assert parsed.content == "<tool_call>oops</tool_call>"


@pytest.mark.parametrize("thinking", [f"<think>maybe {GOOD}</think>", f"maybe {GOOD} or not</think>"])
def test_thinking_about_a_call_is_no_call(thinking: str) -> None:
    parsed = HERMES_FORMAT.parse(f"{thinking}\n{GOOD}")
    assert len(parsed.calls) == 1
    assert parsed.content == thinking
    assert not HERMES_FORMAT.parse(thinking).calls


def test_thinking_that_never_ends_holds_no_call() -> None:
    assert HERMES_FORMAT.parse(f"<think>so {GOOD}").calls == ()


@pytest.mark.parametrize(
    "unit",
    [
        "<tool_call>",
        "</tool_call>",
        "<tool_call>{",
        '<tool_call>{"',
        '<tool_call>{"</tool_call>',
        '<tool_call>{",":"</tool_call>',
        '<tool_call>x{"a"</tool_call>\n',
        "<tool_call>" + "a" * 40 + "</tool_call>",
        "<think>",
        "</think>",
        "<think></think>",
        GOOD,
    ],
)
def test_time_is_linear(unit: str) -> None:
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        begin = time.process_time()
        HERMES_FORMAT.parse(text)
        return time.process_time() - begin

    seconds(1_000)
    # Quadratic time would take thousands of times what is allowed here.
    assert min(seconds(2_000_000) for _ in range(2)) < 3.0


def test_the_prompt_names_every_tool() -> None:
    tools = [ToolDefinition(name, f"does {name}", {"type": "object"}) for name in ("alpha", "beta")]
    prompt = HERMES_FORMAT.system_prompt(tools)
    listed = prompt.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in listed] == [
        {"name": tool.name, "description": tool.description, "parameters": {"type": "object"}, "required": None}
        for tool in tools
    ]
    assert len(HERMES_FORMAT.parse(prompt.split("Examples")[1]).calls) == 4


def test_a_conversation_becomes_plain_text() -> None:
    call = ToolCall("ls", {"path": "."}, "c1")
    told = plain_messages(
        HERMES_FORMAT,
        (
            Message("user", "Look"),
            Message("assistant", "ok", tool_calls=(call,)),
            Message("tool", '{"output": "</tool_response>"}', tool_call_id="c1"),
            Message("tool", '{"error": "malformed"}'),
            Message("user", "And?"),
        ),
        (ToolDefinition("ls", "List", {}),),
    )
    assert [m.role for m in told] == ["system", "user", "assistant", "user", "user"]
    assert essence(HERMES_FORMAT.parse(told[2].content).calls) == essence([call])
    assert told[3].content.count("</tool_response>") == 2
    assert json.loads(told[3].content.split("\n")[1]) == {"output": "</tool_response>"}
