"""Daemons that are started as root and give that up, in containers of a real engine whose /proc is masked."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sandboxd_client import Client, wait_until

from hermes_core.sandbox.portable import RUNTIME_INSIDE, build_runtime, runtime_of
from hermes_sandboxd import daemon_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandboxd_client import Daemon

USER = 61234
PORT = 7000
TOKEN = "token"
STARTED = ("--fresh-proc", "--drop-to", str(USER))
UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="cannot run: needs root")


class Container:
    """A container whose first process is a daemon."""

    def __init__(self, engine: Any, image: str, *options: str, **host: object) -> None:  # noqa: ANN401 - no types
        self._engine = engine
        command = daemon_arguments(
            socket="/run/hermes/daemon/socket",
            state="/run/hermes/daemon/state",
            capacity=4,
            tcp=f"0.0.0.0:{PORT}",
            command=runtime_of(build_runtime(), RUNTIME_INSIDE).arguments,
        )
        settings = engine.create_host_config(
            binds=[f"{build_runtime()}:{RUNTIME_INSIDE}:ro"], port_bindings={PORT: ("127.0.0.1", None)}, **host
        )
        self.id = engine.create_container(
            image,
            [*command, *options],
            environment={"HERMES_SANDBOX_TOKEN": TOKEN},
            ports=[PORT],
            host_config=settings,
            user="0",
        )["Id"]
        engine.start(self.id)

    def ready(self) -> dict[str, Any]:
        """Wait for the daemon's first line."""
        wait_until(lambda: b"\n" in self._engine.logs(self.id, stderr=False))
        line: dict[str, Any] = json.loads(self._engine.logs(self.id, stderr=False))
        return line

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return exit code and what it said on standard error."""
        code = self._engine.wait(self.id, timeout=60)["StatusCode"]
        return code, self._engine.logs(self.id, stdout=False, stderr=True).decode()

    def client(self) -> Client:
        port = int(self._engine.port(self.id, PORT)[0]["HostPort"])
        return Client(("127.0.0.1", port), token=TOKEN)

    def status(self) -> dict[str, str]:
        """What the kernel says of the daemon."""
        shown = self._engine.exec_start(self._engine.exec_create(self.id, ["cat", "/proc/1/status"])["Id"])
        return dict(line.split(":\t", 1) for line in shown.decode().splitlines())

    def remove(self) -> None:
        self._engine.remove_container(self.id, force=True, v=True)


@pytest.fixture
def contain(docker_base: str) -> Iterator[Callable[..., Container]]:
    """Starts containers, which are removed afterwards."""
    import docker

    containers = []
    with closing(docker.APIClient(version="auto", **docker.utils.kwargs_from_env())) as engine:

        def contain(*options: str, **host: object) -> Container:
            containers.append(Container(engine, docker_base, *options, **host))
            return containers[-1]

        yield contain
        for container in containers:
            container.remove()


@pytest.mark.docker
def test_namespaces_in_a_container_whose_proc_is_masked(contain: Callable[..., Container]) -> None:
    container = contain(*STARTED, "--root", "image", cap_add=["SYS_ADMIN"], security_opt=list(UNCONFINED))
    ready = container.ready()
    assert (ready["isolation"], ready["obstacle"]) == ("namespaces", None)
    status = container.status()
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4
    assert status["Groups"].strip() == ""
    with closing(container.client()) as client:
        client.open(0)
        client.open(1)
        sleeping = client.send_sh("exec sleep 60", 1)
        seen = client.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; grep CapEff /proc/self/status; echo $HOME; id -u")
        assert b"sleep" not in seen.stdout
        assert b"serve" not in seen.stdout
        assert seen.stdout.split()[-4:] == [b"CapEff:", b"0" * 16, b"/home/agent", b"1000"]
        client.notify("cancel", id=sleeping)
        assert client.wait(sleeping)["cancelled"]
        assert client.call("shutdown").error is None
    code, said = container.ended()
    assert (code, said) == (0, "")


@pytest.mark.docker
def test_without_the_right_to_mount_it_says_what_is_missing(contain: Callable[..., Container]) -> None:
    code, said = contain(*STARTED, security_opt=list(UNCONFINED)).ended()
    assert code == 2
    assert said.startswith("hermes-sandboxd: a fresh /proc cannot be mounted: ")
    assert "CAP_SYS_ADMIN" in said
    assert "allow_caps" in said
    assert said.count("\n") == 1


@pytest.mark.docker
@pytest.mark.parametrize("level", ["namespaces", "user"])
def test_folders_of_the_engine_are_hidden_from_slots(contain: Callable[..., Container], level: str) -> None:
    how = (*STARTED, "--isolation", level) if level == "namespaces" else ("--isolation", level)
    container = contain(
        *(*how, "--root", "image", "--hide", "/secrets", "--hide", "/var/hidden", "--hide", "/nowhere"),
        cap_add=["SYS_ADMIN"],
        security_opt=list(UNCONFINED),
        tmpfs={"/secrets": "mode=777", "/var/hidden": "mode=777", "/seen": "mode=755"},
    )
    assert container.ready()["isolation"] == level
    with closing(container.client()) as client:
        client.open(0, network="host")
        for folder in ("/secrets", "/var/hidden"):
            tried = client.sh(f"(echo > {folder}/mine) 2> /dev/null || echo refused; ls -A {folder} 2> /dev/null")
            assert tried.stdout == b"refused\n"
        assert client.sh("ls -d /seen").stdout == b"/seen\n"


@pytest.mark.docker
def test_what_the_engine_leaves_open_to_all_is_closed_to_slots(contain: Callable[..., Container]) -> None:
    container = contain(
        *("--isolation", "user", "--root", "image", "--guard", "/local", "--guard", "/nowhere"),
        tmpfs={"/local": "mode=777", "/open": "mode=777"},
    )
    assert container.ready()["isolation"] == "user"
    with closing(container.client()) as client:
        client.open(0, network="host")
        tried = client.sh("for at in /local /open; do (echo > $at/mine) 2> /dev/null && echo $at; done; ls -A /local")
        assert tried.stdout == b"/open\n"


@needs_root
def test_folders_of_others_are_not_taken(start: Callable[..., Daemon], capfd: pytest.CaptureFixture[str]) -> None:
    daemon = start("--drop-to", str(USER))
    assert daemon.process.wait(10) == 2
    assert f"belongs to somebody else than user {USER}" in capfd.readouterr().err
    assert Path(daemon.folder).stat().st_uid == 0


@pytest.mark.docker
def test_only_root_can_give_it_up(contain: Callable[..., Container]) -> None:
    code, said = contain("--drop-to", str(USER), cap_drop=["ALL"]).ended()
    assert (code, said.count("\n")) == (2, 1)
    assert "start it as root" in said


@pytest.mark.parametrize("identity", ["0", "61234:0", "somebody", "-1", ""])
def test_only_ordinary_users(start: Callable[..., Daemon], capfd: pytest.CaptureFixture[str], identity: str) -> None:
    assert start(f"--drop-to={identity}").process.wait(10) == 2
    assert "not UID[:GID] of an ordinary user" in capfd.readouterr().err
