"""What is said when the engine cannot be used."""

from __future__ import annotations

import json
import os
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING

import anyio
import pytest
from docker import errors

from hermes_backend_docker import DockerBackend, DockerConfig, _container
from hermes_backend_docker._errors import engine_errors
from hermes_core.exceptions import BackendUnavailableError, HermesError, SandboxLostError
from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def refused(backend: DockerBackend) -> BackendUnavailableError:
    for attempt in (backend.list, backend.cleanup, backend.__aenter__):
        with pytest.raises(BackendUnavailableError) as raised:
            await attempt()
    return raised.value


async def test_no_engine(tmp_path: Path) -> None:
    config = DockerConfig(host=f"unix://{tmp_path}/none.sock", state_dir=tmp_path / "s")
    error = await refused(DockerBackend(config))
    assert f"no Docker engine answers at unix://{tmp_path}/none.sock" in str(error)
    assert "dockerd" in str(error.hint)


async def test_an_engine_that_has_ended(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "e.sock"))
    error = await refused(DockerBackend(DockerConfig(host=f"unix://{tmp_path}/e.sock", state_dir=tmp_path / "s")))
    assert "no Docker engine answers" in str(error)


async def test_an_engine_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="not on this machine"):
        await DockerBackend(DockerConfig(host="tcp://127.0.0.1:1", state_dir=tmp_path / "s")).__aenter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which takes root")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "e.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
            folder.chmod(0o755)
        message, hint = as_nobody(lambda: DockerBackend(DockerConfig(host=f"unix://{path}")).list())
    assert message.endswith("permission denied")
    assert "group docker" in hint


def as_nobody(work: Callable[[], object]) -> tuple[str, str]:
    """Return message and hint of what work raises in a child process without rights."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                anyio.run(work)  # type: ignore[arg-type]
            except HermesError as error:
                os.write(writing, json.dumps([error.message, error.hint]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        message, hint = json.loads(pipe.read() or '["nothing was raised", ""]')
    os.waitpid(pid, 0)
    return message, hint


@pytest.mark.docker
async def test_an_engine_that_forbids_namespaces(
    make: Callable[..., DockerBackend], monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    monkeypatch.setattr(_container, "CONFINEMENT", ())  # as Docker confines containers by itself
    async with make(isolation="namespaces") as backend:
        with pytest.raises(BackendUnavailableError, match="isolated slots cannot be had in containers") as raised:
            await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        assert "seccomp=unconfined" in str(raised.value.hint)
        assert not await backend.list(owner)


@pytest.mark.docker
async def test_less_isolation_than_required(
    make: Callable[..., DockerBackend], monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    monkeypatch.setattr(_container, "CONFINEMENT", ())
    async with make(require_isolation="namespaces") as backend:
        with pytest.raises(BackendUnavailableError, match="'namespaces' is required"):
            await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        assert not await backend.list(owner)


@pytest.mark.docker
async def test_what_the_engine_refuses_is_told_in_its_words(make: Callable[..., DockerBackend], owner: str) -> None:
    async with make(container_network="no-such-network") as backend:
        with pytest.raises(SandboxLostError, match="no-such-network"):
            await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        assert not await backend.list(owner)


@pytest.mark.docker
async def test_a_volume_that_is_not_there(make: Callable[..., DockerBackend], tmp_path: Path, owner: str) -> None:
    async with make(volumes=[f"{tmp_path}/nothing:/data"]) as backend:
        with pytest.raises(BackendUnavailableError, match="does not exist") as raised:
            await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        assert "volumes" in str(raised.value.hint)
        assert not await backend.list(owner)
    assert not (tmp_path / "nothing").exists()


def test_no_space() -> None:
    answer = SimpleNamespace(status_code=500, url="x", reason="y")
    error = errors.APIError("x", response=answer, explanation="write /var/lib/x: no space left on device")
    with pytest.raises(BackendUnavailableError, match="no space left") as raised, engine_errors("unix:///x"):
        raise error
    assert "cleanup" in str(raised.value.hint)
