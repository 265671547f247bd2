"""What the settings of the backend do to containers and slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from hermes_backend_docker import DockerConfig
from hermes_core import Hermes
from hermes_core.exceptions import ConfigError
from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hermes_backend_docker import DockerBackend

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def test_resources_of_a_container(make: Callable[..., DockerBackend], client: Any, owner: str) -> None:
    async with make(cpus=0.5, memory="256MiB", pids=200, shm="16MiB") as backend:
        await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        host = client.inspect_container(backend.sandboxes[0].title)["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (500_000_000, 256 << 20, 256 << 20)
    assert (host["PidsLimit"], host["ShmSize"]) == (200, 16 << 20)
    assert not host["Privileged"]
    assert host["CapAdd"] is None
    assert host["AutoRemove"]


async def test_a_daemon_that_is_not_root(make: Callable[..., DockerBackend]) -> None:
    async with Hermes(backend=make(user="1234")) as hermes, hermes.lease() as slot:
        assert slot.isolation == "namespaces"
        assert (await slot.exec("id -u; echo x > file; cat file")).stdout == "1000\nx\n"


async def test_volumes_are_seen_and_not_changed(make: Callable[..., DockerBackend], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o777)
    (data / "file").write_text("content")
    for volume in (f"{data}:/data", f"{data}:/opt/data:rw"):
        folder = volume.split(":")[1]
        async with Hermes(backend=make(volumes=[volume])) as hermes, hermes.lease() as slot:
            assert (await slot.exec(f"cat {folder}/file")).stdout == "content"
            assert (await slot.exec(f"echo x > {folder}/file")).exit_code != 0


async def test_containers_without_a_network(make: Callable[..., DockerBackend]) -> None:
    async with Hermes(backend=make(container_network="none")) as hermes:
        async with hermes.lease() as slot:
            assert (await slot.exec("cat /proc/net/dev")).stdout.count(":") == 1
        with pytest.raises(ConfigError, match="network policy"):
            await hermes.acquire(network="host")


async def test_the_network_of_the_container_is_what_host_means(make: Callable[..., DockerBackend]) -> None:
    async with Hermes(backend=make()) as hermes, hermes.lease(network="host") as slot:
        assert "eth0" in (await slot.exec("cat /proc/net/dev")).stdout


async def test_devices_are_those_that_were_named(make: Callable[..., DockerBackend]) -> None:
    usual = "ls -A /dev | sort | tr '\\n' ' '"
    async with Hermes(backend=make()) as hermes, hermes.lease() as slot:
        before = (await slot.exec(usual)).stdout.split()
    async with Hermes(backend=make(devices=["/dev/kmsg"])) as hermes, hermes.lease() as slot:
        after = (await slot.exec(usual)).stdout.split()
    assert set(after) - set(before) == {"kmsg"}


async def test_what_the_daemon_has_is_not_seen(make: Callable[..., DockerBackend]) -> None:
    async with Hermes(backend=make()) as hermes, hermes.lease() as slot:
        assert (await slot.exec("ls -A /opt/hermes /run")).stdout.split() == ["/opt/hermes:", "/run:"]
        assert (await slot.exec("ls /run/hermes")).exit_code != 0
        assert "LD_PRELOAD" not in (await slot.exec("env")).stdout


@pytest.mark.parametrize(
    "values",
    [{"memory": "1MiB"}, {"cpus": 0}, {"user": "somebody"}, {"volumes": ["/data"]}, {"devices": ["fuse"]}, {"x": 1}],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DockerConfig.model_validate(values)
