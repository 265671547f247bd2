"""Lists, prefixes and filters, what is not there, and specifications in HCL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.stand_ins.nomad_jobs import shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stand_ins.nomad.cluster import Cluster

SPECIFICATION = """
job "made" {
  type = "batch"
  meta { owner = "me" }
  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }
  group "sandbox" {
    network {
      port "rpc" {}
    }
    restart { attempts = 0 }
    task "main" {
      driver = "raw_exec"
      config {
        command = "sh"
        args    = ["-c", "echo ${NOMAD_PORT_rpc}"]
      }
      template {
        data        = "A={{ env \\"B\\" }}"
        destination = "secrets/a"
        env         = true
      }
      kill_timeout = "10s"
      resources { memory = 64 }
    }
  }
}
"""


@pytest.fixture
def job(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """A job that sleeps; it is purged afterwards."""
    found = shell("exec sleep 100")
    yield found
    cluster.purge(found["ID"])


def test_meta_prefix_and_filter_of_jobs(cluster: Cluster, job: dict[str, Any]) -> None:
    cluster.register(job)
    name = job["ID"]
    assert [one["ID"] for one in cluster.call("GET", "/v1/jobs", prefix=name)] == [name]
    assert "Meta" not in cluster.call("GET", "/v1/jobs", prefix=name)[0]
    assert cluster.call("GET", "/v1/jobs", prefix=name, meta="true")[0]["Meta"] == {"owner": name}
    for expression in (
        f'Meta.owner == "{name}"',
        f'ID matches "^{name}$" and Type == "batch"',
        f'Meta["owner"] == "{name}"',
    ):
        assert [one["ID"] for one in cluster.call("GET", "/v1/jobs", filter=expression)] == [name]
    assert cluster.call("GET", "/v1/jobs", filter=f'ID == "{name}" and not Type == "batch"') == []
    assert cluster.answer("GET", "/v1/jobs", filter='Nothing == "x"').status_code == 400
    assert cluster.answer("GET", "/v1/jobs", filter="ID ==").status_code == 400


def test_prefix_and_filter_of_allocations(cluster: Cluster, job: dict[str, Any]) -> None:
    cluster.register(job)
    allocation = cluster.allocation(job["ID"], "running")["ID"]
    for query in ({"prefix": allocation[:8]}, {"filter": f'JobID == "{job["ID"]}" and ClientStatus == "running"'}):
        [stub] = cluster.call("GET", "/v1/allocations", **query)
        assert stub["ID"] == allocation
        assert "Job" not in stub
        assert stub["JobVersion"] == 0
    assert cluster.answer("GET", "/v1/allocations", prefix="abc").status_code == 500


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/job/nothing", "job not found"),
        ("/v1/allocation/00000000-0000-0000-0000-000000000000", "alloc not found"),
        ("/v1/evaluation/00000000-0000-0000-0000-000000000000", "eval not found"),
        ("/v1/node/00000000-0000-0000-0000-000000000000", "node not found"),
    ],
)
def test_what_is_not_there(cluster: Cluster, path: str, said: str) -> None:
    answer = cluster.answer("GET", path)
    assert (answer.status_code, answer.text) == (404, said)


def test_an_id_that_is_none(cluster: Cluster) -> None:
    answer = cluster.answer("GET", "/v1/allocation/nothing")
    assert answer.status_code == 500
    assert "UUID must be 36 characters" in answer.text


def test_headers_and_another_region(cluster: Cluster) -> None:
    answer = cluster.answer("GET", "/v1/jobs")
    assert int(answer.headers["X-Nomad-Index"]) > 0
    assert answer.headers["X-Nomad-KnownLeader"] == "true"
    assert "Date" in answer.headers
    answer = cluster.answer("GET", "/v1/jobs", region="mars")
    assert (answer.status_code, answer.text) == (500, "No path to region")


def test_waiting_for_a_newer_index(cluster: Cluster, job: dict[str, Any]) -> None:
    index = cluster.answer("GET", "/v1/jobs").headers["X-Nomad-Index"]
    cluster.register(job)
    answer = cluster.answer("GET", "/v1/jobs", index=index, wait="10s", prefix=job["ID"])
    assert [one["ID"] for one in answer.json()] == [job["ID"]]


def test_a_specification_in_hcl_is_parsed(cluster: Cluster) -> None:
    job = cluster.call("POST", "/v1/jobs/parse", {"JobHCL": SPECIFICATION, "Canonicalize": True})
    [group] = job["TaskGroups"]
    [task] = group["Tasks"]
    assert (job["ID"], job["Type"], job["Meta"]) == ("made", "batch", {"owner": "me"})
    assert job["Constraints"] == [{"LTarget": "${attr.kernel.name}", "RTarget": "linux", "Operand": "="}]
    assert (group["Count"], group["RestartPolicy"]["Attempts"]) == (1, 0)
    assert group["Networks"][0]["DynamicPorts"][0]["Label"] == "rpc"
    assert task["Config"] == {"command": "sh", "args": ["-c", "echo ${NOMAD_PORT_rpc}"]}
    assert (task["KillTimeout"], task["Resources"]["MemoryMB"]) == (10_000_000_000, 64)
    assert task["Templates"][0]["EmbeddedTmpl"] == 'A={{ env "B" }}'
    assert cluster.answer("POST", "/v1/jobs/parse", {"JobHCL": "job {"}).status_code == 400
