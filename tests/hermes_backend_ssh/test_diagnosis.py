"""What `hermes doctor` says of the backend."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from hermes_backend_ssh import SshBackend, SshConfig
from hermes_backend_ssh._diagnosis import diagnose
from hermes_core.cli._main import hermes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hermes_backend_ssh.conftest import Server

pytestmark = pytest.mark.ssh


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where no .env file is
    for name in ("HOST", "USER", "PORT", "KEY"):
        monkeypatch.delenv(f"TERMINAL_SSH_{name}", raising=False)


def test_the_client_without_a_machine() -> None:
    done = CliRunner().invoke(hermes, ["doctor", "--json"])
    [finding] = [found for found in json.loads(done.stdout) if found["name"] == "backend ssh"]
    assert finding["state"] == "ok"
    assert finding["detail"].startswith("OpenSSH_")
    assert "TERMINAL_SSH_HOST names no machine" in finding["detail"]


def test_a_machine_that_lets_us_in(server: Server, ordinary: str) -> None:
    [finding] = diagnose(SshConfig.model_validate(server.settings(ordinary)))
    assert finding.state == "ok", finding
    assert f"; {ordinary}@127.0.0.1:{server.port} is Linux" in finding.detail


def test_a_machine_that_does_not(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERMINAL_SSH_HOST", "127.0.0.1")
    monkeypatch.setenv("TERMINAL_SSH_PORT", str(server.port))
    [finding] = SshBackend.diagnose()
    assert (finding.state, finding.required) == ("broken", False)
    assert "is not known" in finding.detail
    assert "ssh -o StrictHostKeyChecking=ask" in finding.hint
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("TERMINAL_SSH_PORT", str(closed.getsockname()[1]))
        [finding] = SshBackend.diagnose()
    assert "refuses the connection" in finding.detail


def test_no_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    [finding] = SshBackend.diagnose()
    assert finding.state == "missing"
