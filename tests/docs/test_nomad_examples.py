"""The examples of agents, jobs and policies are what Nomad takes, and what they say they are."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.hermes_backend_nomad.configurations import NOMAD, nomad, parsed, with_nomad

from hermes_backend_nomad._dev_agent import CAPABILITIES, DevAgent, dev_configuration
from hermes_backend_nomad._dev_ports import take_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "nomad"
READY_S = 120.0
BOOTSTRAP = "5f6d8c1e-0b1a-4c0e-9d4e-3f0f0a2b7c11"
AGENTS = (
    ("single-machine.hcl",),
    ("server.hcl", "tls.hcl", "acl.hcl"),
    ("client.hcl", "tls.hcl", "acl.hcl"),
    ("hpc-agent.hcl",),
)


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.hcl")))
def test_every_example_can_be_read(name: str) -> None:
    assert parsed((EXAMPLES / name).read_text())


def test_the_agent_of_a_single_machine_is_what_nomad_dev_writes() -> None:
    assert parsed((EXAMPLES / "single-machine.hcl").read_text()) == parsed(
        dev_configuration(DevAgent(Path("/var/lib/hermes/nomad")))
    )


def test_clients_allow_what_slots_in_namespaces_need() -> None:
    plugins = parsed((EXAMPLES / "client.hcl").read_text())["plugin"]
    [docker] = [plugin["docker"]["config"][0] for plugin in plugins if "docker" in plugin]
    assert tuple(docker["allow_caps"]) == CAPABILITIES


@with_nomad
@pytest.mark.parametrize("names", AGENTS, ids=lambda names: names[0])
def test_nomad_finds_the_agents_valid(names: tuple[str, ...]) -> None:
    said = nomad("config", "validate", *(str(EXAMPLES / name) for name in names))
    assert "Configuration is valid" in said


@with_nomad
def test_nomad_finds_them_well_formatted() -> None:
    assert nomad("fmt", "-check", "-list", *map(str, EXAMPLES.glob("*.hcl"))) == ""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[httpx.Client]:
    """An agent that asks for tokens, with the policy of the examples; who asks has a token of a run."""
    http, rpc, serf = take_ports(0)
    agent = DevAgent(
        tmp_path / "data", http_port=http, rpc_port=rpc, serf_port=serf, further="acl {\n  enabled = true\n}"
    )
    path = tmp_path / "agent.hcl"
    path.write_text(dev_configuration(agent))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([str(NOMAD), "agent", "-config", str(path)], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=agent.url, trust_env=False, timeout=30) as client:
            until = time.monotonic() + READY_S
            while not is_ready(client):
                assert time.monotonic() < until, (tmp_path / "log").read_text()
                time.sleep(0.5)
            client.headers["X-Nomad-Token"] = token_of_a_run(agent.url)
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def is_ready(client: httpx.Client) -> bool:
    try:
        client.headers["X-Nomad-Token"] = BOOTSTRAP
        made = client.put("/v1/acl/bootstrap", json={"BootstrapSecret": BOOTSTRAP})
        return (made.is_success or "already done" in made.text) and client.get("/v1/nodes").json()[0:1] != []
    except httpx.TransportError:
        return False


def token_of_a_run(url: str) -> str:
    """Follow the steps that `acl.hcl` tells."""
    env = {"NOMAD_ADDR": url, "NOMAD_TOKEN": BOOTSTRAP}
    steps = [line.removeprefix("#   ").split() for line in (EXAMPLES / "acl.hcl").read_text().splitlines()]
    steps = [step[1:] for step in steps if step[:1] == ["nomad"]]
    assert [step[:2] for step in steps] == [["namespace", "apply"], ["acl", "policy"], ["acl", "token"]]
    *before, last = [
        [str(EXAMPLES / word) if word.endswith(".policy.hcl") else word for word in step] for step in steps
    ]
    for step in before:
        nomad(*step, **env)
    return str(json.loads(nomad(*last[:3], "-json", *last[3:], **env))["SecretID"])


JOB = {
    "ID": "hermes-sandbox-x",
    "Type": "batch",
    "Namespace": "hermes",
    "Datacenters": ["*"],
    "Constraints": [{"LTarget": "${attr.kernel.name}", "RTarget": "no such kernel", "Operand": "="}],
    "TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/true"}}]}],
}


@with_nomad
def test_the_policy_allows_what_runs_do_and_no_more(guarded: httpx.Client) -> None:
    allowed = [
        ("GET", "/v1/agent/self", None),
        ("GET", "/v1/nodes", None),
        ("PUT", "/v1/jobs/parse", {"JobHCL": 'job "x" {}', "Canonicalize": False}),
        ("PUT", "/v1/jobs", {"Job": JOB}),
        ("GET", "/v1/jobs?prefix=hermes&meta=true", None),
        ("GET", "/v1/job/hermes-sandbox-x/allocations", None),
        ("GET", "/v1/allocations?task_states=true", None),
        ("GET", "/v1/evaluations", None),
        (
            "PUT",
            "/v1/var/nomad/jobs/hermes-sandbox-x?cas=0",
            {"Path": "nomad/jobs/hermes-sandbox-x", "Items": {"a": "b"}},
        ),
        ("GET", "/v1/var/nomad/jobs/hermes-sandbox-x", None),
        ("GET", "/v1/vars?prefix=nomad/jobs/hermes-", None),
        ("DELETE", "/v1/var/nomad/jobs/hermes-sandbox-x", None),
        ("PUT", "/v1/var/hermes/holders/y", {"Path": "hermes/holders/y", "Items": {"a": "b"}}),
        ("GET", "/v1/vars?prefix=hermes/holders/", None),
        ("DELETE", "/v1/var/hermes/holders/y", None),
        ("DELETE", "/v1/job/hermes-sandbox-x?purge=true", None),
    ]
    for method, path, content in allowed:
        answer = guarded.request(method, within(path), json=content)
        assert answer.is_success, (method, path, answer.status_code, answer.text)
    with guarded.stream("GET", within("/v1/event/stream?topic=Allocation&topic=Evaluation")) as events:
        assert events.is_success
    logs = "/v1/client/fs/logs/00000000-0000-0000-0000-000000000000?task=t&type=stderr&plain=true"
    assert guarded.get(within(logs)).status_code == 404  # there is none, which only those learn who may ask

    assert guarded.put("/v1/jobs", json={"Job": {**JOB, "Namespace": "default"}}).status_code == 403
    assert guarded.get(within("/v1/vars", "default")).json() == []
    assert guarded.post("/v1/node/00000000-0000-0000-0000-000000000000/drain", json={}).status_code == 403


def within(path: str, namespace: str = "hermes") -> str:
    return f"{path}{'&' if '?' in path else '?'}namespace={namespace}"
