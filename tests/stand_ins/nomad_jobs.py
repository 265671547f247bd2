"""Jobs for these tests: one task, no restarts."""

from __future__ import annotations

import itertools
import os
from typing import Any

__all__ = ["batch", "fresh_name", "shell"]

numbers = itertools.count()


def fresh_name() -> str:
    """Return a job ID that no other test uses."""
    return f"test-{os.getpid()}-{next(numbers)}"


def batch(driver: str, config: dict[str, Any], **task: Any) -> dict[str, Any]:
    """Write a batch job as the backend does, with one dynamic port `rpc`; `task` adds to the task."""
    name = fresh_name()
    main = {
        **{"Name": "main", "Driver": driver, "Config": config, "KillTimeout": 1_000_000_000},
        **{"LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1}, "Resources": {"CPU": 50, "MemoryMB": 32}},
        **task,
    }
    group = {
        **{"Name": "sandbox", "Count": 1, "Tasks": [main], "EphemeralDisk": {"SizeMB": 10}},
        "RestartPolicy": {"Attempts": 0, "Mode": "fail"},
        "ReschedulePolicy": {"Attempts": 0, "Unlimited": False},
        "Networks": [{"Mode": "host", "DynamicPorts": [{"Label": "rpc"}]}],
    }
    return {"ID": name, "Name": name, "Type": "batch", "Meta": {"owner": name}, "TaskGroups": [group]}


def shell(script: str, **task: Any) -> dict[str, Any]:
    """Write a job of raw_exec that runs a script."""
    return batch("raw_exec", {"command": "sh", "args": ["-c", script]}, **task)
