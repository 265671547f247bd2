"""Says for `hermes doctor` whether there is an ssh client, and whether the machine that is named lets us in."""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import anyio

from hermes_backend_ssh._address import Address
from hermes_backend_ssh._config import SshConfig
from hermes_backend_ssh._connection import control_path
from hermes_backend_ssh._processes import run_there
from hermes_core.config import first_variable
from hermes_core.diagnosis import Finding
from hermes_core.exceptions import HermesError, SandboxLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["diagnose"]

NAME = "backend ssh"
REACH_S = 5.0
GRACE_S = 5.0
"""What a login has beyond the time in which the machine is to be reached."""


def diagnose(config: SshConfig | None = None) -> Iterator[Finding]:
    """Look for the client, and log in to the machine that is named, if one is; nothing is put or started there.

    Args:
        config: Names it; by default the variables do.
    """
    client = shutil.which("ssh")
    if client is None:
        yield Finding(NAME, "missing", "there is no ssh client on PATH", "apt-get install openssh-client")
        return
    try:
        done = subprocess.run(
            [client, "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=REACH_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding(NAME, "broken", str(error), "run ssh -V by hand")
        return
    version = done.stderr.strip().partition(",")[0]
    config = config or SshConfig(connect_timeout_s=REACH_S)
    if (config.host or first_variable(["TERMINAL_SSH_HOST"])) is None:
        yield Finding(NAME, "ok", f"{version}; TERMINAL_SSH_HOST names no machine")
    else:
        yield anyio.run(partial(_log_in, version, config))


async def _log_in(version: str, config: SshConfig) -> Finding:
    try:
        address = Address.of(config)
        try:
            with anyio.fail_after(config.connect_timeout_s + GRACE_S):
                done = await run_there(address, "uname -sm", control=control_path())
        except TimeoutError:
            raise SandboxLostError(f"{address} does not let us in within {config.connect_timeout_s:g} s") from None
    except HermesError as error:
        return Finding(NAME, "broken", f"{version}; {error.message}", error.hint or "")
    return Finding(NAME, "ok", f"{version}; {address} is {done.output.strip() or 'something without uname'}")
