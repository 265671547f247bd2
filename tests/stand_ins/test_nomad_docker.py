"""Tasks of the docker driver: what a container gets, and what is refused."""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.stand_ins.nomad.fixtures import running_stand_in
from tests.stand_ins.nomad_jobs import batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.stand_ins.nomad.cluster import Cluster
    from tests.stand_ins.nomad.fixtures import RunningAgent, RunningStandIn

pytestmark = pytest.mark.docker


@pytest.fixture
def run(cluster: Cluster, docker_base: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run a script in a container of the base image and wait for a status; the job is purged afterwards."""
    started: list[str] = []

    def begin(script: str, *statuses: str, config: dict[str, Any] | None = None, **task: Any) -> dict[str, Any]:
        job = batch("docker", {"image": docker_base, "command": "sh", "args": ["-c", script], **(config or {})}, **task)
        started.append(job["ID"])
        cluster.register(job)
        return cluster.allocation(job["ID"], *(statuses or ("running",)))

    yield begin
    for name in started:
        cluster.purge(name)


def said(allocation: dict[str, Any], kind: str) -> str:
    """Return what the last event of a kind says."""
    events = allocation["TaskStates"]["main"]["Events"]
    found: str = [event["DisplayMessage"] for event in events if event["Type"] == kind][-1]
    return found


def lasting(script: str) -> str:
    """Have the container go on: the agent may lose what one writes that ends at once."""
    return f"{script}; exec sleep 1000"


def containers(allocation: dict[str, Any]) -> str:
    """Return the ids of an allocation's containers."""
    label = f"label=com.hashicorp.nomad.alloc_id={allocation['ID']}"
    command = ["docker", "ps", "--all", "--quiet", "--filter", label]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_port_is_published(cluster: Cluster, run: Callable[..., dict[str, Any]]) -> None:
    script = (
        "exec perl -MIO::Socket::INET -e '"
        + (
            "my $s = IO::Socket::INET->new(LocalPort => $ENV{NOMAD_PORT_rpc}, Listen => 5, ReuseAddr => 1) or die $!;"
            'while (my $c = $s->accept) { print $c "hello\\n"; close $c }'
        )
        + "'"
    )
    allocation = run(script, config={"ports": ["rpc"]})
    [port] = allocation["AllocatedResources"]["Shared"]["Ports"]

    def ask() -> bytes:
        with suppress(OSError), socket.create_connection((port["HostIP"], port["Value"])) as connection:
            return connection.recv(100)
        return b""  # the engine accepts before the container listens

    cluster.eventually(lambda: ask() == b"hello\n")


def test_folders_and_environment(cluster: Cluster, run: Callable[..., dict[str, Any]]) -> None:
    script = (
        'echo "$NOMAD_TASK_DIR $NOMAD_ALLOC_DIR $NOMAD_SECRETS_DIR $MINE"; cat /secrets/kept; echo;'
        "touch /local/x /alloc/data/x && id -u"
    )
    templates = [{"EmbeddedTmpl": "secret", "DestPath": "secrets/kept"}]
    allocation = run(lasting(script), Env={"MINE": "${NOMAD_TASK_NAME}"}, Templates=templates)
    written = ["/local", "/alloc", "/secrets", "main", "secret", "0"]
    cluster.eventually(lambda: cluster.logs(allocation["ID"]).split() == written)


def test_a_container_that_fails(cluster: Cluster, run: Callable[..., dict[str, Any]]) -> None:
    allocation = run("exit 5", "failed")
    said_of_it = 'Exit Code: 5, Exit Message: "Docker container exited with non-zero exit code: 5"'
    assert said(allocation, "Terminated") == said_of_it
    cluster.eventually(lambda: not containers(allocation), "the container is left")


def test_volumes_and_mounts(cluster: Cluster, run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the node")
    config = {
        "volumes": [f"{tmp_path}:/first:ro"],
        "mount": [{"type": "bind", "source": str(tmp_path), "target": "/second", "readonly": True}],
    }
    script = "cat /first/file /second/file; touch /first/x || touch /second/x || echo . refused"
    allocation = run(lasting(script), config=config)
    cluster.eventually(lambda: cluster.logs(allocation["ID"]) == "from the nodefrom the node. refused\n")


def test_capabilities_that_the_operator_allows(cluster: Cluster, run: Callable[..., dict[str, Any]]) -> None:
    options = ["seccomp=unconfined", "apparmor=unconfined"]
    config = {"cap_add": ["sys_admin"], "security_opt": options}
    script = "unshare -m sh -c 'mount -t proc proc /proc && ls -d /proc/self >/dev/null && echo fresh'"
    allocation = run(lasting(script), config=config)
    cluster.eventually(lambda: cluster.logs(allocation["ID"]) == "fresh\n")
    plain = run(lasting("unshare -m true"))
    cluster.eventually(lambda: "not permitted" in cluster.logs(plain["ID"], kind="stderr"))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"cap_add": ["sys_module"]}, "driver does not allow the following capabilities: sys_module"),
        ({"privileged": True}, "Docker privileged mode is disabled on this Nomad agent"),
        ({"ports": ["nothing"]}, 'Port "nothing" not found, check network block'),
        ({"command": "no-such-command"}, "executable file not found"),
    ],
)
def test_what_is_refused(run: Callable[..., dict[str, Any]], config: dict[str, Any], text: str) -> None:
    allocation = run("true", "failed", config=config)
    assert text in said(allocation, "Driver Failure")
    assert not containers(allocation)


def test_a_user_that_the_image_does_not_have(run: Callable[..., dict[str, Any]]) -> None:
    allocation = run("true", "failed", User="nobody-of-this-name")
    assert "unable to find user nobody-of-this-name" in said(allocation, "Driver Failure")


def test_an_image_that_cannot_be_pulled(run: Callable[..., dict[str, Any]]) -> None:
    image = "127.0.0.1:9/no/such:image"
    allocation = run("true", "failed", config={"image": image})
    assert said(allocation, "Driver") == "Downloading image"
    assert said(allocation, "Driver Failure").startswith(f"Failed to pull `{image}`")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"nothing": 1}, 'No argument or block type is named "nothing"'),
        ({"labels": {"a": "b"}}, 'Inappropriate value for attribute "labels": list of map of string required'),
        ({"ports": "rpc"}, 'Inappropriate value for attribute "ports": list of string required'),
    ],
)
def test_a_field_that_cannot_be_used(run: Callable[..., dict[str, Any]], config: dict[str, Any], text: str) -> None:
    allocation = run("true", "failed", config=config)
    assert text in said(allocation, "Failed Validation")


def test_further_options(cluster: Cluster, run: Callable[..., dict[str, Any]]) -> None:
    config = {"cap_drop": ["chown"], "ulimit": [{"nofile": "100:200"}], "labels": [{"mine": "1"}]}
    config |= {"hostname": "here"}
    script = "ulimit -Sn; ulimit -Hn; hostname; grep CapEff /proc/self/status"
    allocation = run(lasting(script), config=config)
    cluster.eventually(lambda: cluster.logs(allocation["ID"]).count("\n") == 4)
    soft, hard, name, _, mask = cluster.logs(allocation["ID"]).split()
    assert (soft, hard, name) == ("100", "200", "here")
    assert not int(mask, 16) & 1, "chown was dropped"


def test_a_container_ends_with_its_job(cluster: Cluster, run: Callable[..., dict[str, Any]]) -> None:
    allocation = run("exec sleep 1000")
    assert containers(allocation)
    cluster.purge(allocation["JobID"])
    cluster.eventually(lambda: not containers(allocation), "the container is left")


def test_a_container_outlives_the_agent(killable: RunningAgent | RunningStandIn, docker_base: str) -> None:
    cluster = killable.cluster
    config = {"image": docker_base, "command": "sh", "args": ["-c", "echo started; exec sleep 1000"]}
    job = batch("docker", config)
    cluster.register(job)
    allocation = cluster.allocation(job["ID"], "running")
    before = containers(allocation)
    killable.kill()
    killable.start()
    again = cluster.allocation(job["ID"], "running")
    assert (again["ID"], containers(again)) == (allocation["ID"], before)
    assert cluster.logs(again["ID"]) == "started\n"
    cluster.purge(job["ID"])
    cluster.eventually(lambda: not containers(allocation), "the container is left")


def test_no_container_is_left(docker_base: str) -> None:
    with running_stand_in() as running:
        job = batch("docker", {"image": docker_base, "command": "sleep", "args": ["1000"]})
        running.cluster.register(job)
        allocation = running.cluster.allocation(job["ID"], "running")
        assert containers(allocation)
    assert not containers(allocation)
