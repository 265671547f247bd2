"""Turns as the models of each family write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hermes_core.default_plugins.tool_call_formats import (
    DEEPSEEK_V3,
    DEEPSEEK_V31,
    GLM45,
    KIMI_K2,
    LFM2,
    LLAMA3_JSON,
    MISTRAL,
    MISTRAL_V11,
    PYTHONIC,
    QWEN3_CODER,
)
from hermes_core.execution import ToolCall, ToolDefinition
from hermes_core.models import Message, ToolCallFormat

if TYPE_CHECKING:
    from collections.abc import Callable

WRITE = ToolDefinition(
    "write",
    "Write a file",
    {
        "type": "object",
        "properties": {"text": {"type": "string"}, "mode": {"type": "integer"}, "over": {"type": "boolean"}},
    },
)
UNTYPED = pytest.mark.parametrize(
    ("form", "call"),
    [
        (
            QWEN3_CODER,
            lambda **values: (
                "<tool_call>\n<function=write>\n"
                + "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
                + "</function>\n</tool_call>"
            ),
        ),
        (
            GLM45,
            lambda **values: (
                "<tool_call>write\n"
                + "".join(
                    f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in values.items()
                )
                + "</tool_call>"
            ),
        ),
    ],
    ids=["qwen3_coder", "glm4.5"],
)


def found(form: ToolCallFormat, text: str) -> list[tuple[str, Any]]:
    return [(call.name, dict(call.arguments)) for call in form.parse(text).calls]


@UNTYPED
def test_the_schema_says_what_a_value_is(form: ToolCallFormat, call: Callable[..., str]) -> None:
    text = call(text='{"a": 1}', mode="420", over="True", other="7")
    assert found(form, text) == [("write", {"text": {"a": 1}, "mode": 420, "over": "True", "other": 7})]
    [(_, arguments)] = found(form.for_tools([WRITE]), text)
    assert arguments == {"text": '{"a": 1}', "mode": 420, "over": True, "other": 7}


@UNTYPED
def test_strings_are_taken_to_the_letter(form: ToolCallFormat, call: Callable[..., str]) -> None:
    for text in ('"quoted"', "  two\n\n lines ", "a < b && c > d", "</tool_call>", "C:\\new", "&lt;"):
        assert found(form.for_tools([WRITE]), call(text=text)) == [("write", {"text": text})]


@UNTYPED
def test_what_could_be_misread_is_marked(form: ToolCallFormat, call: Callable[..., str]) -> None:
    for text in ("7", "null", "[]", "</parameter>", "</arg_value>", "</tool_call>"):
        turn = form.render_turn("", [ToolCall("write", {"text": text, "a>b": "x", "": 1})])
        assert 'type="json"' in turn
        for reader in (form, form.for_tools([WRITE])):
            assert found(reader, turn) == [("write", {"text": text, "a>b": "x", "": 1})]
    assert 'type="json"' not in form.render_turn("", [ToolCall("write", {"text": "plain", "mode": 7})])


@pytest.mark.parametrize(
    ("form", "text", "calls"),
    [
        (QWEN3_CODER, "Ok.\n<tool_call>\n<function=ls>\n</function>\n</tool_call>", [("ls", {})]),
        (
            QWEN3_CODER,
            "<tool_call><function=ls><parameter=a>x</parameter></function></tool_call>",
            [("ls", {"a": "x"})],
        ),
        (GLM45, "<tool_call>ls\n</tool_call>", [("ls", {})]),
        (GLM45, "<tool_call>ls<arg_key>a</arg_key><arg_value>x</arg_value></tool_call>", [("ls", {"a": "x"})]),
        (LLAMA3_JSON, '{"name": "ls", "parameters": {"a": 1}}', [("ls", {"a": 1})]),
        (
            LLAMA3_JSON,
            '<|python_tag|>{"name": "ls", "parameters": {}};{"name": "cd", "parameters": {}}',
            [("ls", {}), ("cd", {})],
        ),
        (LLAMA3_JSON, '<think>x</think>{"name": "ls", "parameters": {}}', [("ls", {})]),
        (
            PYTHONIC,
            "[ls(), f(a=1, b=\"x\", c=[True, None, {'k': -2.5}],), ]",
            [("ls", {}), ("f", {"a": 1, "b": "x", "c": [True, None, {"k": -2.5}]})],
        ),
        (PYTHONIC, "<|python_start|>[ls(path='it\\'s')]<|python_end|>", [("ls", {"path": "it's"})]),
        (
            PYTHONIC,
            '[w(t="""two\n"lines\\"""", u="\\u00e9\\ud83d\\ude00\\d")]',
            [("w", {"t": 'two\n"lines"', "u": "é😀\\d"})],
        ),
        (
            LFM2,
            "Now.<|tool_call_start|>[f(a='x\ny', b={\"k\": true})]<|tool_call_end|>Done.",
            [("f", {"a": "x\ny", "b": {"k": True}})],
        ),
        (MISTRAL, '[TOOL_CALLS] [{"name": "ls", "arguments": {}, "id": "abcdefghi"}]', [("ls", {})]),
        (MISTRAL, '[TOOL_CALLS]ls[ARGS]{"a": 1}[TOOL_CALLS]cd{"b": 2}', [("ls", {"a": 1}), ("cd", {"b": 2})]),
        (MISTRAL_V11, "Ok[TOOL_CALLS]ls[CALL_ID]abcdefghi[ARGS]{}", [("ls", {})]),
        (
            DEEPSEEK_V3,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>ls\n```json\n{}\n```<｜tool▁call▁end｜>\n"
            '<｜tool▁call▁begin｜>function<｜tool▁sep｜>cd\n```json\n{"a": "```"}\n```'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            [("ls", {}), ("cd", {"a": "```"})],
        ),
        (
            DEEPSEEK_V31,
            "So:<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>ls<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
            [("ls", {})],
        ),
        (
            KIMI_K2,
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.ls:12"
            '<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|><|tool_calls_section_end|>',
            [("ls", {"a": 1})],
        ),
    ],
)
def test_turns_are_read(form: ToolCallFormat, text: str, calls: list[tuple[str, Any]]) -> None:
    parsed = form.parse(text)
    assert [(call.name, call.arguments) for call in parsed.calls] == calls
    assert parsed.malformed == ()


@pytest.mark.parametrize(
    ("form", "text", "error"),
    [
        (QWEN3_CODER, "<tool_call><function=ls><parameter=a>x</function></tool_call>", "'a' is not closed"),
        (QWEN3_CODER, "<tool_call><function=ls></tool_call>", "</function></tool_call> is expected"),
        (QWEN3_CODER, "<tool_call><function=ls></function>", "is not closed"),
        (QWEN3_CODER, '<tool_call>{"name": "ls", "arguments": {}}</tool_call>', "<function=NAME> is expected"),
        (
            QWEN3_CODER,
            "<tool_call><function=ls>" + "<parameter=a>x</parameter>" * 2 + "</function></tool_call>",
            "twice",
        ),
        (QWEN3_CODER, '<tool_call><function=ls><parameter=a type="json">x</parameter></function></tool_call>', "JSON"),
        (GLM45, "<tool_call>ls<arg_key>a</arg_key></tool_call>", "<arg_value> is expected"),
        (GLM45, "<tool_call>ls<arg_key>a</arg_key><arg_value>x</tool_call>", "not closed"),
        (LLAMA3_JSON, '{"name": "ls", "parameters": {}} and more', "text follows"),
        (LLAMA3_JSON, '{"name": "ls", "parameters": []}', "must be a JSON object"),
        (LLAMA3_JSON, '<|python_tag|>{"name": "ls"}', '"parameters" are missing'),
        (LLAMA3_JSON, "<|python_tag|>print(1)", "object is expected"),
        (PYTHONIC, "[ls(a=b)]", "a string, a number"),
        (PYTHONIC, "[ls(a=1+1)]", "comma or )"),
        (PYTHONIC, "[ls(a=__import__('os'))]", "a string, a number"),
        (PYTHONIC, "[ls(a=1)", "comma or ]"),
        (PYTHONIC, "[ls(a=1)] ok", "text follows"),
        (PYTHONIC, "[ls(a=1, a=2)]", "twice"),
        (PYTHONIC, "[ls(a='\\ud800')]", "surrogate"),
        (LFM2, "<|tool_call_start|>[ls(a=1)]", "not closed"),
        (LFM2, "<|tool_call_start|>ls(a=1)<|tool_call_end|>", "a list of calls is expected"),
        (MISTRAL, '[TOOL_CALLS] [{"name": "ls"', "invalid JSON"),
        (MISTRAL, "[TOOL_CALLS] []", "no call"),
        (MISTRAL, '[TOOL_CALLS] [{"name": "ls", "arguments": {}}] and', "text follows"),
        (MISTRAL, "[TOOL_CALLS]ls", "expected"),
        (DEEPSEEK_V3, "<｜tool▁calls▁begin｜>ls<｜tool▁calls▁end｜>", "a call is expected"),
        (DEEPSEEK_V31, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>ls<｜tool▁sep｜>{}", "not closed"),
        (
            DEEPSEEK_V31,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>ls<｜tool▁sep｜>{} x<｜tool▁call▁end｜>",
            "text follows",
        ),
        (KIMI_K2, "<|tool_calls_section_begin|><|tool_call_begin|>ls<|tool_call_end|>", "functions.NAME:NUMBER"),
    ],
)
def test_what_is_not_well_formed_is_malformed(form: ToolCallFormat, text: str, error: str) -> None:
    parsed = form.parse(text)
    assert parsed.calls == ()
    assert [error in malformed.error for malformed in parsed.malformed] == [True]
    assert parsed.content == text


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (LLAMA3_JSON, '{"name": "Ada", "born": 1815}'),
        (LLAMA3_JSON, '[1, 2] and {"name": "ls", "parameters": {}}'),
        (PYTHONIC, "[1, 2, 3]"),
        (PYTHONIC, "[see the docs](https://example.org)"),
        (PYTHONIC, "Use [ls(a=1)] for that."),
        (MISTRAL, '[{"name": "ls", "arguments": {}}]'),
        (KIMI_K2, "<|tool_call_begin|>functions.ls:0<|tool_call_argument_begin|>{}<|tool_call_end|>"),
    ],
)
def test_answers_are_no_calls(form: ToolCallFormat, text: str) -> None:
    parsed = form.parse(text)
    assert (parsed.content, parsed.calls, parsed.malformed) == (text, (), ())


def test_a_malformed_call_of_a_section_does_not_hide_the_next() -> None:
    good = "<｜tool▁call▁begin｜>ls<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
    bad = "<｜tool▁call▁begin｜>ls<｜tool▁sep｜>{<｜tool▁call▁end｜>"
    parsed = DEEPSEEK_V31.parse(f"<｜tool▁calls▁begin｜>{good}{bad}{good}<｜tool▁calls▁end｜>")
    assert (len(parsed.calls), len(parsed.malformed)) == (2, 1)
    assert parsed.content == bad


def test_mistral_results_carry_the_calls_id() -> None:
    [call] = MISTRAL.parse('[TOOL_CALLS] [{"name": "ls", "arguments": {}, "id": "abcdefghi"}]').calls
    assert call.id == "abcdefghi"
    told = MISTRAL.render_results([Message("tool", '{"output": 1}', tool_call_id=call.id)])
    inside = told.removeprefix("[TOOL_RESULTS]").removesuffix("[/TOOL_RESULTS]")
    assert json.loads(inside) == {"content": {"output": 1}, "call_id": "abcdefghi"}


def test_kimi_numbers_calls_and_results_alike() -> None:
    turn = KIMI_K2.render_turn("", [ToolCall("ls"), ToolCall("cd")])
    told = KIMI_K2.render_results([Message("tool", "{}", name="ls"), Message("tool", "{}", name="cd")])
    for identifier in ("functions.ls:0", "functions.cd:1"):
        assert identifier in turn
        assert f"## Return of {identifier}\n" in told
