"""What every text format tells a model of tools and their results."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from hermes_core.execution import ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hermes_core.execution import ToolDefinition
    from hermes_core.models._message import Message

__all__ = ["block_results", "harmless", "listed_tools", "tool_prompt"]

# Where a chat template's control tokens and the formats' markers begin: `<|…`, `<｜…`, `</s>`, `[/INST]`, `<tool_…`.
# A server that tokenizes them within a message would let a tool's output end its block or forge a turn.
_CONTROL = re.compile(
    r"<(?=\||｜|/?s>|/?think>|/?tool_(?:call|response)>|(?:start|end)_of_turn>|bos>|eos>)|\[(?=/?[A-Z_]{3,}\])"
)

_PROMPT = """\
You are an agent that solves tasks by calling functions. You may call the functions listed inside <tools></tools>:
<tools>
{tools}
</tools>

{form}

Rules:
- Think first if you need to, in one <think></think> block; then write your calls and nothing else.
- The arguments fit the function's parameters. Close everything that you open.
- The results come back {results}, one for each call, in order.
- A turn without a call is your final answer.
{notes}
Examples, with made-up functions.
One call:
<think>I need the list of files.</think>
{single}
A call that does several things at once:
{pipeline}
Two calls in one turn:
{pair}"""

_EXAMPLES = {
    "single": [ToolCall("list_files", {"folder": "src"}, "example1")],
    "pipeline": [ToolCall("shell", {"command": "sort names.txt | uniq -c | sort -rn | head -n 3"}, "example2")],
    "pair": [ToolCall("lookup", {"word": "slot"}, "example3"), ToolCall("lookup", {"word": "lease"}, "example4")],
}

_NOTES = {
    "terminal": (
        "`terminal` runs a POSIX sh command, in a fresh shell each time: folder and variables of an earlier call are "
        "gone, files stay. Begin commands that need a virtual environment with `. .venv/bin/activate &&`."
    ),
    "terminal_stateful": (
        "`terminal_stateful` keeps its folder, variables and background processes from one call to the next."
    ),
    "tmux": "`tmux` is for programs that want a terminal: start one, send keys, and capture the screen.",
}


def tool_prompt(
    tools: Sequence[ToolDefinition], *, form: str, results: str, write: Callable[[Sequence[ToolCall]], str]
) -> str:
    """Tell a model which tools there are and how to call them.

    Args:
        tools: Those that are enabled; some bring a note.
        form: How a call looks.
        results: Where results stand, to follow "The results come back".
        write: Writes the examples' calls.
    """
    notes = [f"- {_NOTES[tool.name]}\n" for tool in tools if tool.name in _NOTES]
    examples = {name: write(calls) for name, calls in _EXAMPLES.items()}
    return _PROMPT.format(tools=listed_tools(tools), form=form, results=results, notes="".join(notes), **examples)


def listed_tools(tools: Sequence[ToolDefinition]) -> str:
    """One line of JSON for each tool."""
    return "\n".join(json.dumps(_listed(tool), ensure_ascii=False, default=dict) for tool in tools)


def harmless(text: str) -> str:
    r"""Write what could end a block or a turn so that it cannot: `<|` as `\u003c|`, the same string in JSON."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def block_results(results: Sequence[Message], opening: str, closing: str) -> str:
    """One block for each result."""
    return "\n".join(f"{opening}{harmless(message.content)}{closing}" for message in results)


def _listed(tool: ToolDefinition) -> dict[str, object]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "required": None}
