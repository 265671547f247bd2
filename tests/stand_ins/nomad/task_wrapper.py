"""The parent of one raw_exec task: it outlives the agent, and writes down how the task ended.

`python -I -S task_wrapper.py SPEC`: the specification names the arguments, the environment, the folder, the user and
the files for output. It first prints one JSON line: the task's pid, or why it could not start. Like the agent's
cgroup it keeps every descendant, and ends those that are left when the task's first process ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
libc = ctypes.CDLL(None)


def children(pid: int) -> list[int]:
    """Return the processes below one, with their descendants."""
    found = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += [int(word) for word in file.read().split()]
    except OSError:
        return []
    return [one for child in found for one in (child, *children(child))]


def kill_rest() -> None:
    """Kill every descendant, also those that are born meanwhile."""
    while pids := children(os.getpid()):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def start(spec: dict[str, Any]) -> int:
    """Start the task; the pipe of the child's errors closes by itself when it is executed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        with os.fdopen(reading) as errors:
            if error := errors.read():
                print(json.dumps({"error": error}), flush=True)  # noqa: T201 (the agent reads it)
                os.waitpid(pid, 0)
                sys.exit(1)
        return pid
    try:
        os.setsid()
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGUSR1):
            signal.signal(each, signal.SIG_DFL)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in enumerate(("stdout", "stderr"), start=1):
            os.dup2(os.open(str(spec[name]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
        os.chdir(str(spec["folder"]))
        if spec["user"] is not None:
            uid, gid, groups = spec["user"]
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user has cleared it
        os.execve(str(spec["binary"]), spec["arguments"], spec["environment"])
    except BaseException as error:
        os.write(writing, str(error).encode())
    os._exit(127)


def main() -> None:
    """Start, say so, wait, write down the end."""
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: kill_rest())
    pid = start(spec)
    print(json.dumps({"pid": pid}), flush=True)  # noqa: T201 (the agent reads it)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while True:
        try:
            ended, status = os.wait()
        except ChildProcessError:  # the signal's handler has reaped it
            ended, status = pid, signal.SIGKILL
        if ended == pid:
            break
    kill_rest()
    code = os.waitstatus_to_exitcode(status)
    with open(spec["exit"] + ".new", "w") as file:
        json.dump({"code": 128 - code if code < 0 else code, "signal": max(0, -code)}, file)
    os.rename(spec["exit"] + ".new", spec["exit"])


if __name__ == "__main__":
    main()
