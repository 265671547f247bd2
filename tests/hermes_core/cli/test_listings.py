from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hermes_core.cli.conftest import Cli


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("plugins", "hermes-core"),
        ("tools", "terminal"),
        ("toolsets", "filesystem"),
        ("backends", "local"),
        ("models", "oracle"),
        ("models formats", "kimi_k2"),
        ("envs", "arithmetic"),
    ],
)
def test_a_listing_is_a_table_or_json(hermes: Cli, command: str, expected: str) -> None:
    table = hermes(*command.split())
    assert table.returncode == 0, table.stderr
    assert expected in table.stdout
    listed = hermes(*command.split(), "--json")
    rows = json.loads(listed.stdout)
    assert expected in {row.get("name") or row["distribution"] for row in rows}


def test_brackets_in_a_listing_are_text(hermes: Cli) -> None:
    assert "[name(key=value), …]" in hermes("models", "formats").stdout


def test_toolsets_show_the_tools_that_they_expand_to(hermes: Cli) -> None:
    rows = {row["name"]: row for row in json.loads(hermes("toolsets", "--json").stdout)}
    assert rows["sandbox"]["tools"] == ["terminal", "read_file", "write_file"]
    assert rows["default"]["tools"] == rows["sandbox"]["tools"]
    assert rows["terminal_stateful"]["tools"] == ["terminal_stateful", "tmux"]
    assert rows["safe"]["tools"] == ["read_file", "write_file"]


def test_help_lists_every_command(hermes: Cli) -> None:
    said = hermes("--help").stdout
    for command in ("run", "sandbox", "doctor", "plugins", "tools", "toolsets", "backends", "models", "envs"):
        assert f"  {command} " in said


def test_an_unknown_command_is_wrong_usage(hermes: Cli) -> None:
    done = hermes("rnu")
    assert done.returncode == 2
    assert "No such command 'rnu'" in done.stderr
    assert "Traceback" not in done.stderr
