from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from hermes_core.execution import ToolDefinition
from hermes_core.models import HERMES_FORMAT
from hermes_model_llamacpp import LlamaServer
from hermes_model_llamacpp._grammar import calls_grammar

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_core.execution import JsonValue


def tool(parameters: dict[str, JsonValue], name: str = "probe") -> ToolDefinition:
    return ToolDefinition(name, "A tool.", parameters)


RICH: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        'qu"ote\\d': {"type": "integer"},
        "kind": {"enum": ["a", 1, None, 'x"y']},
        "rate": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "flags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        "nested": {"$ref": "#/$defs/Node"},
        "open": {"type": "object", "additionalProperties": True},
        "whatever": {},
    },
    "required": ["text", 'qu"ote\\d', "kind", "rate", "flags", "nested", "open", "whatever"],
    "$defs": {"Node": {"type": "object", "properties": {"child": {"$ref": "#/$defs/Node"}}, "required": ["child"]}},
}
OPTIONAL: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": ["string", "null"], "maxLength": 4}, "c": {"const": True}},
}


def test_strings_share_what_a_turn_may_be_long() -> None:
    two: dict[str, JsonValue] = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string", "maxLength": 5, "minLength": 2}},
        "required": ["a", "b"],
    }
    text = calls_grammar([tool(two)], max_tokens=264, single=True)
    assert "char{0,100}" in text
    assert "char{2,5}" in text


def test_the_bound_of_strings_has_a_floor_and_a_ceiling() -> None:
    one: dict[str, JsonValue] = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert "char{0,32}" in calls_grammar([tool(one)], max_tokens=16, single=True)
    assert "char{0,1500}" in calls_grammar([tool(one)], max_tokens=100_000, single=True)


@pytest.mark.local_model
@pytest.mark.anyio
@pytest.mark.parametrize("parameters", [RICH, OPTIONAL, {"type": "object"}], ids=["rich", "optional", "empty"])
async def test_what_llamacpp_samples_under_the_grammar_is_a_call_of_the_schema(
    weights: Path, parameters: dict[str, JsonValue]
) -> None:
    grammar = calls_grammar([tool(parameters), tool({"type": "object"}, "other")], max_tokens=96, single=True)
    async with (
        LlamaServer(weights, context=2048, parallel=2) as server,
        httpx.AsyncClient(
            base_url=server.address,
            headers={"Authorization": f"Bearer {server.api_key}", "Connection": "close"},
            timeout=120,
        ) as http,
    ):
        for seed in range(2):
            body = {"prompt": "Now:\n", "n_predict": 1500, "temperature": 1.0, "seed": seed, "grammar": grammar}
            answer = (await http.post("/completion", json=body)).json()
            assert answer["stop_type"] == "eos", answer
            parsed = HERMES_FORMAT.parse(answer["content"])
            assert parsed.calls
            assert not parsed.malformed
            for call in parsed.calls:
                assert call.name in {"probe", "other"}
                if call.name == "probe" and "required" in parameters:
                    assert list(call.arguments) == parameters["required"]
