"""What only the stand-in can be told to do, and its options."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.stand_ins.nomad.fixtures import running_stand_in, running_stand_in_async
from tests.stand_ins.nomad_jobs import shell
from tests.stand_ins.test_nomad_events import events, following
from tests.stand_ins.test_nomad_jobs import statuses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stand_ins.nomad.cluster import Cluster


@pytest.fixture(scope="module")
def stand_in() -> Iterator[Cluster]:
    """One stand-in for the tests that leave it as it was."""
    with running_stand_in(stream_heartbeat=0.1, namespaces=("other",), docker=False) as running:
        yield running.cluster


def test_it_says_what_it_is(stand_in: Cluster) -> None:
    said = stand_in.call("GET", "/v1/agent/self")
    assert said["stand_in"] is True
    assert said["config"]["Version"]["Version"] == "2.0.5"
    assert stand_in.call("GET", "/v1/status/leader")
    [node] = stand_in.call("GET", "/v1/nodes")
    assert node["Drivers"]["docker"]["Detected"] is False


def test_requests_fail_as_told(stand_in: Cluster) -> None:
    stand_in.hook("fail", count=2, status=500, text="No cluster leader")
    stand_in.hook("fail", status=429, text="slow down")
    answers = [stand_in.answer("GET", "/v1/jobs") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [500, 500, 429, 200]
    assert answers[0].text == "No cluster leader"


def test_requests_fail_for_a_while(stand_in: Cluster) -> None:
    stand_in.hook("fail", seconds=0.2, text="rpc error: EOF")
    assert stand_in.answer("GET", "/v1/jobs").text == "rpc error: EOF"
    stand_in.eventually(lambda: stand_in.answer("GET", "/v1/jobs").is_success)


def test_requests_are_delayed(stand_in: Cluster) -> None:
    stand_in.hook("delay", seconds=0.2)
    began = time.monotonic()
    stand_in.answer("GET", "/v1/jobs")
    assert time.monotonic() - began >= 0.2
    stand_in.hook("delay", seconds=0)


def test_streams_are_cut(stand_in: Cluster) -> None:
    with stand_in.client() as client, client.stream("GET", "/v1/event/stream") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "{}"
        assert stand_in.hook("cut-streams")["cut"] == 1
        assert all(line for line in lines), "the stream ends by itself"


def test_heartbeats(stand_in: Cluster) -> None:
    with following(stand_in, "Job:nothing") as lines:
        stand_in.eventually(lambda: lines.count({}) >= 3)


def test_the_buffer_is_bounded() -> None:
    with running_stand_in(event_buffer=3, docker=False) as running:
        cluster = running.cluster
        for _ in range(3):
            cluster.allocation(cluster_job(cluster)["ID"], "complete")
        newest = int(cluster.answer("GET", "/v1/allocations").headers["X-Nomad-Index"])
        with following(cluster, "*", index=1) as lines:
            cluster.eventually(lambda: len(lines) == 4)
            assert [line["Index"] for line in lines[1:]] == [newest - 2, newest - 1, newest]


def cluster_job(cluster: Cluster) -> dict[str, Any]:
    """Register a job that ends at once."""
    job = shell("exit 0")
    cluster.register(job)
    return job


def test_capacity_is_set(stand_in: Cluster) -> None:
    [node] = stand_in.call("GET", "/v1/nodes")
    stand_in.hook(f"node/{node['ID']}/capacity", memory=10)
    job = shell("exec sleep 100")
    evaluation = stand_in.evaluation(stand_in.register(job)["EvalID"])
    assert evaluation["FailedTGAllocs"]["sandbox"]["DimensionExhausted"] == {"memory": 1}
    stand_in.hook(f"node/{node['ID']}/capacity", memory=1000)
    stand_in.allocation(job["ID"], "running")
    stand_in.purge(job["ID"])


def test_namespaces(stand_in: Cluster) -> None:
    job = shell("exec sleep 100") | {"Namespace": "other"}
    stand_in.register(job)
    assert stand_in.call("GET", "/v1/jobs", prefix=job["ID"]) == []
    assert stand_in.answer("GET", f"/v1/job/{job['ID']}").status_code == 404
    for namespace in ("other", "*"):
        [found] = stand_in.call("GET", "/v1/jobs", prefix=job["ID"], namespace=namespace)
        assert found["Namespace"] == "other"
    stand_in.call("DELETE", f"/v1/job/{job['ID']}", namespace="other", purge="true")


def test_a_lost_machine_is_noticed_when_its_heartbeat_is_missed() -> None:
    with running_stand_in(nodes=2, node_ttl=0.5, docker=False) as running:
        cluster = running.cluster
        job = shell("echo $$; exec sleep 1000")
        cluster.register(job)
        first = cluster.allocation(job["ID"], "running")
        pid = int(cluster.eventually(lambda: cluster.logs(first["ID"])))
        cluster.hook(f"node/{first['NodeID']}/lose")
        assert not os.path.exists(f"/proc/{pid}")
        shown = cluster.call("GET", f"/v1/allocation/{first['ID']}")
        assert shown["ClientStatus"] == "running", "nobody knows it yet"
        cluster.allocation(job["ID"], "lost")
        cluster.eventually(
            lambda: [one["ClientStatus"] for one in cluster.allocations(job["ID"])] == ["lost", "running"]
        )
        lost, second = cluster.allocations(job["ID"])
        assert lost["DesiredDescription"] == "alloc is lost since its node is down"
        assert second["NodeID"] != first["NodeID"]
        assert cluster.call("GET", f"/v1/node/{first['NodeID']}")["Status"] == "down"
        cluster.hook(f"node/{first['NodeID']}/find")
        assert cluster.call("GET", f"/v1/node/{first['NodeID']}")["Status"] == "ready"


def test_tasks_run_on_while_the_agent_of_their_machine_is_gone() -> None:
    with running_stand_in(nodes=2, node_ttl=0.3, docker=False) as running:
        cluster = running.cluster
        job = shell("echo $$; exec sleep 1000")
        cluster.register(job)
        first = cluster.allocation(job["ID"], "running")
        pid = int(cluster.eventually(lambda: cluster.logs(first["ID"])))
        cluster.hook(f"node/{first['NodeID']}/lose", keep_tasks=True)
        cluster.allocation(job["ID"], "lost")
        assert os.path.exists(f"/proc/{pid}")
        cluster.hook(f"node/{first['NodeID']}/find")
        cluster.eventually(lambda: not os.path.exists(f"/proc/{pid}"), "what was replaced runs on")
        cluster.eventually(lambda: statuses(cluster, job) == ["complete", "running"])


def test_a_failure_to_start_may_be_told_late() -> None:
    with running_stand_in(slow_failures=0.5, docker=False) as running:
        cluster = running.cluster
        job = shell("true", User="nobody-of-this-name")
        cluster.register(job)
        cluster.eventually(lambda: any(one["TaskStates"] for one in cluster.allocations(job["ID"])))
        [stub] = cluster.allocations(job["ID"])
        kinds = [event["Type"] for event in stub["TaskStates"]["main"]["Events"]]
        assert (stub["ClientStatus"], kinds) == ("pending", ["Received", "Task Setup"])
        failed = cluster.allocation(job["ID"], "failed")
        assert failed["TaskStates"]["main"]["Events"][2]["Type"] == "Driver Failure"


def test_jobs_of_higher_priority_displace_others() -> None:
    with running_stand_in(memory=50, preemption=True, docker=False) as running:
        cluster = running.cluster
        weak, strong = shell("exec sleep 100") | {"Priority": 30}, shell("exec sleep 100") | {"Priority": 70}
        cluster.register(weak)
        first = cluster.allocation(weak["ID"], "running")
        cluster.register(strong)
        second = cluster.allocation(strong["ID"], "running")
        evicted = cluster.call("GET", f"/v1/allocation/{first['ID']}")
        assert evicted["DesiredStatus"] == "evict"
        assert evicted["DesiredDescription"] == f"Preempted by alloc ID {second['ID']}"
        assert evicted["PreemptedByAllocation"] == second["ID"]
        assert second["PreemptedAllocations"] == [first["ID"]]


def test_mock_allocations_change_at_a_rate() -> None:
    with running_stand_in(mock=50, mock_rate=200.0, docker=False) as running:
        cluster = running.cluster
        assert len(cluster.call("GET", "/v1/allocations", filter='ClientStatus == "running"')) == 50
        newest = int(cluster.answer("GET", "/v1/allocations").headers["X-Nomad-Index"])
        with following(cluster, "Allocation", index=newest) as lines:
            cluster.eventually(lambda: len(events(lines, "Allocation")) > 60)
        assert len({one["Key"] for one in events(lines, "Allocation")}) == 50
        cluster.hook("mock", rate=0.0)
        cluster.purge("mock-3")
        assert len(cluster.call("GET", "/v1/allocations")) == 49


def test_tokens() -> None:
    with running_stand_in(acl_token="right", docker=False) as running:
        cluster = running.cluster
        assert cluster.call("GET", "/v1/jobs") == []
        for token, said in ((None, "Permission denied"), ("wrong", "ACL token not found")):
            headers = {"X-Nomad-Token": token} if token else {}
            answer = httpx.get(f"{cluster.address}/v1/jobs", headers=headers)
            assert (answer.status_code, answer.text) == (403, said)
        job = shell("true")
        text = '{{ with nomadVar "nomad/jobs/other" }}{{ .token }}{{ end }}'
        job["TaskGroups"][0]["Tasks"][0]["Templates"] = [{"EmbeddedTmpl": text, "DestPath": "local/x"}]
        cluster.call("PUT", "/v1/var/nomad/jobs/other", {"Items": {"token": "s3cret"}})
        cluster.register(job)
        cluster.eventually(lambda: [one["TaskStates"] for one in cluster.allocations(job["ID"])] not in ([], [None]))
        assert [one["ClientStatus"] for one in cluster.allocations(job["ID"])] == ["pending"]


def certificates(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for the loopback address that signs itself."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=stand-in"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_tls(tmp_path: Path) -> None:
    cert, key = certificates(tmp_path)
    with running_stand_in(tls_cert=cert, tls_key=key, docker=False) as running:
        assert running.cluster.address.startswith("https://")
        assert running.cluster.call("GET", "/v1/jobs") == []
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.cluster.address}/v1/jobs")
    with running_stand_in(tls_cert=cert, tls_key=key, tls_ca=cert, docker=False) as running:
        assert running.cluster.call("GET", "/v1/jobs") == []
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{running.cluster.address}/v1/jobs", verify=ssl.create_default_context(cafile=cert))


@pytest.mark.anyio
async def test_nothing_is_left() -> None:
    async with running_stand_in_async(docker=False) as running:
        cluster = running.cluster
        job = shell("setsid sleep 1000 & echo $! $$; wait")
        cluster.register(job)
        allocation = cluster.allocation(job["ID"], "running")
        pids = cluster.eventually(lambda: cluster.logs(allocation["ID"])).split()
        running.kill()  # it is started again to end what it has started
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert not running.folder.exists()


def test_it_ends_with_who_has_started_it() -> None:
    with running_stand_in(docker=False) as running:
        job = shell("echo $$; exec sleep 1000")
        running.cluster.register(job)
        allocation = running.cluster.allocation(job["ID"], "running")
        pid = running.cluster.eventually(lambda: running.cluster.logs(allocation["ID"])).strip()
        assert running.process is not None
        assert running.process.stdin is not None
        running.process.stdin.close()
        running.process.wait()
        assert not os.path.exists(f"/proc/{pid}")


def test_an_artifact_is_unpacked(stand_in: Cluster, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hello").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "bin" / "hello").chmod(0o755)
    subprocess.run(["tar", "-czf", "tools.tar.gz", "bin"], cwd=tmp_path, check=True)
    server = subprocess.Popen(
        ["python3", "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split()[0]
        artifact = {"GetterSource": f"http://127.0.0.1:{port}/tools.tar.gz", "RelativeDest": "local/tools"}
        job = shell("exec local/tools/bin/hello", Artifacts=[artifact])
        stand_in.register(job)
        allocation = stand_in.allocation(job["ID"], "complete", "failed")
        assert stand_in.logs(allocation["ID"]) == "hello\n"
        stand_in.purge(job["ID"])
    finally:
        server.terminate()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
