"""Files of the host, and what would lead to them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from hermes_core.exceptions import SlotFileError

if TYPE_CHECKING:
    from tests.hermes_core.escape.conftest import Attacker, Secret

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "/proc/1/root",
        "/proc/1/cwd/../../../..",
        "/proc/self/root",
        "/proc/self/cwd/../../../../..",
        "/workspace/../..",
    ],
)
async def test_paths_lead_nowhere(attacker: Attacker, secret: Secret, prefix: str) -> None:
    await attacker.fails(f"attempt('read', read, {prefix + str(secret.path)!r})")
    await attacker.sh(f"ln -s {prefix}{secret.path} link; mkdir a; ln -s {prefix}{secret.path.parent} a/folder")
    await attacker.fails("attempt('link', read, 'link'); attempt('folder', read, 'a/folder/secret')")
    for path in ("link", "a/folder/secret", prefix + str(secret.path)):
        with pytest.raises(SlotFileError):
            await attacker.slot.read_file(path)


async def test_writing_through_links_stays_inside(attacker: Attacker, secret: Secret) -> None:
    await attacker.sh(f"ln -s {secret.path} link; ln -s {secret.path.parent} folder")
    for path in ("link", "folder/secret"):
        # Where the link points to may be made, but only in the slot's own view.
        with suppress(SlotFileError):
            await attacker.slot.write_file(path, "overwritten")
    assert secret.path.read_text() == secret.text


async def test_no_process_tells_its_environment(attacker: Attacker, secret: Secret) -> None:
    done = await attacker.sh("cat /proc/*/environ /proc/*/cmdline /proc/*/task/*/environ | tr '\\0' '\\n'; env")
    assert "PATH=" in done.stdout
    assert secret.text not in done.stdout
    assert "HERMES_" not in done.stdout


@pytest.mark.parametrize(
    "path", ["/proc/self/environ", "/proc/thread-self/environ", "/proc/self/mem", "/proc/self/maps", "/proc/self/fd/0"]
)
async def test_the_supervisor_reads_nothing_of_itself(attacker: Attacker, path: str) -> None:
    await attacker.sh(f"ln -s {path} link")
    for name in (path, "link"):
        with pytest.raises(SlotFileError):
            await attacker.slot.read_file(name)
        with pytest.raises(SlotFileError):
            await attacker.slot.write_file(name, "x")


async def test_the_mount_table_opens_nothing(attacker: Attacker, secret: Secret) -> None:
    done = await attacker.python(
        """
for line in open('/proc/self/mountinfo'):
    fields = line.split()
    if fields[3] not in ('/', '/usr') and not fields[3].startswith(('/etc', '/usr', '/lib')):
        attempt(fields[3], os.listdir, fields[3])
print(read('/proc/self/mountinfo').decode(), file=sys.stderr)
"""
    )
    assert done.exit_code == 0
    assert "success" not in done.stdout
    assert secret.text not in done.stderr
    assert str(secret.path.parent) not in done.stderr


async def test_neither_sys_nor_cgroups_are_there(attacker: Attacker) -> None:
    await attacker.fails(
        """
for path in ('/sys', '/sys/fs/cgroup', '/sys/kernel', '/proc/1/ns/mnt', '/proc/kcore', '/proc/kmsg', '/boot', '/root'):
    attempt(path, lambda: os.listdir(path) if os.path.isdir(path) else read(path))
attempt('mkdir', os.mkdir, '/sys/fs/cgroup/x')
"""
    )


async def test_cgroups_cannot_be_mounted_or_changed(attacker: Attacker) -> None:
    await attacker.fails(
        """
os.mkdir('g')
tried('mount', b'none', b'g', b'cgroup2', 0, None)
tried('mount', b'none', b'g', b'cgroup', 0, b'memory')
for name in ('cgroup.procs', 'memory.max', 'pids.max', 'cgroup.kill'):
    attempt(name, write, '/sys/fs/cgroup/' + name, 'max')
"""
    )


@pytest.mark.parametrize(
    "attempts",
    [
        "tried('mount', b'none', b'/tmp', b'tmpfs', 0, None)",
        "tried('mount', b'/usr', b'/tmp', b'', 4096, None)",
        "tried('mount', b'none', b'/usr', b'', 32 | 4096, None)",
        "tried('mount', b'none', b'/tmp', b'proc', 0, None)",
        "tried('umount2', b'/tmp', 2); tried('umount2', b'/proc', 2); tried('umount2', b'/workspace', 2)",
        "tried('pivot_root', b'/workspace', b'/workspace')",
        "tried('chroot', b'/workspace')",
        "tried('open_tree', -100, b'/usr', 1)",
        "tried('fsopen', b'tmpfs', 0); tried('fspick', -100, b'/', 0)",
        "tried('move_mount', -100, b'/tmp', -100, b'/workspace', 0)",
        "tried('mount_setattr', -100, b'/usr', 0, struct.pack('4Q', 0, 1, 0, 0), 32)",
        "tried('swapon', b'/workspace/f', 0); tried('acct', b'/tmp/f'); tried('quotactl', 0, None, 0, None)",
    ],
)
async def test_nothing_is_mounted(attacker: Attacker, attempts: str) -> None:
    await attacker.fails(attempts)


async def test_file_handles_open_nothing(attacker: Attacker) -> None:
    # Inode 2 is the root of an ext4, 128 that of an XFS; the own workspace's handle shows the form.
    await attacker.fails(
        """
handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128))
mount = ctypes.c_int()
try:
    syscall('name_to_handle_at', -100, b'/workspace', handle, ctypes.byref(mount), 0)
except OSError:
    pass
for folder in ('/workspace', '/usr', '/tmp'):
    descriptor = os.open(folder, os.O_RDONLY)
    tried('open_by_handle_at', descriptor, handle, 0)
    for inode in (2, 128):
        tried('open_by_handle_at', descriptor, struct.pack('IiII', 8, 1, inode, 0), 0)
"""
    )


async def test_system_files_are_neither_linked_nor_written(attacker: Attacker) -> None:
    await attacker.fails(
        """
for path in ('/usr/bin/env', '/etc/passwd', '/usr/lib/os-release'):
    attempt('link ' + path, os.link, path, '/workspace/linked')
    attempt('write ' + path, open, path, 'r+')
    attempt('chmod ' + path, os.chmod, path, 0o777)
    attempt('unlink ' + path, os.unlink, path)
    attempt('rename ' + path, os.rename, path, '/tmp/x')
for folder in ('/', '/usr', '/usr/bin', '/etc', '/dev', '/proc', '/run', '/var', '/home', '/.hermes', '/bin'):
    attempt('in ' + folder, open, folder + '/planted', 'w')
"""
    )


@pytest.mark.parametrize("device", ["S_IFCHR | 0o666, os.makedev(1, 1)", "S_IFBLK | 0o666, os.makedev(254, 0)"])
async def test_devices_are_not_made(attacker: Attacker, device: str) -> None:
    await attacker.fails(
        f"import stat\nfor folder in ('/workspace', '/tmp', '/dev/shm', '/home/agent'):\n"
        f"    attempt(folder, os.mknod, folder + '/device', stat.{device})"
    )


async def test_devices_of_the_host_are_not_there(attacker: Attacker) -> None:
    await attacker.fails(
        """
for name in ('mem', 'kmem', 'port', 'kmsg', 'sda', 'vda', 'nvme0n1', 'loop0', 'loop-control', 'fuse', 'kvm', 'vsock',
             'vhost-vsock', 'net/tun', 'uinput', 'tty0', 'console', 'hpet', 'userfaultfd', 'cpu_dma_latency', 'mapper'):
    attempt(name, os.open, '/dev/' + name, os.O_RDWR)
"""
    )


async def test_setuid_and_capabilities_of_files_raise_nobody(attacker: Attacker) -> None:
    done = await attacker.python(
        """
import shutil, subprocess
shutil.copy('/usr/bin/id', '/workspace/id'); os.chmod('/workspace/id', 0o6755)
print(subprocess.run(['/workspace/id', '-u'], capture_output=True, text=True).stdout.strip())
process = subprocess.Popen(['su'], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
time.sleep(0.2)
status = read(f'/proc/{process.pid}/status').decode()
print([line for line in status.splitlines() if line.startswith('Uid')][0].split()[1:])
process.kill(); process.wait()
"""
    )
    user, identities = done.stdout.splitlines()
    assert user == "1000"
    assert identities == str(["1000"] * 4)
    await attacker.fails(
        """
open('/workspace/f', 'w').close()
everything = struct.pack('<5I', 0x02000001, 0xffffffff, 0, 0xffffffff, 0)
attempt('capability', os.setxattr, '/workspace/f', 'security.capability', everything)
attempt('trusted', os.setxattr, '/workspace/f', 'trusted.x', b'1')
attempt('setuid', os.setuid, 0); attempt('setgid', os.setgid, 0); attempt('setgroups', os.setgroups, [0])
attempt('chown', os.chown, '/workspace/f', 0, 0); attempt('chown other', os.chown, '/workspace/f', 1, 1)
"""
    )


async def test_what_pid_1_runs_is_out_of_reach(attacker: Attacker) -> None:
    await attacker.fails(
        """
attempt('open', open, '/.hermes/cat', 'r+b')
attempt('unlink', os.unlink, '/.hermes/cat')
attempt('rename', os.rename, '/.hermes', '/tmp/hermes')
attempt('replace', os.replace, '/usr/bin/env', '/.hermes/cat')
attempt('chmod', os.chmod, '/.hermes/cat', 0o777)
attempt('exe', open, '/proc/1/exe', 'rb')
"""
    )


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/proc/sysrq-trigger", "h"),
        ("/proc/sys/kernel/core_pattern", "|/workspace/x"),
        ("/proc/sys/kernel/modprobe", "/workspace/x"),
        ("/proc/sys/vm/drop_caches", "3"),
        ("/proc/sys/vm/overcommit_memory", "1"),
        ("/proc/sys/kernel/hostname", "x"),
        ("/proc/sys/net/ipv4/ip_forward", "1"),
        ("/proc/sys/user/max_user_namespaces", "1000"),
        ("/proc/sys/kernel/yama/ptrace_scope", "0"),
        ("/proc/sys/fs/binfmt_misc/register", ":x:M::x::/workspace/x:"),
        ("/proc/1/mem", "x"),
        ("/proc/1/oom_score_adj", "-1000"),
        ("/proc/self/uid_map", "0 0 1"),
        ("/proc/self/setgroups", "allow"),
        ("/proc/acpi/wakeup", "x"),
        ("/proc/irq/default_smp_affinity", "1"),
        ("/proc/bus/pci/00/00.0", "x"),
        ("/proc/mtrr", "disable=0"),
    ],
)
async def test_settings_of_the_kernel_are_not_written(attacker: Attacker, path: str, text: str) -> None:
    await attacker.fails(f"attempt('write', write, {path!r}, {text!r})")
