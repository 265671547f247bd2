"""What another program runs: a daemon, or what looks after the sandboxes of another machine."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def daemon_arguments(
    *,
    socket: str,
    state: str,
    capacity: int,
    lifeline_fd: int | None = None,
    lifeline_silence_s: float | None = None,
    orphan_grace_s: float | None = None,
    idle_end_s: float | None = None,
    bwrap: str | None = None,
    tcp: str | None = None,
    tls_env: str | None = None,
    python: str | None = None,
    isolation: str | None = None,
    root: str | None = None,
    slot_env: Mapping[str, str] | None = None,
    image_env: bool = False,
    uid_range: str | None = None,
    devices: Sequence[str] = (),
    writable: Sequence[str] = (),
    writable_if_there: Sequence[str] = (),
    hide: Sequence[str] = (),
    guard: Sequence[str] = (),
    socket_user: int | None = None,
    fresh_proc: bool = False,
    drop_to: str | None = None,
    command: Sequence[str] | None = None,
) -> list[str]:
    """Return the argument list that starts a daemon with this package's own files.

    The interpreter runs without site-packages (`-I -S`): it starts faster, and every slot costs less memory. Give
    `bwrap` (as `find_bubblewrap` returns it), since the wheel is not found that way.

    Args:
        socket: Path of the unix socket, at most 107 bytes.
        state: Folder for everything on disk; the daemon makes and removes it. As root every user must be able to pass
            the folders above it.
        capacity: Number of slots.
        lifeline_fd: Descriptor, inherited by the daemon, whose end ends the daemon.
        lifeline_silence_s: Seconds without a byte over the lifeline that end the daemon as well: a network that is gone
            brings no end.
        orphan_grace_s: Seconds that slots outlive their client.
        idle_end_s: Seconds without any client, counted from its start as well, after which the daemon ends by itself.
        bwrap: Path of bubblewrap.
        tcp: `HOST:PORT` to listen on as well.
        tls_env: Variable, in the daemon's environment, with key and certificates for TLS on TCP; plain TCP if None.
        python: Interpreter; this one if None.
        isolation: "auto", "namespaces", "user" or "none"; "auto" if None.
        root: "host" or "image": what slots see; "host" if None.
        slot_env: Variables of every slot, beneath those of its lease.
        image_env: Whether slots have the variables of the image as well, beneath `slot_env`: those that the daemon
            itself was started with, but for its own and the engine's.
        uid_range: `FIRST:LAST`, users for the slots of a daemon that is root.
        devices: Patterns of devices below /dev for every slot.
        writable: Folders of which every slot gets a copy that it may change; without one of them the daemon refuses.
        writable_if_there: Likewise, but those that are not there are named in the ready line.
        hide: Folders of the container, such as those in which its engine puts secrets, that are closed to everyone
            else, and that no slot sees.
        guard: Folders of the container that nobody but their owner may change: those that its engine leaves open to
            all, though what is in there is run by root, or would outlive a lease.
        socket_user: Who owns the socket; this process's user if None.
        fresh_proc: Mount a /proc of the daemon's own first: for a container whose /proc is masked.
        drop_to: `UID[:GID]` that a daemon started by root becomes for good. The folders that `socket` and `state` are
            in are made for that user.
        command: What starts `hermes-sandboxd` where the daemon is to run, instead of `python` and these files.
    """
    own = (python or sys.executable, "-I", "-S", os.path.dirname(os.path.abspath(__file__)))
    options: dict[str, Sequence[str] | str | float | None] = {
        "--socket": socket,
        "--state": state,
        "--capacity": capacity,
        "--lifeline-fd": lifeline_fd,
        "--lifeline-silence": lifeline_silence_s,
        "--orphan-grace": orphan_grace_s,
        "--idle-end": idle_end_s,
        "--bwrap": bwrap,
        "--tcp": tcp,
        "--tls-env": tls_env,
        "--isolation": isolation,
        "--root": root,
        "--slot-env": [f"{name}={text}" for name, text in (slot_env or {}).items()],
        "--image-env": image_env,
        "--uid-range": uid_range,
        "--device": devices,
        "--writable": writable,
        "--writable-if-there": writable_if_there,
        "--hide": hide,
        "--guard": guard,
        "--socket-user": socket_user,
        "--fresh-proc": fresh_proc,
        "--drop-to": drop_to,
    }
    return [*(command or own), "serve", *(word for option, value in options.items() for word in _words(option, value))]


def upkeep_program() -> bytes:
    """Return a script that looks after the sandboxes of another machine; it says how to run it."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "_upkeep.py"), "rb") as file:
        return file.read()


def _words(option: str, value: Sequence[str] | str | float | None) -> Iterator[str]:
    """An option as the parser of the command line takes it: not given, alone, with its value, or once for each."""
    if value is None or value is False:
        return
    if value is True:
        yield option
    elif isinstance(value, (str, int, float)):
        yield from (option, str(value))
    else:
        for each in value:
            # In one word: a value may begin with a dash.
            yield f"{option}={each}"
