"""Tasks of raw_exec: what they get, how they end, and what is said of it."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.stand_ins.nomad_jobs import batch, shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.stand_ins.nomad.cluster import Cluster


@pytest.fixture
def start(cluster: Cluster) -> Iterator[Callable[..., dict[str, Any]]]:
    """Register a job and wait for an allocation with a status; the job is purged afterwards."""
    started: list[str] = []

    def begin(job: dict[str, Any], *statuses: str) -> dict[str, Any]:
        started.append(job["ID"])
        cluster.register(job)
        return cluster.allocation(job["ID"], *(statuses or ("running",)))

    yield begin
    for name in started:
        cluster.purge(name)


def events(allocation: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was said of the task."""
    return [(event["Type"], event["DisplayMessage"]) for event in allocation["TaskStates"]["main"]["Events"]]


def last_events(allocation: dict[str, Any]) -> dict[str, str]:
    return dict(events(allocation))


def test_the_events_of_a_task_that_runs(start: Callable[..., dict[str, Any]]) -> None:
    allocation = start(shell("exec sleep 100"))
    assert events(allocation) == [
        ("Received", "Task received by client"),
        ("Task Setup", "Building Task Directory"),
        ("Started", "Task started by client"),
    ]
    state = allocation["TaskStates"]["main"]
    assert (state["State"], state["Failed"], state["Restarts"]) == ("running", False, 0)
    assert state["StartedAt"]
    assert state["FinishedAt"] is None


def test_a_process_that_fails(cluster: Cluster, start: Callable[..., dict[str, Any]]) -> None:
    allocation = start(shell("echo bad >&2; exit 3"), "failed")
    assert events(allocation)[-2:] == [
        ("Terminated", "Exit Code: 3"),
        ("Not Restarting", "Policy allows no restarts"),
    ]
    terminated = allocation["TaskStates"]["main"]["Events"][-2]
    assert (terminated["Details"]["exit_code"], terminated["ExitCode"]) == ("3", 3)
    assert allocation["TaskStates"]["main"]["Failed"] is True
    assert allocation["DesiredStatus"] == "run"
    assert cluster.logs(allocation["ID"], kind="stderr") == "bad\n"
    assert len(cluster.allocations(allocation["JobID"])) == 1


def test_a_process_that_is_killed(start: Callable[..., dict[str, Any]]) -> None:
    assert ("Terminated", "Exit Code: 137, Signal: 9") in events(start(shell("kill -9 $$"), "failed"))


def test_a_process_that_ends(start: Callable[..., dict[str, Any]]) -> None:
    allocation = start(shell("exit 0"), "complete")
    assert events(allocation)[-1] == ("Terminated", "Exit Code: 0")


def test_a_command_that_is_not_there(cluster: Cluster, start: Callable[..., dict[str, Any]]) -> None:
    allocation = start(batch("raw_exec", {"command": "no-such-command"}), "failed")
    assert 'binary "no-such-command" could not be found' in last_events(allocation)["Driver Failure"]
    answer = cluster.answer("GET", f"/v1/client/fs/logs/{allocation['ID']}", task="main", type="stderr", plain="true")
    assert (answer.status_code, answer.text) == (404, 'task "main" not started yet. No logs available')


def test_a_user_that_is_not_there(start: Callable[..., dict[str, Any]]) -> None:
    allocation = start(shell("true", User="nobody-of-this-name"), "failed")
    assert "unknown user nobody-of-this-name" in last_events(allocation)["Driver Failure"]


def test_a_configuration_that_cannot_be_parsed(start: Callable[..., dict[str, Any]]) -> None:
    allocation = start(batch("raw_exec", {"command": "sh", "nothing": 1}), "failed")
    assert 'No argument or block type is named "nothing"' in last_events(allocation)["Failed Validation"]


def test_a_reference_to_nothing(start: Callable[..., dict[str, Any]]) -> None:
    allocation = start(batch("raw_exec", {"command": "sh", "args": ["${NOTHING}"]}), "failed")
    assert 'There is no variable named "NOTHING"' in last_events(allocation)["Failed Validation"]


def test_a_task_that_is_restarted(cluster: Cluster, start: Callable[..., dict[str, Any]]) -> None:
    job = shell("exit 1")
    job["TaskGroups"][0]["RestartPolicy"] = {"Attempts": 1, "Delay": 1_000_000_000, "Interval": 60 * 10**9}
    allocation = start(job, "failed")
    said = events(allocation)
    assert [kind for kind, _ in said].count("Terminated") == 2
    assert last_events(allocation)["Restarting"].startswith("Task restarting in 1.")
    assert "Exceeded allowed attempts 1" in last_events(allocation)["Not Restarting"]
    assert allocation["TaskStates"]["main"]["Restarts"] == 1


def test_the_environment(cluster: Cluster, start: Callable[..., dict[str, Any]]) -> None:
    allocation = start(shell("env; exec sleep 100", Env={"WHERE": "at ${NOMAD_ADDR_rpc}", "A": "${nothing}"}))
    found = dict(line.split("=", 1) for line in cluster.logs(allocation["ID"]).splitlines() if "=" in line)
    [port] = allocation["AllocatedResources"]["Shared"]["Ports"]
    assert port["Label"] == "rpc"
    address = f"{port['HostIP']}:{port['Value']}"
    assert found["NOMAD_PORT_rpc"] == found["NOMAD_HOST_PORT_rpc"] == str(port["Value"])
    assert (found["NOMAD_IP_rpc"], found["NOMAD_ADDR_rpc"]) == (port["HostIP"], address)
    assert found["WHERE"] == f"at {address}"
    assert found["NOMAD_ALLOC_ID"] == allocation["ID"]
    assert (found["NOMAD_JOB_ID"], found["NOMAD_TASK_NAME"]) == (allocation["JobID"], "main")
    assert found["NOMAD_META_owner"] == allocation["JobID"]
    assert found["NOMAD_TASK_DIR"].endswith("/main/local")
    assert found["NOMAD_SECRETS_DIR"].endswith("/main/secrets")
    assert found["NOMAD_ALLOC_DIR"].endswith(f"/{allocation['ID']}/alloc")


def test_references_in_the_configuration(cluster: Cluster, start: Callable[..., dict[str, Any]]) -> None:
    config = {"command": "echo", "args": ["${NOMAD_PORT_rpc}", "${attr.kernel.name}", "${OWN}", "$${A}"]}
    allocation = start(batch("raw_exec", config, Env={"OWN": "mine"}), "complete")
    port = allocation["AllocatedResources"]["Shared"]["Ports"][0]["Value"]
    assert cluster.logs(allocation["ID"]) == f"{port} linux mine ${{A}}\n"


def test_a_user_may_write_into_the_folders(cluster: Cluster, start: Callable[..., dict[str, Any]]) -> None:
    script = 'id -un; for d in . "$NOMAD_TASK_DIR" "$NOMAD_ALLOC_DIR/data" "$NOMAD_SECRETS_DIR"; do touch "$d/x"; done'
    allocation = start(shell(f"set -e; {script}; pwd", User="nobody"), "complete")
    user, folder = cluster.logs(allocation["ID"]).split()
    assert user == "nobody"
    assert folder.endswith(f"/{allocation['ID']}/main")


def test_the_port_is_the_tasks_own(start: Callable[..., dict[str, Any]]) -> None:
    allocations = [start(shell("exec sleep 100")) for _ in range(2)]
    ports = [one["AllocatedResources"]["Shared"]["Ports"][0]["Value"] for one in allocations]
    assert ports[0] != ports[1]
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_everything_of_a_task_ends_with_it(cluster: Cluster, start: Callable[..., dict[str, Any]]) -> None:
    allocation = start(shell("trap '' INT; setsid sleep 1000 & echo $! $$; wait"))
    pids = [int(pid) for pid in cluster.eventually(lambda: cluster.logs(allocation["ID"])).split()]
    cluster.purge(allocation["JobID"])
    cluster.eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "processes are left")


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1])
def test_a_job_that_is_purged_while_it_starts(cluster: Cluster, after: float) -> None:
    job = shell("exec sleep 1000")
    cluster.register(job)
    time.sleep(after)
    cluster.purge(job["ID"])
    mark = f"NOMAD_JOB_ID={job['ID']}".encode()

    def left() -> list[str]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(folder.name)
        return found

    for _ in range(5):
        cluster.eventually(lambda: not left(), "a process is left")
        time.sleep(0.1)


def test_the_kill_signal_is_sent_first(cluster: Cluster, start: Callable[..., dict[str, Any]]) -> None:
    script = "trap 'echo asked; exit 7' USR2; echo ready; while :; do sleep 0.05; done"
    allocation = start(shell(script, KillSignal="SIGUSR2"))
    cluster.eventually(lambda: cluster.logs(allocation["ID"]) == "ready\n")
    cluster.call("DELETE", f"/v1/job/{allocation['JobID']}")
    ended = cluster.allocation(allocation["JobID"], "complete")
    assert cluster.logs(ended["ID"]) == "ready\nasked\n"
    assert events(ended)[-3:] == [
        ("Killing", "Sent interrupt. Waiting 1s before force killing"),
        ("Terminated", "Exit Code: 7"),
        ("Killed", "Task successfully killed"),
    ]


def test_parts_of_logs(cluster: Cluster, start: Callable[..., dict[str, Any]]) -> None:
    name = start(shell("printf 0123456789; exec sleep 100"))["ID"]
    cluster.eventually(lambda: cluster.logs(name))
    assert cluster.logs(name) == "0123456789"
    assert cluster.logs(name, offset=3) == "3456789"
    assert cluster.logs(name, origin="end", offset=4) == "6789"
    assert cluster.logs(name, origin="end", offset=400) == "0123456789"
    path = f"/v1/client/fs/logs/{name}"
    assert cluster.call("GET", path, task="main", type="stdout") == {
        **{"Data": "MDEyMzQ1Njc4OQ==", "File": "alloc/logs/main.stdout.0", "Offset": 10},
    }
    for query, status in (({"task": "other", "type": "stdout"}, 400), ({"task": "main", "type": "x"}, 400)):
        assert cluster.answer("GET", path, **query).status_code == status
    unknown = "/v1/client/fs/logs/00000000-0000-0000-0000-000000000000"
    assert cluster.answer("GET", unknown, task="main", type="stdout").status_code == 404


def test_tasks_of_a_group_end_together(start: Callable[..., dict[str, Any]]) -> None:
    job = shell("sleep 0.3; exit 1")
    [task] = job["TaskGroups"][0]["Tasks"]
    other = {**task, "Name": "other", "Config": {"command": "sleep", "args": ["100"]}}
    job["TaskGroups"][0] |= {"Tasks": [task, other], "EphemeralDisk": {"SizeMB": 20}}
    allocation = start(job, "failed")
    assert allocation["TaskStates"]["main"]["Failed"] is True


def test_an_artifact_that_cannot_be_had(start: Callable[..., dict[str, Any]]) -> None:
    artifact = {"GetterSource": "http://127.0.0.1:9/x.tar.gz", "RelativeDest": "local/"}
    allocation = start(shell("true", Artifacts=[artifact]), "failed")
    said = last_events(allocation)
    assert said["Downloading Artifacts"] == "Client is downloading artifacts"
    assert "Failed Artifact Download" in said
