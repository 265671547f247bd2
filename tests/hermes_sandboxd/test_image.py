"""Daemons that run by a runtime folder: on this machine, and in an image that has nothing but a static busybox."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archives import tar
from tests.conftest import cannot_run

from hermes_core.sandbox.portable import RUNTIME_INSIDE, build_runtime, runtime_of
from hermes_sandboxd import find_bubblewrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxd_client import Client, Daemon

pytestmark = pytest.mark.namespaces

APPLETS = (
    "cat",
    "chmod",
    "echo",
    "env",
    "grep",
    "head",
    "id",
    "ls",
    "mkdir",
    "readlink",
    "sh",
    "sleep",
    "stat",
    "touch",
    "true",
    "wget",
)
SHOWN = ("testbed/code", "opt/tool/data", "var/lib/data", "home/user/data", "root/data", "entry", "etc/task.conf")
HIDDEN = ("run/secret", "etc/shadow", "etc/closed/secret", "root/key")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_runtime(tmp_path_factory.mktemp("runtimes"))


@pytest.fixture(scope="module")
def busybox() -> str:
    found = shutil.which("busybox")
    if found is None or b"/ld-linux" in Path(found).read_bytes():
        cannot_run("busybox", "no static busybox (apt-get install busybox-static)")
    return found


@pytest.fixture
def image(tmp_path: Path, busybox: str) -> Path:
    """The root folder of an image with a shell, and with files of a task's own."""
    root = tmp_path / "image"
    for name in ("bin", "dev", "etc", "opt/hermes", "proc", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    for name in (*SHOWN, *HIDDEN):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    for name, mode in (("etc/shadow", 0o600), ("root/key", 0o600), ("etc/closed", 0o700), ("root", 0o700)):
        (root / name).chmod(mode)
    (root / "var/tmp").chmod(0o1777)
    return root


def entering(image: Path, runtime: Path, folder: Path) -> list[str]:
    """Return what starts a daemon in an image with the runtime folder mounted, as a container would."""
    shared = folder / "shared"
    shared.mkdir()
    (image / str(shared).lstrip("/")).mkdir(parents=True)
    rights = ["--cap-add", "ALL"] if os.geteuid() == 0 else ["--unshare-user"]
    return [
        *(str(find_bubblewrap()), *rights, "--bind", str(image), "/", "--ro-bind", str(runtime), RUNTIME_INSIDE),
        *("--bind", str(shared), str(shared), "--dev-bind", "/proc", "/proc", "--dev-bind", "/dev", "/dev"),
        *("--clearenv", "--", *runtime_of(runtime, RUNTIME_INSIDE).arguments),
    ]


@pytest.fixture
def in_image(start: Callable[..., Daemon], image: Path, runtime: Path, tmp_path: Path) -> Daemon:
    """A daemon in that image."""
    command = entering(image, runtime, tmp_path)
    return start("--root", "image", command=command, folder=f"{tmp_path}/shared", bwrap=None)


def opened(daemon: Daemon) -> Client:
    client = daemon.client()
    client.open(0)
    return client


def test_on_this_machine(start: Callable[..., Daemon], runtime: Path) -> None:
    daemon = start(command=runtime_of(runtime, str(runtime)).arguments, bwrap=None)
    assert daemon.ready["isolation"] == "namespaces"
    client = opened(daemon)
    assert client.sh("echo hi; ls /proc | grep -c '^[0-9]'").stdout.startswith(b"hi\n")
    daemon.stop()


def test_commands_run_in_an_image_without_anything(in_image: Daemon) -> None:
    assert in_image.ready["obstacle"] is None
    assert in_image.ready["isolation"] == "namespaces"
    client = opened(in_image)
    assert (
        client.sh(
            "echo hi; id -un; cat > x; cat x",
        ).stdout
        == b"hi\nagent\n"
    )
    assert client.call("slot.exec", slot=0, argv=["/bin/cat", "/proc/self/status"])["exit_code"] == 0
    assert client.sh("wget -q -O - http://127.0.0.1/")["exit_code"] != 0
    in_image.stop()


def test_the_image_is_seen_and_cannot_be_changed(in_image: Daemon) -> None:
    client = opened(in_image)
    for name in SHOWN:
        assert client.sh(f"cat /{name}").stdout == f"content of {name}\n".encode(), name
        assert client.sh(f"echo x >> /{name}")["exit_code"] != 0, name
    for name in HIDDEN:
        assert client.sh(f"cat /{name}")["exit_code"] != 0, name
    for folder in ("/", "/testbed", "/opt", "/var", "/var/lib", "/home", "/root", "/etc", "/opt/hermes"):
        assert client.sh(f"touch {folder}/x")["exit_code"] != 0, folder
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/workspace", "/home/agent"):
        assert client.sh(f"touch {folder}/x")["exit_code"] == 0, folder
    assert client.sh("cat /etc/passwd").stdout.splitlines()[-1].startswith(b"user:")
    in_image.stop()


def test_what_is_the_daemons_is_not_seen(in_image: Daemon) -> None:
    client = opened(in_image)
    client.open(1)
    client.sh("echo mine > /workspace/a; echo mine > /tmp/a; echo mine > /var/tmp/a", slot=1)
    assert client.sh("ls -A /opt/hermes /run /tmp /var/tmp /workspace").stdout.split() == [
        *(b"/opt/hermes:", b"/run:", b"/tmp:", b"/var/tmp:", b"/workspace:"),
    ]
    for path in (in_image.folder, in_image.state, in_image.socket):
        assert client.sh(f"ls {path}")["exit_code"] != 0, path
    assert client.sh("grep -rs mine / --exclude-dir=proc").stdout == b""
    in_image.stop()


def test_variables_of_the_image_are_beneath_those_of_the_lease(start: Callable[..., Daemon]) -> None:
    daemon = start("--slot-env=COLOUR=-blue", "--slot-env=SHAPE=a=b", "--slot-env=PATH=/opt/tool:/bin")
    client = daemon.client()
    client.open(0, env={"SHAPE": "round"})
    assert client.sh("echo $COLOUR $SHAPE $PATH").stdout == b"-blue round /opt/tool:/bin\n"
    daemon.stop()


@pytest.fixture
def copying(start: Callable[..., Daemon], image: Path, runtime: Path, tmp_path: Path) -> Daemon:
    """A daemon in that image whose slots have copies of two folders of it."""
    (image / "testbed" / "sub").mkdir()
    (image / "testbed" / "link").symlink_to("code")
    os.link(image / "testbed" / "code", image / "testbed" / "sub" / "twin")
    (image / "testbed" / "code").chmod(0o640)
    os.utime(image / "testbed" / "code", (1, 1_000_000_000))
    os.utime(image / "testbed" / "sub", (1, 1_000_000_001))
    options = ("--writable", "/testbed", "--writable", "/home/user/", "--writable-if-there", "/not-there")
    return start(
        *("--root", "image", *options),
        command=entering(image, runtime, tmp_path),
        folder=f"{tmp_path}/shared",
        bwrap=None,
    )


def test_copies_are_the_slots_own_and_as_the_image_has_them(copying: Daemon, image: Path) -> None:
    assert copying.ready["missing"] == ["/not-there"]
    client = opened(copying)
    said = client.sh("cd /testbed; cat link sub/twin; stat -c '%a %h %Y %U' code; stat -c %Y sub; readlink link").stdout
    content = b"content of testbed/code\n"
    assert said == content * 2 + b"640 2 1000000000 agent\n1000000001\ncode\n"
    assert client.sh("echo mine > /testbed/code; echo mine > /testbed/new; echo x > /home/user/x")["exit_code"] == 0
    assert client.sh("cat /testbed/sub/twin").stdout == b"mine\n"
    client.open(1)
    assert client.sh("cat /testbed/code; ls /testbed /home/user", slot=1).stdout.split()[3:] == [
        *(b"/home/user:", b"data", b"/testbed:", b"code", b"link", b"sub"),
    ]
    client.call("slot.reset", slot=0)
    client.open(0)
    assert client.sh("cat /testbed/code; ls /testbed").stdout == content + b"code\nlink\nsub\n"
    assert (image / "testbed" / "code").read_bytes() == content
    assert not (image / "testbed" / "new").exists()
    copying.stop()


def test_grading_sees_the_copies_as_the_agent_left_them(copying: Daemon) -> None:
    client = opened(copying)
    client.sh("echo mine > /testbed/code; chmod 0 /testbed")
    assert client.call("slot.grade", tar(), slot=0).error is None
    assert client.sh("cat /testbed/code").stdout == b"mine\n"
    copying.stop()


def test_copies_count_as_part_of_the_workspace(copying: Daemon) -> None:
    client = copying.client()
    client.open(0, limits={"workspace_bytes": 8 << 20})
    assert client.sh("head -c 40000000 /dev/zero > /testbed/large; sleep 60", timeout_s=60)["limit"] == "workspace"
    copying.stop()


@pytest.mark.parametrize("folder", ["testbed", "/", "/etc", "/run/x", "/home", "/workspace/x"])
def test_what_is_something_else_in_a_slot_cannot_be_copied(start: Callable[..., Daemon], folder: str) -> None:
    daemon = start("--root", "image", "--writable", folder)
    assert daemon.ready == {}
    assert daemon.process.wait(10) == 2
    assert not os.path.exists(daemon.state)


@pytest.mark.parametrize(("folder", "why"), [("/no-such-folder", "`writable`"), ("/opt/link", "; name /testbed")])
def test_what_is_not_there_cannot_be_copied(
    start: Callable[..., Daemon],
    image: Path,
    runtime: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    folder: str,
    why: str,
) -> None:
    (image / "opt").mkdir(exist_ok=True)
    (image / "opt" / "link").symlink_to("/testbed")
    daemon = start(
        *("--root", "image", "--writable", folder),
        command=entering(image, runtime, tmp_path),
        folder=f"{tmp_path}/shared",
        bwrap=None,
    )
    assert daemon.ready == {}
    assert daemon.process.wait(10) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"hermes-sandboxd: {folder}: ")
    assert why in said


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a socket away, which takes root")
def test_the_socket_can_be_somebody_elses(start: Callable[..., Daemon]) -> None:
    daemon = start("--socket-user", "4242")
    found = os.stat(daemon.socket)
    assert (found.st_uid, found.st_mode & 0o777) == (4242, 0o600)
    daemon.stop()
