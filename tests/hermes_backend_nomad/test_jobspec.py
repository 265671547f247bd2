"""The jobs of sandboxes as Nomad gets them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from tests.hermes_backend_nomad.command_line import settings_of
from tests.hermes_backend_nomad.conftest import backend_on

from hermes_backend_nomad import NomadConfig, NomadSingularityConfig
from hermes_core.cli._main import hermes
from hermes_core.exceptions import ConfigError
from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hermes_backend_nomad.witness import Witness
    from tests.stand_ins.nomad.cluster import Cluster

pytestmark = pytest.mark.anyio

NO_AGENT = "http://127.0.0.1:1"
"""Where nobody is asked: it takes no agent to write a job."""

OWN = """
job "own" {
  datacenters = ["dc1", "dc2"]
  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }
  meta {
    team = "research"
  }
  group "own" {
    ephemeral_disk {
      size = 400
    }
    task "own" {
      env {
        COLOUR = "blue"
      }
      resources {
        memory = 300
      }
    }
  }
}
"""


async def job_of(name: str, address: str = NO_AGENT, **settings: object) -> dict[str, Any]:
    """The job of a sandbox."""
    return await backend_on(address, "test", name, settings).job_specification()


def group_of(job: dict[str, Any]) -> dict[str, Any]:
    """Its one group."""
    [group] = job["TaskGroups"]
    assert isinstance(group, dict)
    return group


def task_of(job: dict[str, Any]) -> dict[str, Any]:
    """Its one task."""
    [task] = group_of(job)["Tasks"]
    assert isinstance(task, dict)
    return task


def daemon_options(job: dict[str, Any]) -> list[str]:
    """What the daemon is started with."""
    arguments: list[str] = task_of(job)["Config"]["args"]
    return arguments[arguments.index("serve") :]


async def test_a_sandbox_is_one_allocation_that_is_never_started_again(backend_name: str) -> None:
    job = await job_of(backend_name)
    assert job["Type"] == "batch"
    assert job["ID"].startswith("test-")
    group = group_of(job)
    assert group["Count"] == 1
    assert group["RestartPolicy"] == {"Attempts": 0, "Mode": "fail"}
    assert group["ReschedulePolicy"] == {"Attempts": 0, "Unlimited": False}
    assert group["Networks"] == [{"Mode": "host", "DynamicPorts": [{"Label": "rpc"}]}]
    assert {name: text for name, text in job["Meta"].items() if name in ("hermes_owner", "hermes_sandbox")} == {
        "hermes_owner": "OWNER",
        "hermes_sandbox": "NAME",
    }


@pytest.mark.parametrize("disk", [64, 1024])
async def test_what_is_kept_of_logs_fits_on_the_disk(backend_name: str, disk: int) -> None:
    job = await job_of(backend_name, disk=disk)
    log = task_of(job)["LogConfig"]
    assert group_of(job)["EphemeralDisk"]["SizeMB"] == disk
    assert log["MaxFiles"] * log["MaxFileSizeMB"] < disk


async def test_secrets_come_from_the_variable_of_the_job(backend_name: str) -> None:
    job = await job_of(backend_name)
    [template] = task_of(job)["Templates"]
    assert template["Envvars"]
    assert template["DestPath"].startswith("secrets/")
    [line] = template["EmbeddedTmpl"].splitlines()
    name, _, value = line.partition("=")
    assert name.removeprefix("APPTAINERENV_") == "HERMES_SANDBOX_TOKEN"
    assert value == f'{{{{ with nomadVar "nomad/jobs/{job["ID"]}" }}}}{{{{ .token }}}}{{{{ end }}}}'
    assert "--tls-env" not in daemon_options(job)


async def test_with_tls_there_is_a_certificate_in_it_as_well(backend_name: str) -> None:
    job = await job_of(backend_name, tls=True)
    [template] = task_of(job)["Templates"]
    assert "HERMES_SANDBOX_TLS={{ with nomadVar" in template["EmbeddedTmpl"]
    options = daemon_options(job)
    assert options[options.index("--tls-env") + 1] == "HERMES_SANDBOX_TLS"


async def test_settings_are_where_nomad_looks_for_them(backend_name: str) -> None:
    job = await job_of(
        backend_name,
        datacenter="dc1, dc2",
        node_pool="gpu",
        namespace="research",
        region="eu",
        priority=70,
        cpu=700,
        memory=800,
        memory_max=900,
    )
    assert (job["Datacenters"], job["NodePool"], job["Priority"]) == (["dc1", "dc2"], "gpu", 70)
    assert (job["Namespace"], job["Region"]) == ("research", "eu")
    assert task_of(job)["Resources"] == {"CPU": 700, "MemoryMB": 800, "MemoryMaxMB": 900}


async def test_a_container_of_docker_gets_what_namespaces_take_and_no_more() -> None:
    job = await job_of("nomad", volumes=["/data:/data", "cache:/cache:rw"], runtime="/opt/hermes-runtime")
    config = task_of(job)["Config"]
    assert (task_of(job)["Driver"], config["ports"]) == ("docker", ["rpc"])
    assert config["cap_add"] == ["sys_admin"]
    assert config["security_opt"] == ["seccomp=unconfined", "apparmor=unconfined"]
    assert "privileged" not in config
    assert {"--fresh-proc", "--drop-to"} <= set(daemon_options(job))
    assert config["mount"] == [
        {"type": "bind", "source": "/opt/hermes-runtime", "target": "/opt/hermes", "readonly": True},
        {"type": "bind", "source": "/data", "target": "/data", "readonly": True},
        {"type": "volume", "source": "cache", "target": "/cache", "readonly": False},
    ]
    weaker = await job_of("nomad", isolation="user")
    assert not {"cap_add", "security_opt"} & task_of(weaker)["Config"].keys()
    assert "--uid-range" in daemon_options(weaker)
    assert "--fresh-proc" not in daemon_options(weaker)


async def test_a_container_of_apptainer_is_an_ordinary_users_and_sees_nothing_of_the_node() -> None:
    job = await job_of("nomad-singularity", user="somebody", binds=["/data"], nv=True)
    task = task_of(job)
    assert (task["Driver"], task["User"], task["Config"]["command"]) == ("raw_exec", "somebody", "/bin/sh")
    arguments = task["Config"]["args"]
    assert {"--containall", "--no-home", "--userns", "--nv", "/data:/data:ro"} <= set(arguments)
    assert not any(argument.startswith("--env") for argument in arguments)
    assert "--device=/dev/nvidia*" in daemon_options(job)


async def test_the_daemon_comes_in_three_ways(backend_name: str) -> None:
    inside = task_of(await job_of(backend_name, runtime="image:/usr/lib/hermes"))
    assert not inside.get("Artifacts")
    assert "mount" not in inside["Config"]
    assert any(
        "/usr/lib/hermes/" in part for part in (*inside["Config"]["args"], *inside["Config"].get("entrypoint", ()))
    )
    fetched = task_of(await job_of(backend_name, runtime="https://example.org/hermes.tar.gz"))
    [artifact] = fetched["Artifacts"]
    assert artifact["GetterSource"] == "https://example.org/hermes.tar.gz"
    there = task_of(await job_of(backend_name, runtime="/opt/hermes-runtime"))
    assert not there.get("Artifacts")
    assert "/opt/hermes-runtime" in json.dumps(there["Config"])


@pytest.mark.nomad
@pytest.mark.docker
@pytest.mark.apptainer
async def test_what_the_user_says_in_hcl_is_in_every_job(
    backend_name: str, cluster: Cluster, witness: Witness, tmp_path: Path
) -> None:
    path = tmp_path / "own.hcl"
    path.write_text(OWN)
    async with backend_on(cluster.address, witness.job_id, backend_name, {"job": path}) as backend:
        await backend.start(SandboxSpec(slots=1), "owner", "owner-0")
        [sandbox] = backend.sandboxes
        job = cluster.call("GET", f"/v1/job/{sandbox.job_id}")
    assert job["Datacenters"] == ["dc1", "dc2"]
    [constraint] = [one for one in job["Constraints"] if one["LTarget"] == "${attr.kernel.name}"]
    assert (constraint["Operand"], constraint["RTarget"]) == ("=", "linux")
    assert (job["Meta"]["team"], job["Meta"]["hermes_owner"]) == ("research", "owner")
    assert group_of(job)["EphemeralDisk"]["SizeMB"] == 400
    task = task_of(job)
    assert (task["Env"]["COLOUR"], task["Resources"]["MemoryMB"], task["Resources"]["CPU"]) == ("blue", 300, 100)
    assert "serve" in task["Config"]["args"]
    assert (group_of(job)["Count"], group_of(job)["RestartPolicy"]["Attempts"]) == (1, 0)


@pytest.mark.nomad
async def test_json_says_the_same_as_hcl(backend_name: str, cluster: Cluster, tmp_path: Path) -> None:
    parsed = cluster.call("PUT", "/v1/jobs/parse", {"JobHCL": OWN, "Canonicalize": False})
    for name, text in (("own.hcl", OWN), ("own.json", json.dumps({"Job": parsed}))):
        (tmp_path / name).write_text(text)
    by_json = await job_of(backend_name, NO_AGENT, job=tmp_path / "own.json")
    by_hcl = await job_of(backend_name, cluster.address, job=tmp_path / "own.hcl")
    for job in (by_json, by_hcl):
        task_of(job).pop("Templates")  # of which each has the name of its own variable
        assert job.pop("ID") == job.pop("Name")
    assert by_json == by_hcl


@pytest.mark.nomad
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job {", "the job specification .*own.hcl"),
        ('job "own" {\n type = "service"\n}', "sandboxes are batch jobs"),
        ('job "own" {\n group "a" {\n}\n group "b" {\n}\n}', "2 blocks group, and a sandbox has one"),
        ('job "own" {\n namespace = "other"\n group "a" {\n}\n}', "names the namespace 'other'"),
    ],
)
async def test_what_no_sandbox_can_be_is_refused(text: str, message: str, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "own.hcl").write_text(text)
    with pytest.raises(ConfigError, match=message):
        await job_of("nomad", cluster.address, job=tmp_path / "own.hcl")


def test_the_command_builds_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    settings = settings_of("nomad", NO_AGENT, "test", image="nothing:local")
    done = CliRunner().invoke(hermes, ["sandbox", "jobspec", *settings])
    assert done.exit_code == 0, done.output
    assert task_of(json.loads(done.output)["Job"])["Config"]["image"] == "nothing:local"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datacenter": " , "}, "datacenter names none"),
        ({"memory": 512, "memory_max": 256}, "memory_max 256 is less than memory 512"),
        ({"min_sandboxes": 3, "max_sandboxes": 2}, "min_sandboxes 3 is more than max_sandboxes 2"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NomadConfig.model_validate(settings)


@pytest.mark.parametrize("bind", ["/data:/data:rw", "data:/data", "/data,/etc", "/data:data"])
def test_binds_that_apptainer_would_read_otherwise(bind: str) -> None:
    with pytest.raises(ValueError, match="binds"):
        NomadSingularityConfig.model_validate({"binds": [bind]})


def test_the_command_prints_what_nomad_takes(backend_name: str) -> None:
    done = CliRunner().invoke(hermes, ["sandbox", "jobspec", *settings_of(backend_name, NO_AGENT, "test")])
    assert done.exit_code == 0, done.output
    job = json.loads(done.output)["Job"]
    assert job["ID"].startswith("test-")
    assert task_of(job)["Driver"] == {"nomad": "docker", "nomad-singularity": "raw_exec"}[backend_name]
