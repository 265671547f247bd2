"""`hermes-sandboxd serve`: starts a daemon and runs it to its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from hermes_sandboxd import _zygote
from hermes_sandboxd._cgroups import ControlGroups, remove_groups
from hermes_sandboxd._privileges import PrivilegeError, settle
from hermes_sandboxd._programs import find_bubblewrap, own_runtime
from hermes_sandboxd._root import Root, find_devices, find_writable, host_root, image_root, open_root_home
from hermes_sandboxd._state import StateError, StateFolder
from hermes_sandboxd._users import Users

if TYPE_CHECKING:
    import argparse
    from ssl import SSLContext
    from types import FrameType

    from hermes_sandboxd._daemon import Daemon, Options
    from hermes_sandboxd._levels import Isolation


class ServeError(Exception):
    """The daemon cannot start; the message says why."""


class PortTakenError(Exception):
    """The daemon cannot start just now: somebody else listens at its port."""


def serve(arguments: argparse.Namespace) -> int:
    """Serve until told to end; return the exit code."""
    if os.getpid() == 1:
        # The kernel hands the first process of a container no signal that it has not asked for: an engine that stops it
        # while it starts would wait until it may kill it.
        signal.signal(signal.SIGTERM, _end_at_once)
    in_image = arguments.root == "image"
    path = os.path.abspath(arguments.socket)  # the zygote is somewhere else
    state = StateFolder(arguments.state, in_image=in_image)
    try:
        # Before anything else: all that the daemon makes, and every process that it starts, is this user's.
        own = (os.path.dirname(state.path), os.path.dirname(path))
        settle(arguments.fresh_proc, arguments.drop_to, own, arguments.hide, arguments.guard)
    except PrivilegeError as error:
        return _fail(error)
    try:
        if in_image:
            _make_folder(os.path.dirname(path))
        listener = _listen(arguments.socket, arguments.socket_user)
    except ServeError as error:
        return _fail(error)
    try:
        users = Users.parse(arguments.uid_range) if os.geteuid() == 0 else None
        writable = find_writable(arguments.writable, arguments.writable_if_there)
        state.create()
        if in_image and users is not None:
            open_root_home()
        root = _root(arguments, writable)
    except (StateError, OSError, ValueError) as error:
        listener.close()
        os.unlink(arguments.socket)
        return _fail(error)

    daemon_id = os.urandom(16).hex()

    def clean_up() -> None:
        remove_groups(daemon_id)
        _unlink(path)
        state.remove()

    # Before anything that starts threads, and before the modules of the daemon are imported: the supervisors do not
    # need them, and a smaller process forks faster.
    zygote, zygote_pid = _zygote.fork(clean_up, (state.lock,))
    try:
        return _run(arguments, daemon_id, state, root, users, listener, zygote)
    finally:
        zygote.close()  # which ends it, if it was not told to end
        os.waitpid(zygote_pid, 0)
        clean_up()


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + number)


def _run(
    arguments: argparse.Namespace,
    daemon_id: str,
    state: StateFolder,
    root: Root,
    users: Users | None,
    listener: socket.socket,
    zygote: socket.socket,
) -> int:
    import asyncio

    from hermes_sandboxd._check import check_namespaces
    from hermes_sandboxd._daemon import Options
    from hermes_sandboxd._image_variables import image_variables
    from hermes_sandboxd._levels import choose_isolation

    token = os.environ.pop(arguments.token_env, None)
    try:
        tls = _tcp_security(arguments, token)
    except ServeError as error:
        zygote.send(b'{"do": "leave"}')
        return _fail(error)
    found = find_bubblewrap(arguments.bwrap)
    bubblewrap = state.bubblewrap(found) if found is not None else None
    isolation = choose_isolation(
        arguments.isolation, arguments.capacity, lambda: check_namespaces(bubblewrap or arguments.bwrap)
    )
    _raise_open_files()
    variables = image_variables(os.environ) if arguments.image_env else {}
    variables |= dict(pair.partition("=")[::2] for pair in arguments.slot_env)
    options = Options(arguments.capacity, arguments.orphan_grace, token, token, variables)
    main = _main(arguments, daemon_id, options, state, root, users, listener, zygote, bubblewrap, isolation, tls)
    try:
        asyncio.run(main)
    except PortTakenError as error:
        return _fail(error, 1)
    return 0


def _tcp_security(arguments: argparse.Namespace, token: str | None) -> SSLContext | None:
    if arguments.tcp is None:
        if arguments.tls_env is not None:
            raise ServeError("--tls-env is for --tcp, which is not there")
        return None
    if not token:
        raise ServeError(f"--tcp needs a token in the environment variable {arguments.token_env}")
    if arguments.tls_env is None:
        return None
    from hermes_sandboxd._tls import TlsError, server_context

    try:
        return server_context(arguments.tls_env, os.environ.pop(arguments.tls_env, None))
    except TlsError as error:
        raise ServeError(error) from None


async def _main(
    arguments: argparse.Namespace,
    daemon_id: str,
    options: Options,
    state: StateFolder,
    root: Root,
    users: Users | None,
    listener: socket.socket,
    zygote: socket.socket,
    bubblewrap: str | None,
    isolation: Isolation,
    tls: SSLContext | None,
) -> None:
    import asyncio

    from hermes_sandboxd._connection import HELLO_S, Connection
    from hermes_sandboxd._daemon import Daemon
    from hermes_sandboxd._endings import watch_clients, watch_lifeline
    from hermes_sandboxd._supervision import ZygoteLink

    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    link = ZygoteLink(zygote, ended.set)
    groups = _find_groups(daemon_id)
    daemon = Daemon(daemon_id, options, state, root, link, bubblewrap, users, isolation, groups)
    daemon.ending = ended
    for terminating in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(terminating, ended.set)
    if arguments.lifeline_fd is not None:
        watch_lifeline(loop, arguments.lifeline_fd, arguments.lifeline_silence, ended)
    if arguments.idle_end is not None:
        watch_clients(loop, daemon, arguments.idle_end)
    servers: list[Any] = [
        await loop.create_unix_server(lambda: Connection(daemon, options.socket_token), sock=listener)
    ]
    port = None
    if arguments.tcp is not None:
        host, number = _address(arguments.tcp)
        patience = None if tls is None else HELLO_S
        try:
            server = await loop.create_server(
                lambda: Connection(daemon, options.tcp_token), host, number, ssl=tls, ssl_handshake_timeout=patience
            )
        except OSError as error:
            link.leave()
            raise PortTakenError(f"cannot listen at {arguments.tcp}: {os.strerror(error.errno or 0)}") from None
        servers.append(server)
        port = servers[-1].sockets[0].getsockname()[1]
    _announce(arguments.socket, port, daemon)
    loop.run_in_executor(None, state.remove_abandoned_siblings)
    await ended.wait()
    for server in servers:
        server.close()
    await daemon.end()
    link.leave()


def _root(arguments: argparse.Namespace, writable: tuple[str, ...]) -> Root:
    root = host_root() if arguments.root == "host" else _image_root(arguments)
    missing = tuple(path for path in arguments.writable_if_there if os.path.normpath(path) not in writable)
    return root._replace(devices=find_devices(arguments.device), writable=writable, missing=missing)


def _image_root(arguments: argparse.Namespace) -> Root:
    own = [os.path.abspath(arguments.state), os.path.dirname(os.path.abspath(arguments.socket))]
    runtime = own_runtime()
    return image_root([*own, *arguments.hide, *([] if runtime is None else [runtime])])


def _find_groups(daemon_id: str) -> ControlGroups | None:
    try:
        groups = ControlGroups(daemon_id)
    except OSError:
        # Reported by `health`: a watchdog does what it can instead.
        return None
    groups.remove_abandoned()
    return groups


def _announce(path: str, port: int | None, daemon: Daemon) -> None:
    line = {
        "ready": True,
        "socket": os.path.abspath(path),
        "tcp": port,
        "pid": os.getpid(),
        "daemon_id": daemon.id,
        "isolation": daemon.level,
        "obstacle": daemon.obstacle,
        "missing": daemon.root.missing,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _listen(path: str, user: int | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        if user is not None:
            os.chown(path, user, -1)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ServeError(f"{path}: {error.strerror or error}") from None
    return listener


def _make_folder(path: str) -> None:
    """An image need not have the folder that the socket is to be in."""
    mask = os.umask(0o022)
    try:
        os.makedirs(path, mode=0o711, exist_ok=True)
    except OSError as error:
        raise ServeError(f"{path}: {error.strerror}") from None
    finally:
        os.umask(mask)


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "127.0.0.1", int(port)


def _raise_open_files() -> None:
    # A slot costs the daemon five descriptors. The zygote was forked before, so commands keep the usual limit.
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _fail(error: Exception, status: int = 2) -> int:
    sys.stderr.write(f"hermes-sandboxd: {error}\n")
    return status
