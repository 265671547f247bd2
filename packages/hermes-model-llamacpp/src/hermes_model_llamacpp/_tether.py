"""A script that becomes another program, which the kernel kills when its owner is gone.

`python _tether.py OWNER_PID PROGRAM ARGUMENT…`; standard library only. It exists
because a `preexec_fn` is unsafe in a process that has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; it survives execve
EXIT_CANNOT_EXECUTE = 126


def main() -> None:
    """Tie this process to its owner and become the program."""
    owner, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        os._exit(0)  # it was gone before the tie
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"{command[0]} cannot be executed: {error.strerror}", file=sys.stderr)  # noqa: T201 - its log
        sys.exit(EXIT_CANNOT_EXECUTE)


if __name__ == "__main__":
    main()
