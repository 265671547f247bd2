"""The page on tool-call formats says what the formats do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hermes_core.execution import ToolCall
from hermes_core.plugins import create_plugin_manager

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "tool-call-formats.md"


def test_the_table_is_what_is_registered_and_what_it_writes() -> None:
    registered = [
        r for r in create_plugin_manager().registrations("tool-call format") if r.distribution == "hermes-core"
    ]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| (`+)(.+)\3 \|$", PAGE.read_text(), re.MULTILINE)
    assert [name for name, *_ in rows] == [registration.name for registration in registered]
    for (_, _, _, shown), registration in zip(rows, registered, strict=True):
        turn = registration.load().render_turn("", [ToolCall("lookup", {"word": "slot"}, "call_1")])
        assert shown.replace("\\|", "|").replace("⏎", "\n") == turn


def test_the_format_of_ones_own_works() -> None:
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Let me look. lookup {'word': 'slot'}\n"), done.stderr
