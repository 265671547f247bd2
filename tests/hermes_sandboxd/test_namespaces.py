"""What is left of namespaces that could not be made."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.namespaces

# Bubblewrap's first process waits for a byte, and its second one for the first: both are in the middle of it.
STUCK = """
import os
from hermes_sandboxd import _linux, _namespaces, find_bubblewrap
_namespaces._SETUP_S = 1.0
_linux.set_child_subreaper()
children = _namespaces.open_children()
byte, _ = os.pipe()
os.set_inheritable(byte, True)
options = ["--info-fd", "3", "--unshare-all", "--unshare-user", "--as-pid-1", "--ro-bind", "/", "/"]
argv = [find_bubblewrap(), *options, "--userns-block-fd", str(byte), "--", "/bin/cat"]
try:
    _namespaces._run_bubblewrap(argv, children)
except _namespaces.NamespaceError as error:
    print(error)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
print("nobody is left")
"""


def test_nobody_is_left_of_bubblewrap_that_did_not_finish() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == ["bubblewrap did not finish within 1 s", "nobody is left"]
