"""Runs what a supervisor runs, before there is one.

The interpreter rewrites the code that it executes often, and every page that it writes to is a page that a supervisor
no longer shares with the zygote. What is rewritten here is rewritten once for all slots.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from hermes_sandboxd._frames import FrameDecoder, encode_frame
from hermes_sandboxd._killing import BareProcesses
from hermes_sandboxd._namespaces import Joined, open_children
from hermes_sandboxd._protocol import DEFAULT_OUTPUT_CAP
from hermes_sandboxd._supervisor import Supervisor

_SPEC: dict[str, Any] = {
    "level": "namespaces",
    "uid": None,
    "env": {},
    "workspace": "/",
    "home": "/",
    "tmp": "/tmp",
    "copies": [],
    "limits": {"memory_bytes": None, "workspace_bytes": None, "workspace": "disk", "processes": None},
}
_ROUNDS = 12
"""CPython 3.11 and later specialise a function once it has been called eight times."""


def warm_up() -> None:
    """Serve a few commands that do nothing, outside any slot."""
    ours, theirs = socket.socketpair()
    pidfd = os.pidfd_open(os.getpid())
    oom_score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    try:
        joined = Joined(os.getpid(), pidfd, -1, oom_score, (), 0, -1)
        # Its own descendants: nothing here may ever take the host's processes for a slot's.
        processes = BareProcesses(None, open_children())
        supervisor = Supervisor(theirs, _SPEC, joined, processes, None)
        for request_id in range(1, _ROUNDS + 1):
            ours.sendall(encode_frame(_request(request_id)))
            _await_answer(supervisor, ours)
        supervisor.close()
    finally:
        for descriptor in (pidfd, oom_score):
            os.close(descriptor)
        ours.close()
        theirs.close()


def _request(request_id: int) -> dict[str, Any]:
    params = {
        "slot": 0,
        "argv": ["/bin/true"],
        "timeout_s": 10.0,
        "cpu_s": None,
        "merge": False,
        "report": False,
        "cwd": "/",
        "env": {},
        "stream": False,
        "output_cap": DEFAULT_OUTPUT_CAP,
    }
    return {"id": request_id, "method": "slot.exec", "params": params}


def _await_answer(supervisor: Supervisor, ours: socket.socket) -> None:
    decoder = FrameDecoder()
    ours.setblocking(False)
    while True:
        supervisor.turn()
        try:
            if decoder.feed(ours.recv(65536)):
                return
        except BlockingIOError:
            continue
