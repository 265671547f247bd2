"""What cannot be is told at once: one line with the cause, a hint, exit code 2, and nothing left."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest
import requests
import trustme
from click.testing import CliRunner
from nomad.api.exceptions import BaseNomadException
from tests.hermes_backend_nomad.command_line import hermes, settings_of
from tests.hermes_backend_nomad.conftest import backend_on, nothing_left
from tests.hermes_backend_nomad.web_servers import QuietHandler, serving
from tests.stand_ins.nomad.fixtures import running_stand_in

from hermes_backend_nomad._address import Address
from hermes_backend_nomad._errors import PassingError, explain
from hermes_core.cli._main import hermes as group
from hermes_core.exceptions import NoCapacityError, SandboxLostError
from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.hermes_backend_nomad.witness import Witness
    from tests.stand_ins.nomad.cluster import Cluster

pytestmark = [pytest.mark.docker, pytest.mark.apptainer]

WAITED = re.compile(r"did not answer within|in time|waited")
"""What is said where a deadline has passed."""
JOBS = {
    "nonsense": 'job "own" {\n group "own" {\n task "own" {\n config {\n nonsense = 1\n }\n }\n }\n}\n',
    "constraint": 'job "own" {\n constraint {\n attribute = "${attr.kernel.name}"\n value = "plan9"\n }\n}\n',
    "port": 'job "own" {\n group "own" {\n network {\n port "own" {\n static = 18431\n }\n }\n }\n}\n',
}


@pytest.fixture
def anyio_backend(backend_name: str) -> str:
    """One event loop for each backend."""
    return {"nomad": "asyncio", "nomad-singularity": "trio"}[backend_name]


class Told(NamedTuple):
    """What was said of an error."""

    error: str
    hint: str


def told(name: str, address: str, job_id: str, out: Path, **settings: object) -> Told:
    """Have a run fail before it has begun; return the error and the hint."""
    command = ["run", "arithmetic", *settings_of(name, address, job_id, **settings)]
    done = CliRunner().invoke(group, [*command, "--model", "oracle", "--tasks", "2", "--out", str(out)])
    return said_in(done.output, done.exit_code)


def said_in(output: str, exit_code: int) -> Told:
    """Find the error and its hint in what was printed."""
    assert exit_code == 2, output
    assert "Traceback" not in output
    assert WAITED.search(output) is None, output
    lines = output.splitlines()
    [error] = [line for line in lines if line.startswith("error: ")]
    [hint] = [line for line in lines if line.startswith("hint: ")]
    assert lines[-2:] == [error, hint]
    assert "--debug" not in hint
    return Told(error, hint)


EVERYWHERE: list[tuple[dict[str, object], str, str]] = [
    ({"memory": 10**8}, "exhausted is memory on 1 node", "ask for less"),
    ({"cpu": 10**7}, "exhausted is cpu on 1 node", "ask for less"),
    ({"disk": 10**9}, "exhausted is disk on 1 node", "ask for less"),
    ({"datacenter": "mars"}, "there is no node in datacenter 'mars'", "-B datacenter=NAME"),
    ({"node_pool": "none-such"}, 'nonexistent node pool "none-such"', "-B node_pool=NAME"),
    ({"namespace": "none-such"}, 'nonexistent namespace "none-such"', "-B namespace=NAME"),
    ({"region": "mars"}, "No path to region", "-B region=NAME"),
    ({"job": "constraint"}, "${attr.kernel.name} = plan9 on 1 node", "-B job=FILE"),
    ({"job": "nonsense"}, "Failed Validation: .*nonsense", "-B job=FILE"),
    ({"runtime": "http://127.0.0.1:1/x.tar.gz"}, "Failed Artifact Download: .*x.tar.gz", "-B runtime=ADDRESS"),
    ({"runtime": "image:/nowhere"}, "/nowhere/lib/loader", "-B runtime"),
    ({"runtime": "/nowhere-at-all"}, "nowhere-at-all|lib/loader", "-B runtime"),
    ({"writable": '["/nowhere"]'}, "Exit Code: 2.*/nowhere: no such folder", "name what the image has in `writable`"),
]
DOCKER: list[tuple[dict[str, object], str, str]] = [
    ({"image": "127.0.0.1:1/none:1"}, "Driver Failure: .*127.0.0.1:1.*connection refused", "-B image=TAG"),
    ({"privileged": "true"}, "Driver Failure: .*privileged mode is disabled", "leave out -B privileged"),
    ({"volumes": '["/nowhere-at-all:/data"]'}, "Driver Failure: .*does not exist: /nowhere-at-all", "-B volumes"),
]
APPTAINER: list[tuple[dict[str, object], str, str]] = [
    ({"image": "/nowhere.sif"}, "Exit Code: 255: .*/nowhere.sif", "nodes"),
    ({"binds": '["/nowhere-at-all:/data"]'}, "/nowhere-at-all doesn't exist", "-B binds"),
    ({"executable": "no-such-engine"}, "Exit Code: 12[67]: .*no-such-engine", "-B executable=PATH"),
    ({"user": "no-such-user"}, "Driver Failure: .*unknown user no-such-user", "-B user=NAME"),
    ({"user": "root"}, "Exit Code: 2: Apptainer needs an ordinary user", "-B user=NAME"),
]
CASES = [
    pytest.param(name, *case, id=f"{name}-{'-'.join(f'{key}={value}' for key, value in case[0].items())}")
    for name, cases in (("nomad", EVERYWHERE + DOCKER), ("nomad-singularity", EVERYWHERE + APPTAINER))
    for case in cases
]


@pytest.mark.nomad
@pytest.mark.parametrize(("name", "settings", "error", "hint"), CASES)
def test_what_cannot_be_started_is_told(
    name: str, settings: dict[str, object], error: str, hint: str, cluster: Cluster, witness: Witness, tmp_path: Path
) -> None:
    if "job" in settings:
        settings = {"job": write_job(tmp_path, str(settings["job"]))}
    said = told(name, cluster.address, witness.job_id, tmp_path / "out", **settings)
    assert re.search(error if ".*" in error or "|" in error else re.escape(error), said.error), said.error
    assert hint in said.hint
    assert witness.left() == []


def write_job(folder: Path, which: str) -> Path:
    """Write a job specification of the user's own."""
    path = folder / f"{which}.hcl"
    path.write_text(JOBS[which])
    return path


@pytest.mark.nomad
@pytest.mark.anyio
async def test_a_port_that_another_sandbox_has_reserved(
    backend_name: str, cluster: Cluster, witness: Witness, tmp_path: Path
) -> None:
    own = write_job(tmp_path, "port")
    async with backend_on(cluster.address, witness.job_id, backend_name, {"job": own}) as backend:
        for number in range(2):  # a node of Nomad's has the port once for each address of its network
            with suppress(NoCapacityError):
                await backend.start(SandboxSpec(slots=1), "owner", f"owner-{number}")
        with pytest.raises(NoCapacityError, match="network: reserved port collision own=18431") as raised:
            await backend.start(SandboxSpec(slots=1), "owner", "owner-2")
        assert raised.value.hint


@pytest.mark.anyio
async def test_a_port_that_somebody_else_takes_is_no_trouble_of_the_cluster(backend_name: str) -> None:
    with socket.socket() as other, ExitStack() as stack:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        limits = {"docker_allow_caps": "+sys_admin", "min_dynamic_port": port, "max_dynamic_port": port}
        cluster = stack.enter_context(running_stand_in(**limits)).cluster
        witness = stack.enter_context(nothing_left(cluster))
        witness.on_allocation = other.listen  # before the daemon does
        async with backend_on(cluster.address, witness.job_id, backend_name, {}) as backend:
            with pytest.raises(SandboxLostError, match=r"(?i)address already in use|port is already allocated"):
                await backend.start(SandboxSpec(slots=1), "first", "first-0")


STAND_INS: list[tuple[str, dict[str, object], dict[str, object], str, str]] = [
    ("nomad", {"docker": False}, {}, "missing drivers on 1 node", "enable the driver"),
    ("nomad-singularity", {"raw_exec": False}, {}, "missing drivers on 1 node", "enable the driver"),
    ("nomad", {}, {"isolation": "namespaces"}, "does not allow the following capabilities: sys_admin", "allow_caps"),
    ("nomad", {}, {"require_isolation": "namespaces"}, "capabilities: sys_admin", "allow_caps"),
    ("nomad", {"docker_volumes": False}, {}, "volumes are not enabled", "-B runtime=image:FOLDER"),
    ("nomad", {"version": "1.6.2"}, {}, "is version 1.6.2, and too old", "Hermes needs Nomad 1.7 or newer"),
    ("nomad", {"acl_token": "s3cret"}, {}, "does not let us", "set NOMAD_TOKEN"),
    ("nomad", {"memory": 100}, {}, "exhausted is memory on 1 node", "ask for less"),
]


@pytest.mark.parametrize(
    ("name", "options", "settings", "error", "hint"), STAND_INS, ids=[str(case[1] | case[2]) for case in STAND_INS]
)
def test_what_a_cluster_does_not_allow_is_told(
    name: str, options: dict[str, object], settings: dict[str, object], error: str, hint: str, tmp_path: Path
) -> None:
    with running_stand_in(**options) as started, nothing_left(started.cluster) as witness:
        said = told(name, started.cluster.address, witness.job_id, tmp_path / "out", **settings)
        assert error in said.error
        assert hint in said.hint
        assert witness.left() == []


def test_without_namespaces_slots_have_users_and_it_is_said(tmp_path: Path) -> None:
    with running_stand_in() as started, nothing_left(started.cluster) as witness:
        settings = settings_of("nomad", started.cluster.address, witness.job_id)
        done = hermes(tmp_path, "sandbox", "exec", *settings, "--network", "host", "--", "id", "-u")
        assert done.returncode == 0, done.stderr
        assert "slots have the isolation level 'user' only" in done.stderr
        assert int(done.stdout) >= 10**8


def test_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_stand_in(acl_token="s3cret", docker_allow_caps="+sys_admin") as started:
        monkeypatch.setenv("NOMAD_TOKEN", "wr0ng")
        said = told("nomad", started.cluster.address, "none", tmp_path / "out")
        assert "does not let us" in said.error
        assert "wr0ng" not in said.error + said.hint
        monkeypatch.setenv("NOMAD_TOKEN", "s3cret")
        with nothing_left(started.cluster) as witness:
            runs_on(started.cluster.address, witness.job_id, tmp_path)


def runs_on(address: str, job_id: str, folder: Path) -> None:
    """Run a command in a sandbox there."""
    done = hermes(folder, "sandbox", "exec", *settings_of("nomad", address, job_id), "--", "echo", "fine")
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


@pytest.fixture
def authority() -> trustme.CA:
    """Who signs the certificates of agents."""
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, Path]:
    """Certificates of an agent and of a client, and their authority."""
    made = {name: tmp_path / name for name in ("ca", "server", "server.key", "client", "client.key")}
    authority.cert_pem.write_to_path(made["ca"])
    for name, identities in (("server", ["server.global.nomad", "127.0.0.1"]), ("client", ["client.global.nomad"])):
        issued = authority.issue_cert(*identities)
        issued.private_key_pem.write_to_path(made[f"{name}.key"])
        issued.cert_chain_pems[0].write_to_path(made[name])
    return made


def test_tls_with_an_agent(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = {"tls_cert": files["server"], "tls_key": files["server.key"], "tls_ca": files["ca"]}
    with ExitStack() as stack:
        cluster = stack.enter_context(running_stand_in(docker_allow_caps="+sys_admin", **tls)).cluster
        address, out = cluster.address.replace("127.0.0.1", "localhost"), tmp_path / "out"
        said = told("nomad", address, "none", out)
        assert "is not trusted" in said.error
        assert "NOMAD_CACERT" in said.hint
        monkeypatch.setenv("NOMAD_CACERT", str(files["ca"]))
        said = told("nomad", address, "none", out)
        assert "is not trusted" in said.error
        assert "NOMAD_TLS_SERVER_NAME" in said.hint
        monkeypatch.setenv("NOMAD_TLS_SERVER_NAME", "server.global.nomad")
        said = told("nomad", address, "none", out)
        # The stand-in hangs up before it has said why.
        assert "asks for a client certificate" in said.error or "ends connections without an answer" in said.error
        assert "NOMAD_CLIENT_CERT" in said.hint
        monkeypatch.setenv("NOMAD_CLIENT_CERT", str(files["client"]))
        monkeypatch.setenv("NOMAD_CLIENT_KEY", str(files["client.key"]))
        runs_on(address, "test-tls", tmp_path)
        listed = hermes(tmp_path, "sandbox", "list", *settings_of("nomad", address, "test-tls"), "--json")
        assert listed.stdout.strip() == "[]", listed.stderr


def test_tls_with_an_agent_that_has_none(cluster: Cluster, tmp_path: Path) -> None:
    said = told("nomad", cluster.address.replace("http:", "https:"), "none", tmp_path / "out")
    assert "TLS with Nomad" in said.error
    assert "http://" in said.hint


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "asks for a client certificate"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: expired", "is not trusted"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1)", "TLS with Nomad at https://n:4646 failed"),
    ],
)
def test_what_tls_says_in_our_words(said: str, message: str) -> None:
    error = explain(BaseNomadException(requests.exceptions.SSLError(said)), Address("https://n:4646"), "list jobs")
    assert message in error.message
    assert "NOMAD_" in str(error.hint)


def test_names_that_are_called_so_have_nothing_to_do_with_tls() -> None:
    said = (
        "HTTPConnectionPool(host='nomad-tls.example', port=4646): Max retries exceeded with url: /v1/job/ssl-1 "
        "(Caused by NewConnectionError('<…>: Failed to establish a new connection: [Errno 111] Connection refused'))"
    )
    address = Address("http://nomad-tls.example:4646")
    error = explain(BaseNomadException(requests.exceptions.ConnectionError(said)), address, "end the job ssl-1")
    assert isinstance(error, PassingError)
    assert error.message == "no Nomad agent answers at http://nomad-tls.example:4646: connection refused"


def test_no_agent(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        said = told("nomad", address, "none", tmp_path / "out")
    assert said.error == f"error: no Nomad agent answers at {address}: connection refused"
    assert "hermes sandbox nomad-dev" in said.hint


@pytest.fixture
def web_server() -> Iterator[str]:
    """Something else that speaks HTTP."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

    with serving(Handler) as address:
        yield address


def test_something_that_is_no_agent(web_server: str, tmp_path: Path) -> None:
    said = told("nomad", web_server, "none", tmp_path / "out")
    assert f"what answers at {web_server} is no Nomad agent" in said.error
    assert "NOMAD_ADDR" in said.hint
