"""The command line on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread
from tests.hermes_backend_nomad.belongings import jobs_of, leases_of, read_variable, variables_of, wait_until
from tests.hermes_backend_nomad.command_line import hermes, program, settings_of

from hermes_core import Hermes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.hermes_backend_nomad.conftest import Backend
    from tests.hermes_backend_nomad.witness import Witness
    from tests.stand_ins.nomad.cluster import Cluster

pytestmark = [pytest.mark.nomad, pytest.mark.docker, pytest.mark.apptainer]

LEASE_S = 5
MANY = ("--model", "oracle", "--tasks", "64", "--group-size", "4", "--concurrency", "32", "--out", "out")
TRAJECTORIES = 256


@pytest.fixture
def anyio_backend() -> str:
    """Of what is started here in processes, the loop is always this one."""
    return "asyncio"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The trajectories of the run in a folder."""
    path = folder / "out/trajectories.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def assert_whole(folder: Path, backend: str) -> None:
    """Every trajectory is there once, and was scored."""
    statistics = json.loads((folder / "out/statistics.json").read_text())
    assert (statistics["trajectories"], statistics["failures"], statistics["mean_reward"]) == (TRAJECTORIES, 0, 1.0)
    rows = rows_of(folder)
    assert len(rows) == len({(row["task_id"], row["sample_index"]) for row in rows}) == TRAJECTORIES
    assert {row["backend"] for row in rows} == {backend}


def test_a_run_scales_to_its_demand_and_leaves_nothing(
    backend_name: str, cluster: Cluster, witness: Witness, tmp_path: Path
) -> None:
    settings = settings_of(backend_name, cluster.address, witness.job_id, slots_per_sandbox=8, max_sandboxes=4)
    done = hermes(tmp_path, "run", "arithmetic", *settings, *MANY)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path, backend_name)
    assert 2 <= len(witness.jobs) <= 4
    assert witness.left() == []


@pytest.mark.parametrize(("backend_name", "by_hand"), [("nomad", True), ("nomad-singularity", False)])
def test_a_run_that_is_killed_ends_is_swept_and_resumed(
    backend_name: str, by_hand: bool, cluster: Cluster, witness: Witness, tmp_path: Path
) -> None:
    settings = settings_of(backend_name, cluster.address, witness.job_id, slots_per_sandbox=8, lease_ttl_s=LEASE_S)
    command = ("run", "arithmetic", *settings, *MANY)
    start_and_kill(tmp_path, command)
    wait_until(lambda: not witness.in_sandboxes(), "a sandbox outlives its run")
    jobs = {job["ID"] for job in jobs_of(cluster, witness.job_id)}
    assert jobs
    assert {path.removeprefix("nomad/jobs/") for path in variables_of(cluster, witness.job_id)} == jobs
    where = settings_of(backend_name, cluster.address, witness.job_id)

    def states() -> set[str]:
        shown = hermes(tmp_path, "sandbox", "list", *where, "--json")
        assert shown.returncode == 0, shown.stderr
        return {row["state"] for row in json.loads(shown.stdout)}

    wait_until(lambda: states() == {"left behind"}, "they do not count as left behind")
    if by_hand:
        cleaned = hermes(tmp_path, "sandbox", "cleanup", *where)
        assert cleaned.returncode == 0, cleaned.stderr
        assert cleaned.stdout.count("removed ") == len(jobs)
        assert witness.left() == []
        assert "nothing to remove" in hermes(tmp_path, "sandbox", "cleanup", *where).stdout
    done = hermes(tmp_path, *command, "--resume")
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path, backend_name)
    assert witness.left() == []


def start_and_kill(folder: Path, command: Sequence[str]) -> None:
    """Kill a run, without a word, in its middle."""
    with subprocess.Popen(
        program(*command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    ) as run:
        wait_until(lambda: len(rows_of(folder)) >= 10 or run.poll() is not None, "no trajectory is finished")
        run.kill()
    assert 10 <= len(rows_of(folder)) < TRAJECTORIES


@pytest.mark.anyio
async def test_what_a_living_run_has_is_never_swept(
    backend_name: str, cluster: Cluster, witness: Witness, make: Callable[..., Backend], tmp_path: Path
) -> None:
    settings = settings_of(backend_name, cluster.address, witness.job_id, lease_ttl_s=LEASE_S)
    few = ("--model", "oracle", "--tasks", "2", "--out", "out")
    living = make(backend_name, lease_ttl_s=LEASE_S)
    async with Hermes(backend=living) as living_run, living_run.lease() as slot:
        [lease] = leases_of(cluster, os.getpid())
        written = read_variable(cluster, lease)["CreateTime"]
        run = await to_thread.run_sync(lambda: hermes(tmp_path, "run", "arithmetic", *settings, *few))
        assert run.returncode == 0, run.stderr
        await to_thread.run_sync(
            wait_until,
            lambda: read_variable(cluster, lease)["ModifyTime"] - written > 1.5 * LEASE_S * 10**9,
            "the lease is not renewed",
        )
        cleaned = await to_thread.run_sync(lambda: hermes(tmp_path, "sandbox", "cleanup", *settings))
        assert [line.rpartition(": ")[2] for line in cleaned.stdout.splitlines()] == ["running", "nothing to remove"]
        assert (await slot.exec("echo still here")).stdout == "still here\n"


def test_sandboxes_by_hand(backend_name: str, cluster: Cluster, witness: Witness, tmp_path: Path) -> None:
    settings = settings_of(backend_name, cluster.address, witness.job_id)
    done = hermes(tmp_path, "sandbox", "exec", *settings, "--", "sh", "-c", "cat /etc/os-release; exit 3")
    assert done.returncode == 3, done.stderr
    assert "bookworm" in done.stdout or "Debian" in done.stdout
    assert hermes(tmp_path, "sandbox", "list", *settings, "--json").stdout.strip() == "[]"
    assert hermes(tmp_path, "sandbox", "cleanup", *settings).returncode == 0


@pytest.mark.anyio
async def test_sandboxes_that_stay_are_taken_over_by_the_next_run(
    backend_name: str, cluster: Cluster, witness: Witness, make: Callable[..., Backend], tmp_path: Path
) -> None:
    kept = settings_of(
        backend_name, cluster.address, witness.job_id, purge_job_on_shutdown="false", slots_per_sandbox=2
    )
    few = ("--model", "oracle", "--tasks", "2", "--concurrency", "2")
    for number in range(2):
        done = hermes(tmp_path, "run", "arithmetic", *kept, *few, "--out", f"out-{number}")
        assert done.returncode == 0, done.stderr
        assert [job["Status"] for job in jobs_of(cluster, witness.job_id)] == ["running"]
    assert len(witness.allocations) == 1
    [info] = await make(backend_name).list()
    assert info.state == "running"
    async with make(backend_name, purge_job_on_start=True):
        assert jobs_of(cluster, witness.job_id) == []
