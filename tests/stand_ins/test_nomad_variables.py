"""Variables, and the templates that read them: secrets that neither the job nor the allocation shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.stand_ins.nomad_jobs import fresh_name, shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stand_ins.nomad.cluster import Cluster


@pytest.fixture
def path(cluster: Cluster) -> Iterator[str]:
    """The path of a variable of the test's own."""
    found = f"hermes/{fresh_name()}"
    yield found
    cluster.answer("DELETE", f"/v1/var/{found}")


def test_a_variable_is_written_read_listed_and_deleted(cluster: Cluster, path: str) -> None:
    written = cluster.call("PUT", f"/v1/var/{path}", {"Items": {"a": "1"}})
    assert (written["Path"], written["Items"], written["Namespace"]) == (path, {"a": "1"}, "default")
    assert written["CreateIndex"] == written["ModifyIndex"] > 0
    assert written["ModifyTime"] > 10**18
    assert cluster.call("GET", f"/v1/var/{path}") == written
    again = cluster.call("PUT", f"/v1/var/{path}", {"Items": {"a": "2"}})
    assert (again["CreateIndex"], again["CreateTime"]) == (written["CreateIndex"], written["CreateTime"])
    assert again["ModifyIndex"] > written["ModifyIndex"]
    [listed] = cluster.call("GET", "/v1/vars", prefix=path)
    assert listed == {key: value for key, value in again.items() if key != "Items"}
    for _ in range(2):  # what is not there is deleted as well
        assert cluster.answer("DELETE", f"/v1/var/{path}").is_success
    answer = cluster.answer("GET", f"/v1/var/{path}")
    assert (answer.status_code, answer.text) == (404, "variable not found")
    assert cluster.call("GET", "/v1/vars", prefix=path) == []


def test_only_the_expected_version_is_replaced(cluster: Cluster, path: str) -> None:
    written = cluster.call("PUT", f"/v1/var/{path}", {"Items": {"a": "1"}}, cas=0)
    for method, cas in (("PUT", 0), ("PUT", written["ModifyIndex"] - 1), ("DELETE", 1)):
        answer = cluster.answer(method, f"/v1/var/{path}", {"Items": {"a": "2"}}, cas=cas)
        assert (answer.status_code, answer.json()) == (409, written)
    again = cluster.call("PUT", f"/v1/var/{path}", {"Items": {"a": "2"}}, cas=written["ModifyIndex"])
    assert again["Items"] == {"a": "2"}
    cluster.call("DELETE", f"/v1/var/{path}", cas=again["ModifyIndex"])
    answer = cluster.answer("PUT", f"/v1/var/{path}", {"Items": {"a": "2"}}, cas=again["ModifyIndex"])
    assert answer.status_code == 409
    assert "Items" not in answer.json()


def test_a_variable_without_items_is_refused(cluster: Cluster, path: str) -> None:
    answer = cluster.answer("PUT", f"/v1/var/{path}", {"Items": {}})
    assert (answer.status_code, answer.text) == (400, "variable missing required Items object")


@pytest.fixture
def secretive(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """A job whose task prints what a template has put into its environment."""
    job = shell('echo "got $HERMES_TOKEN"; exec sleep 100')
    variable = f"nomad/jobs/{job['ID']}"
    text = f'HERMES_TOKEN={{{{ with nomadVar "{variable}" }}}}{{{{ .token }}}}{{{{ end }}}}'
    template = {"EmbeddedTmpl": text, "Envvars": True, "DestPath": "secrets/token"}
    job["TaskGroups"][0]["Tasks"][0]["Templates"] = [template]
    yield job
    cluster.purge(job["ID"])
    cluster.answer("DELETE", f"/v1/var/{variable}")


@pytest.mark.parametrize("user", ["", "nobody"])
def test_a_secret_reaches_the_task_and_shows_nowhere(cluster: Cluster, secretive: dict[str, Any], user: str) -> None:
    name = secretive["ID"]
    secretive["TaskGroups"][0]["Tasks"][0]["User"] = user
    cluster.call("PUT", f"/v1/var/nomad/jobs/{name}", {"Items": {"token": "s3cret"}})
    cluster.register(secretive)
    allocation = cluster.allocation(name, "running")
    cluster.eventually(lambda: cluster.logs(allocation["ID"]) == "got s3cret\n")
    shown = (cluster.call("GET", f"/v1/job/{name}"), allocation, cluster.allocations(name))
    assert "s3cret" not in json.dumps(shown)


def test_a_secret_cannot_be_an_argument(cluster: Cluster, secretive: dict[str, Any]) -> None:
    if cluster.kind != "stand-in":
        pytest.skip("cannot run: 2.0.5 refuses it, 2.0.6 does not; the stand-in does, so that no job depends on it")
    name = secretive["ID"]
    secretive["TaskGroups"][0]["Tasks"][0]["Config"]["args"].append("${HERMES_TOKEN}")
    cluster.call("PUT", f"/v1/var/nomad/jobs/{name}", {"Items": {"token": "s3cret"}})
    cluster.register(secretive)
    events = cluster.allocation(name, "failed")["TaskStates"]["main"]["Events"]
    [said] = [event["DisplayMessage"] for event in events if event["Type"] == "Failed Validation"]
    assert 'There is no variable named "HERMES_TOKEN"' in said


def test_a_task_waits_for_its_variable(cluster: Cluster, secretive: dict[str, Any]) -> None:
    name = secretive["ID"]
    cluster.register(secretive)

    def said() -> list[str]:
        states = [one["TaskStates"] for one in cluster.allocations(name) if one["TaskStates"]]
        events = [event for state in states for event in state["main"]["Events"]]
        return [event["DisplayMessage"] for event in events if event["Type"] == "Template"]

    cluster.eventually(lambda: said() == [f"Missing: nomad.var.block(nomad/jobs/{name}@default.global)"])
    assert [one["ClientStatus"] for one in cluster.allocations(name)] == ["pending"]
    cluster.call("PUT", f"/v1/var/nomad/jobs/{name}", {"Items": {"token": "late"}})
    allocation = cluster.allocation(name, "running")
    cluster.eventually(lambda: cluster.logs(allocation["ID"]) == "got late\n")


def test_a_changed_variable_restarts_the_task(cluster: Cluster, secretive: dict[str, Any]) -> None:
    name = secretive["ID"]
    secretive["TaskGroups"][0]["Tasks"][0]["Templates"][0]["Splay"] = 0
    cluster.call("PUT", f"/v1/var/nomad/jobs/{name}", {"Items": {"token": "first"}})
    cluster.register(secretive)
    allocation = cluster.allocation(name, "running")
    cluster.eventually(lambda: cluster.logs(allocation["ID"]) == "got first\n")
    cluster.call("PUT", f"/v1/var/nomad/jobs/{name}", {"Items": {"token": "second"}})
    cluster.eventually(lambda: cluster.logs(allocation["ID"]).endswith("got second\n"))

    def state() -> dict[str, Any]:
        found: dict[str, Any] = cluster.call("GET", f"/v1/allocation/{allocation['ID']}")["TaskStates"]["main"]
        return found

    cluster.eventually(lambda: state()["Restarts"] == 1)
    said = {event["Type"]: event["DisplayMessage"] for event in state()["Events"]}
    assert said["Restart Signaled"] == "Template with change_mode restart re-rendered"


def test_a_file_belongs_to_root_unless_it_is_given_away(cluster: Cluster) -> None:
    script = 'stat -c "%U %a" secrets/kept local/given; exec sleep 100'
    templates = [
        {"EmbeddedTmpl": "a", "DestPath": "secrets/kept", "Perms": "0600"},
        {"EmbeddedTmpl": "b", "DestPath": "local/given", "Perms": "0400", "Uid": 65534},
    ]
    job = shell(script, Templates=templates)
    try:
        cluster.register(job)
        allocation = cluster.allocation(job["ID"], "running")
        cluster.eventually(lambda: cluster.logs(allocation["ID"]).split() == ["root", "600", "nobody", "400"])
    finally:
        cluster.purge(job["ID"])
