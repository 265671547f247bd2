"""Promises about what a command finds around itself."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from hermes_core.testing.contract._check import ALL_LEVELS, CONFINED, NAMESPACES, check

if TYPE_CHECKING:
    from hermes_core.testing.contract._rig import ContractRig


@check("No variable of the host or of the daemon is in the environment of a command.", levels=ALL_LEVELS)
async def clean_environment(rig: ContractRig) -> None:
    slot = await rig.lease()
    shown = (await slot.exec("env; cat /proc/self/environ | tr '\\0' '\\n'")).stdout
    assert rig.secret not in shown, "a variable of the process that leased the slot is in its environment"
    names = {line.partition("=")[0] for line in shown.splitlines() if "=" in line}
    foreign = {name for name in names if name.startswith(("HERMES_", "PYTHON", "LD_", "SSH_", "DOCKER_", "XDG_"))}
    assert not foreign, f"variables that nobody asked for: {sorted(foreign)}"


@check("HOME, PATH, USER and a UTF-8 locale are set, and true.", levels=ALL_LEVELS)
async def usual_variables(rig: ContractRig) -> None:
    slot = await rig.lease()
    done = await slot.exec('echo "$HOME"; echo "$USER"; echo "${LC_ALL:-$LANG}"; which sh ls cat | wc -l')
    home, user, locale, programs = done.stdout.splitlines()
    assert home == slot.home
    assert user, "USER is not set"
    assert "utf" in locale.lower(), f"the locale is {locale!r}"
    assert programs == "3", "PATH does not find sh, ls and cat"


@check("The workspace, the home folder and the temporary folder are the slot's to write in.", levels=ALL_LEVELS)
async def writable_places(rig: ContractRig) -> None:
    slot = await rig.lease()
    for place in (slot.workspace, slot.home, '"${TMPDIR:-/tmp}"'):
        done = await slot.exec(f"cd {place} && touch file && mkdir folder && mv file folder/ && rm -r folder && pwd")
        assert done.exit_code == 0, f"{place}: {done.stderr}"
    assert (await slot.exec("printf '#!/bin/sh\\necho ran\\n' > run; chmod +x run; ./run")).stdout == "ran\n"
    assert (await slot.exec("echo x > /dev/null && head -c 4 /dev/urandom | wc -c")).stdout.strip() == "4"


@check("The system's folders cannot be written.", levels=CONFINED)
async def read_only_system(rig: ContractRig) -> None:
    slot = await rig.lease()
    for folder in ("/", "/usr", "/usr/bin", "/bin", "/lib", "/etc", "/dev", "/proc", "/proc/sys/kernel"):
        done = await slot.exec(f"touch {folder}/hermes-contract && rm {folder}/hermes-contract")
        assert done.exit_code != 0, f"{folder} can be written"
    for file in ("/etc/passwd", "/bin/sh", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
        done = await slot.exec(f"test ! -e {file} || : >> {file}")
        assert done.exit_code != 0 or (await slot.exec(f"test -e {file}")).exit_code != 0, f"{file} can be written"


@check("A command starts with standard input, output and error, and no other descriptor.", levels=ALL_LEVELS)
async def descriptors(rig: ContractRig) -> None:
    slot = await rig.lease()
    # The shell lists its own without starting anything that would have more.
    done = await slot.exec('for fd in /proc/$$/fd/*; do echo "${fd##*/}"; done', stdin=b"x")
    assert set(done.stdout.split()) <= {"0", "1", "2", "3"}, f"descriptors {done.stdout.split()}"
    done = await slot.exec(
        "for fd in 3 4 5 6 7 8 9; do if [ -e /proc/self/fd/$fd ]; then readlink /proc/$$/fd/$fd; fi; done"
    )
    assert done.stdout == "", f"a command inherits {done.stdout!r}"


@check("A command has no terminal unless one was asked for.", levels=ALL_LEVELS)
async def no_terminal(rig: ContractRig) -> None:
    slot = await rig.lease()
    done = await slot.exec("test -t 0 || test -t 1 || test -t 2 || : < /dev/tty")
    assert done.exit_code != 0, "a command has a terminal"


@check("Commands do not run as root.", levels=CONFINED)
async def ordinary_user(rig: ContractRig) -> None:
    slot = await rig.lease()
    done = await slot.exec("id -u; id -g; grep -E '^(Uid|Gid|Groups)' /proc/self/status")
    uid, gid, *lines = done.stdout.splitlines()
    numbers = {number for line in lines for number in line.split()[1:]}
    assert "0" not in {uid, gid}, f"commands run as user {uid} of group {gid}"
    assert "0" not in numbers, f"commands have rights of root: {lines}"


@check("The name of the host is not told.", levels=NAMESPACES)
async def hostname(rig: ContractRig) -> None:
    slot = await rig.lease()
    seen = (await slot.exec("uname -n")).stdout.strip()
    assert seen, "there is no host name"
    assert seen != socket.gethostname(), "the slot has the name of this host"


@check("Files of the host are not visible, be they readable by everyone.", levels=NAMESPACES)
async def host_files(rig: ContractRig) -> None:
    slot = await rig.lease()
    done = await slot.exec(["cat", str(rig.secret_file)])
    assert rig.secret not in done.stdout, f"{rig.secret_file} of the host can be read"
    folders = "/root /home /srv /mnt /media /opt /boot"
    # An image may have such folders too: what counts is whether they are those of this machine.
    shown = await slot.exec(f"for f in {folders}; do stat -c '%d:%i %n' $f $f/* $f/.[!.]*; done 2>/dev/null")
    for line in shown.stdout.splitlines():
        identity, _, path = line.partition(" ")
        assert identity != _identity(path), f"{path} is that of the host"
    done = await slot.exec("ls -A /sys/kernel 2>/dev/null")
    assert done.stdout == "", f"/sys/kernel shows {done.stdout.split()[:5]}"


def _identity(path: str) -> str | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return f"{found.st_dev}:{found.st_ino}"
