from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandboxd_client import Client, Daemon

pytestmark = pytest.mark.namespaces


def test_secrets_of_the_host_cannot_be_read(start: Callable[..., Daemon], tmp_path: Path) -> None:
    secret = f"hunter{os.getpid()}x2"
    # Found by a pattern that does not match itself, or the search would find its own arguments.
    pattern = f"hunte[r]{os.getpid()}x2"
    (tmp_path / "secret").write_text(secret)
    daemon = start(env={"API_KEY": secret})
    client = daemon.client()
    client.open(0)
    done = client.sh(
        f"""
        env
        cat {tmp_path}/secret {daemon.folder}/* {daemon.state}/*/*
        cat /proc/*/environ /proc/*/cmdline /proc/*/mountinfo
        grep -rs '{pattern}' / --exclude-dir=usr --exclude-dir=proc --exclude-dir=dev
        ls /root /home /var /run /opt /srv /mnt /media
        """
    )
    assert secret.encode() not in done.stdout
    assert client.sh("ls /home; ls -A /run; ls /var").stdout == b"agent\ntmp\n"
    for path in ("/root", "/opt", "/srv", "/mnt", "/sys", "/boot", "/work", str(tmp_path), daemon.state):
        assert client.sh(f"ls {path}")["exit_code"] != 0, path
    assert client.sh("cat /etc/shadow /etc/sudoers; ls /etc/ssh /etc/ssl/private").stdout == b""
    daemon.stop()


def test_slots_do_not_see_each_other(client: Client) -> None:
    client.open(1)
    client.sh("echo mine > /workspace/a; echo mine > /tmp/a; echo mine > ~/a; echo mine > /dev/shm/a")
    client.sh("sleep 1234.5 & true")
    done = client.sh("cat /workspace/a /tmp/a ~/a /dev/shm/a; cat /proc/*/cmdline | tr '\\0' ' '", slot=1)
    assert b"mine" not in done.stdout
    assert b"1234.5" not in done.stdout
    pids = client.sh("ls -d /proc/[0-9]* | wc -l", slot=1)
    assert int(pids.stdout) <= 4
    assert client.sh("pgrep -f 1234.5").stdout.strip()
    client.call("slot.reset", slot=1)


def test_no_privileges(client: Client) -> None:
    status = dict(line.split(":", 1) for line in client.sh("cat /proc/self/status").stdout.decode().splitlines())
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1000"] * 4
    ignored = int(status["SigIgn"], 16) & 0x7FFFFFFF
    assert ignored == 0
    assert int(status["SigBlk"], 16) == 0
    for command in (
        "unshare -U true",
        "unshare -r true",
        "mount -t tmpfs none /tmp",
        "umount /tmp",
        "mount -o remount,rw /usr",
        "touch /usr/x",
        "touch /x",
        "touch /etc/x",
        "touch /dev/x",
        "chroot / true",
        "hostname x",
        "su -c true",
    ):
        assert client.sh(command)["exit_code"] != 0, command


def test_the_supervisor_and_pid_1_are_out_of_reach(client: Client) -> None:
    done = client.sh("ls -l /proc/self/fd; cat /proc/$$/status | grep PPid")
    descriptors = [line.split()[8] for line in done.stdout.decode().splitlines() if "->" in line]
    assert descriptors[:3] == ["0", "1", "2"]
    # The fourth is that of the listing itself.
    assert len(descriptors) == 4
    assert b"PPid:\t0" in done.stdout
    assert client.sh("kill -9 1; kill -TERM 1; kill -STOP 1; sleep 0.05; kill -0 1")["exit_code"] == 0
    for path in ("environ", "mem", "fd", "maps", "exe", "cwd", "root", "ns/mnt"):
        assert client.sh(f"ls -l /proc/1/{path} > /dev/null && head -c1 /proc/1/{path}")["exit_code"] != 0, path
    assert client.sh("cat /proc/1/cmdline | tr '\\0' ' '").stdout == b"/.hermes/cat "
    assert client.sh("cat /.hermes/cat").stdout == b""
    assert client.sh("chmod 755 /.hermes/cat")["exit_code"] != 0


def test_orphans_become_no_zombies(client: Client) -> None:
    client.sh("for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; sleep 0.2")
    assert client.sh("grep -l '^State:.Z' /proc/[0-9]*/status").stdout == b""


def test_the_network_is_cut_off_or_shared_as_asked(client: Client) -> None:
    client.open(1, network="host")
    assert client.sh("ls /sys/class/net 2>/dev/null; tail -n +3 /proc/net/dev | wc -l").stdout == b"1\n"
    assert client.sh("cat /etc/resolv.conf").stdout == b""
    inside = client.sh("readlink /proc/self/ns/net", slot=1).stdout.decode().strip()
    assert inside == os.readlink("/proc/self/ns/net")
    assert client.call("slot.open", slot=2, network="everything").kind == "bad_request"
    client.call("slot.reset", slot=1)


def test_private_file_systems_are_capped(client: Client) -> None:
    client.open(1, limits={"tmp_bytes": 1 << 20, "home_bytes": 2 << 20})
    for path in ("/tmp/f", "/dev/shm/f", "/home/agent/f"):
        assert client.sh(f"head -c 3000000 /dev/zero > {path}", slot=1)["exit_code"] != 0
    client.call("slot.reset", slot=1)
    assert client.call("slot.open", slot=1, limits={"gravity": 5}).kind == "bad_request"


def test_ordinary_programs_work(client: Client) -> None:
    done = client.sh("id -un; hostname; python3 -c 'import ssl, sqlite3; print(6 * 7)'; getent hosts localhost; tty")
    assert done.stdout.split()[:3] == [b"agent", b"hermes", b"42"]
    assert b"localhost" in done.stdout
    assert done.stdout.endswith(b"not a tty\n")


def test_commands_are_the_first_to_go_when_memory_runs_out(client: Client) -> None:
    assert client.sh("cat /proc/self/oom_score_adj").stdout == b"1000\n"
