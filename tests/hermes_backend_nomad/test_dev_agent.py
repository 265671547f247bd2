"""`hermes sandbox nomad-dev`: what it writes, and what it starts and ends."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.hermes_backend_nomad.configurations import nomad, parsed, with_nomad

from hermes_backend_nomad._dev_agent import DevAgent, dev_configuration
from hermes_backend_nomad._dev_ports import take_ports
from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

HERMES = (sys.executable, "-W", "error", "-c", "from hermes_core.cli import main; main()")
PATIENCE_S = 120.0
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "run-on-nomad.md"

# Stands in for the program nomad, which is not on every machine: it takes the same options, answers what the command
# asks of an agent, and writes down what it was told.
STAND_IN = f"""#!{sys.executable}
import http.server, json, os, re, sys, urllib.parse
assert sys.argv[1:3] == ["agent", "-config"]
text = open(sys.argv[3]).read()
record = os.environ["STAND_IN_RECORD"]
print("the stand-in's log", flush=True)
if os.environ.get("STAND_IN_FAILS"):
    sys.exit("error: no room for the stand-in")
jobs = [{{"ID": "a/b", "Namespace": "default"}}]
told = []
stubborn = bool(os.environ.get("STAND_IN_STUBBORN"))
docker = {{"Detected": True, "Healthy": False, "HealthDescription": "no daemon"}}
node = {{"Status": "ready", "Drivers": {{"raw_exec": {{"Detected": True, "Healthy": True}}, "docker": docker}}}}
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        url = urllib.parse.urlsplit(self.path)
        told.append(f"{{self.command}} {{self.path}}")
        if self.command == "DELETE":
            jobs.clear()
        open(record, "w").write(json.dumps({{"pid": os.getpid(), "told": told}}))
        answers = {{
            "/v1/agent/self": {{"stats": {{"client": {{"heartbeat_ttl": "17s"}}}}}},
            "/v1/nodes": [node],
            "/v1/jobs": jobs,
            "/v1/allocations": [{{"ClientStatus": "running" if jobs or stubborn else "complete"}}],
        }}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answers.get(url.path, {{}})).encode())
    do_GET = do_PUT = do_DELETE = answer
    def log_message(self, *_):
        pass
os.makedirs(re.search('data_dir += "(.*)"', text).group(1) + "/alloc", exist_ok=True)
port = int(re.search("http = ([0-9]+)", text).group(1))
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "nomad"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    return program


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HERMES, "sandbox", "nomad-dev", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
        timeout=PATIENCE_S,
    )


@contextmanager
def running(folder: Path, *arguments: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it said how to end it, and all that it said until then."""
    process = subprocess.Popen(
        [*HERMES, "sandbox", "nomad-dev", "--data-dir", str(folder), "--http-port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        try:
            said = ""
            for line in process.stdout:
                said += line
                if line.startswith("Ctrl-C"):
                    break
            else:
                pytest.fail(f"it ended: {process.stderr.read()}")
            yield process, said
        finally:
            process.kill()
            process.wait()


def three_free_ports() -> int:
    """The first of three ports in a row, out of those that the kernel gives nobody by itself."""
    while True:
        with suppress(ConfigError):
            return take_ports(random.randrange(10_000, 19_000))[0]


def address(said: str) -> str:
    [found] = re.findall(r"^  export NOMAD_ADDR=(.*)$", said, re.MULTILINE)
    return str(found)


def wait_until_gone(pid: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while runs(pid):
        assert time.monotonic() < until
        time.sleep(0.05)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


AGENTS = {
    "single": DevAgent(Path("/srv/nomad")),
    "server": DevAgent(
        *(Path("/srv/s1"), "s1", "127.0.0.11"), servers=3, client=False, join=["127.0.0.11:4648", "127.0.0.12:4648"]
    ),
    "client": DevAgent(
        *(Path("/srv/c1"), "c1", "127.0.0.21"),
        servers=0,
        join=["127.0.0.11:4647"],
        docker=False,
        acl=True,
        dynamic_ports=(21000, 21999),
        further="limits {\n  http_max_conns_per_client = 0\n}",
    ),
}


def test_a_single_machine_is_server_and_client_on_loopback() -> None:
    said = parsed(dev_configuration(AGENTS["single"]))
    assert (said["bind_addr"], said["data_dir"], said["disable_update_check"]) == ("127.0.0.1", "/srv/nomad", True)
    assert said["advertise"] == [dict.fromkeys(("http", "rpc", "serf"), "127.0.0.1")]
    assert said["ports"] == [{"http": 4646, "rpc": 4647, "serf": 4648}]
    [server], [client] = said["server"], said["client"]
    assert (server["enabled"], server["bootstrap_expect"]) == (True, 1)
    assert client["network_interface"] == "lo"
    assert "env_aws" in client["options"]["fingerprint.denylist"]
    plugins = {name: settings["config"][0] for plugin in said["plugin"] for name, settings in plugin.items()}
    assert plugins["raw_exec"] == {"enabled": True}
    assert "sys_admin" in plugins["docker"]["allow_caps"]
    assert plugins["docker"]["volumes"] == [{"enabled": True}]
    assert plugins["docker"]["gc"] == [{"image": False, "dangling_containers": [{"enabled": False}]}]


def test_agents_of_a_cluster_on_one_machine() -> None:
    server, client = (parsed(dev_configuration(AGENTS[name])) for name in ("server", "client"))
    assert "client" not in server
    assert "plugin" not in server
    assert server["server"][0]["bootstrap_expect"] == 3
    assert server["server"][0]["server_join"] == [{"retry_join": ["127.0.0.11:4648", "127.0.0.12:4648"]}]
    assert "server" not in client
    assert client["client"][0]["servers"] == ["127.0.0.11:4647"]
    assert (client["client"][0]["min_dynamic_port"], client["client"][0]["max_dynamic_port"]) == (21000, 21999)
    assert client["client"][0]["options"]["driver.denylist"] == "docker"
    assert [*client["plugin"][0]] == ["raw_exec"]
    assert client["acl"] == [{"enabled": True}]
    assert client["limits"] == [{"http_max_conns_per_client": 0}]


@with_nomad
@pytest.mark.parametrize("name", AGENTS)
def test_nomad_finds_the_configuration_valid(name: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.hcl"
    path.write_text(dev_configuration(AGENTS[name]))
    nomad("config", "validate", str(path))


def test_the_configuration_can_be_written_for_an_agent_that_is_started_elsewhere(tmp_path: Path) -> None:
    done = run("--write-only", "--data-dir", str(tmp_path / "n"), "--http-port", "5646", "--no-docker", PATH="/nowhere")
    path = tmp_path / "n" / "agent.hcl"
    assert done.stdout == f"nomad agent -config {path}\nexport NOMAD_ADDR=http://127.0.0.1:5646\n"
    assert path.read_text() == dev_configuration(
        DevAgent(tmp_path / "n", http_port=5646, rpc_port=5647, serf_port=5648, docker=False)
    )


def test_by_default_it_is_kept_where_state_is_kept(tmp_path: Path) -> None:
    done = run("--write-only", XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hermes" / "nomad" / "agent.hcl").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="tasks of other users take root")
def test_root_is_warned_of_a_folder_that_tasks_of_others_cannot_pass(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    done = run("--write-only", "--data-dir", str(tmp_path / "n"))
    assert done.returncode == 0
    assert " is closed to others, so that no task can be an ordinary user's" in done.stderr


def test_without_nomad_it_says_so(tmp_path: Path) -> None:
    done = run("--data-dir", str(tmp_path / "n"), PATH="/nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: nomad is not on PATH\nhint: install it")
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(("number", "use"), [(0, "API"), (1, "RPC"), (2, "Serf")])
def test_a_port_in_use_is_told(stand_in: Path, tmp_path: Path, number: int, use: str) -> None:
    first = three_free_ports()
    port = first + number
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if use == "Serf" else socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", port))
        done = run("--data-dir", str(tmp_path / "n"), "--http-port", str(first), PATH=str(stand_in.parent))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: port {port} of 127.0.0.1, for the agent's {use}, is in use\nhint: ")
    assert "--http-port 0" in done.stderr


def test_a_folder_that_cannot_be_written_is_told(stand_in: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("--data-dir", str(tmp_path / "file" / "n"), "--http-port", "0", PATH=str(stand_in.parent))
    assert done.returncode == 2
    assert "agent.hcl cannot be written: Not a directory" in done.stderr


def test_it_tells_how_the_agent_is_used_and_stops_its_jobs_before_it_ends_it(stand_in: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    env = {"PATH": str(stand_in.parent), "STAND_IN_RECORD": str(record)}
    with running(tmp_path / "n", **env) as (process, said):
        assert said.startswith(f"Nomad at {address(said)}, with the drivers raw_exec; its files are in {tmp_path}/n\n")
        assert "  hermes sandbox exec --backend nomad-singularity -B image=FILE.sif -B user=NAME -- uname -a\n" in said
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 130
        assert process.stderr is not None
        warned = process.stderr.read()
    assert "warning: no containers by Docker: no daemon" in warned
    assert "its jobs are being stopped" in warned
    assert "do not end" not in warned
    written = json.loads(record.read_text())
    told = written["told"]
    assert "DELETE /v1/job/a%2Fb?purge=true&namespace=default" in told
    assert told[-1] == "PUT /v1/system/gc"
    assert not runs(written["pid"])
    assert (tmp_path / "n" / "agent.log").read_text().startswith("the stand-in's log\n")


def test_a_second_signal_leaves_tasks_that_do_not_end(stand_in: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    env = {"PATH": str(stand_in.parent), "STAND_IN_RECORD": str(record), "STAND_IN_STUBBORN": "1"}
    with running(tmp_path / "n", **env) as (process, _):
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        for line in process.stderr:
            if "once more to leave them" in line:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 130
        assert process.stderr.read() == "what still runs goes on, and is taken over when it is started again\n"
    assert not runs(json.loads(record.read_text())["pid"])


def test_the_agent_ends_with_a_command_that_is_killed(stand_in: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    with running(tmp_path / "n", PATH=str(stand_in.parent), STAND_IN_RECORD=str(record)) as (process, _):
        process.kill()
        process.wait()
    wait_until_gone(json.loads(record.read_text())["pid"])


def test_an_agent_that_ends_is_an_error(stand_in: Path, tmp_path: Path) -> None:
    env = {"PATH": str(stand_in.parent), "STAND_IN_RECORD": str(tmp_path / "record.json"), "STAND_IN_FAILS": "1"}
    done = run("--data-dir", str(tmp_path / "n"), "--http-port", "0", **env)
    assert done.returncode == 2
    assert "  error: no room for the stand-in\n" in done.stderr
    assert f"error: the agent ended with exit code 1\nhint: its log: {tmp_path}/n/agent.log\n" in done.stderr
    with running(tmp_path / "m", **{**env, "STAND_IN_FAILS": ""}) as (process, _):
        os.kill(json.loads((tmp_path / "record.json").read_text())["pid"], signal.SIGKILL)
        assert process.wait(timeout=PATIENCE_S) == 2
        assert process.stderr is not None
        assert "the agent ended with exit code 137" in process.stderr.read()


JOB = {
    "ID": "sleeper",
    "Type": "batch",
    "Datacenters": ["*"],
    "TaskGroups": [
        {
            "Name": "g",
            "EphemeralDisk": {"SizeMB": 64},
            "Tasks": [
                {
                    "Name": "t",
                    "Driver": "raw_exec",
                    "Config": {"command": "/bin/sleep", "args": ["1000.25"]},
                    "Resources": {"CPU": 50, "MemoryMB": 32},
                    "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1},
                }
            ],
        }
    ],
}


@with_nomad
def test_a_with_nomad_is_ready_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "n"
    with running(folder) as (process, said):
        url = address(said)
        if "drivers docker, raw_exec" in said:
            shown = said.replace(url, "http://127.0.0.1:4646").replace(str(folder), "/var/lib/hermes/nomad")
            assert shown in GUIDE.read_text()
        httpx.put(f"{url}/v1/jobs", json={"Job": JOB}, trust_env=False).raise_for_status()
        until = time.monotonic() + PATIENCE_S
        while not sleepers():
            assert time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 130
    assert not sleepers()
    assert not list((folder / "alloc").iterdir())
    assert str(folder) not in Path("/proc/self/mounts").read_text()


def sleepers() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"sleep\0001000.25\0" in process.read_bytes():
                found.append(process.parent.name)
        except OSError:
            continue  # it has ended meanwhile
    return found
