"""Rules about the source itself."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hermes_core

CORE = Path(hermes_core.__file__).parent

# Left may import right, never the other way round.
FLOW = (
    "cli",
    "runs",
    "environments",
    "agent",
    "exporters",
    "observers",
    "trajectory",
    "models",
    "toolsets",
    "tools",
    "execution",
    "slots",
    "terminals",
    "sandbox",
)
OUTSIDE_THE_FLOW = {"default_plugins", "testing"}
FOR_EVERYONE = {"exceptions", "config", "concurrency", "diagnosis"}
FOLDERS = sorted(path.name for path in CORE.iterdir() if path.is_dir() and any(path.glob("*.py")))


def imported_at_run_time(file: Path) -> set[str]:
    """Top-level names below `hermes_core` that a module imports, those for type checking left out."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for alternative in node.orelse:
                visit(alternative)
            return
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hermes_core."):
            names.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names.update(a.name.split(".")[1] for a in node.names if a.name.startswith("hermes_core."))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text()))
    return names


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name not in OUTSIDE_THE_FLOW])
def test_imports_point_rightward(folder: str) -> None:
    assert folder in FLOW, f"where does {folder}/ stand in the flow?"
    allowed = {*FLOW[FLOW.index(folder) :], *FOR_EVERYONE}
    if folder == "cli":
        allowed |= {"plugins", "_hermes", "_catalogue"}
    for file in (CORE / folder).rglob("*.py"):
        wrong = imported_at_run_time(file) - allowed
        assert not wrong, f"{file.relative_to(CORE)} imports {sorted(wrong)}"


def test_the_hook_specifications_import_types_only() -> None:
    assert imported_at_run_time(CORE / "hookspecs.py") == set()


@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_public_names_exist_and_are_named_once(folder: str) -> None:
    module = importlib.import_module(f"hermes_core.{folder}".rstrip("."))
    public = getattr(module, "__all__", [])
    assert len(public) == len(set(public))  # their order is the linter's
    assert all(hasattr(module, name) for name in public)


def test_core_knows_no_single_event_loop() -> None:
    for file in CORE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        assert not imported & {"asyncio", "trio"}, file


def test_asking_for_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from hermes_core.cli._main import hermes\n"
        "try:\n    hermes(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    loaded = set(done.stderr.split())
    assert "run" in done.stdout
    assert not loaded & {"pydantic", "rich", "anyio", "openai", "httpx", "yaml", "hermes_core._hermes"}
