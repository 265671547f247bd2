"""Builds the daemon as one file that any Python 3.9+ on Linux runs."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipapp

_MAIN = "import sys\nfrom hermes_sandboxd._cli import main\nsys.exit(main())\n"


def build_zipapp(target: str, interpreter: str = "/usr/bin/env python3") -> str:
    """Write the zipapp to `target` and return its absolute path."""
    source = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(
            source, os.path.join(folder, "hermes_sandboxd"), ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
        with open(os.path.join(folder, "__main__.py"), "w", encoding="utf-8") as file:
            file.write(_MAIN)
        zipapp.create_archive(folder, target, interpreter=interpreter, compressed=True)
    return os.path.abspath(target)
