"""The /etc of the slots: what programs need of the host's, and nothing that is anybody's secret."""

from __future__ import annotations

import os
import shutil
import stat

from hermes_sandboxd._bubblewrap import AGENT_ID, HOME, HOST_NAME

_WRITTEN = {
    "passwd": f"root:x:0:0:root:/root:/bin/sh\nagent:x:{AGENT_ID}:{AGENT_ID}:agent:{HOME}:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": f"root:x:0:\nagent:x:{AGENT_ID}:\nnogroup:x:65534:\n",
    "hosts": f"127.0.0.1 localhost {HOST_NAME}\n::1 localhost ip6-localhost ip6-loopback\n",
    "hostname": f"{HOST_NAME}\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "resolv.conf": "",
    "mtab": None,
}

_USERS = ("passwd", "group")

_COPIED = (
    "bash.bashrc",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "lsb-release",
    "magic",
    "magic.mime",
    "mime.types",
    "networks",
    "openmpi",
    "os-release",
    "perl",
    "pki/ca-trust",
    "pki/tls/certs",
    "profile",
    "protocols",
    "rpc",
    "services",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
# Folders of hundreds of public files: one mount for each slot is cheaper than a copy for each daemon.
_BOUND = ("alternatives", "ssl/certs")
_COPIED_PREFIXES = ("java-", "python3")
_LARGEST_BYTES = 4 << 20


def prepare_etc(target: str, *, whole: bool) -> None:
    """Make the folder `target` the /etc of all slots of this daemon.

    Args:
        target: Where it is to be.
        whole: Whether everything that others may read is wanted, as in a container whose image is there for the slots.
    """
    os.mkdir(target, 0o755)
    os.chmod(target, 0o755)
    bound = bound_folders()
    known = [name for name in os.listdir("/etc") if whole or name.startswith(_COPIED_PREFIXES)]
    left_out = {os.path.join("/etc", name) for name in (*bound, *_WRITTEN)}
    for name in known if whole else (*_COPIED, *known):
        _copy(os.path.join("/etc", name), os.path.join(target, name), left_out)
    for name in bound:
        os.makedirs(os.path.join(target, name), mode=0o755, exist_ok=True)
    for name, text in _WRITTEN.items():
        path = os.path.join(target, name)
        if text is None:
            os.symlink("/proc/self/mounts", path)
            continue
        with open(path, "w", encoding="utf-8") as file:
            file.write(_with_users_of_image(name, text) if whole and name in _USERS else text)
        os.chmod(path, 0o644)


def _with_users_of_image(name: str, text: str) -> str:
    """Return a list of users or groups: what a slot needs first, then those of the image that are not in it."""
    try:
        with open(os.path.join("/etc", name), encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return text
    ours = {line.partition(":")[0] for line in text.splitlines()}
    others = [line for line in lines if line and line.partition(":")[0] not in ours]
    return "\n".join([text.rstrip("\n"), *others, ""])


def bound_folders() -> list[str]:
    """Return the folders below /etc that slots see as they are."""
    return [name for name in _BOUND if _is_public(os.path.join("/etc", name))]


def _is_public(folder: str) -> bool:
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_mode & 0o005 == 0o005


def _copy(source: str, target: str, left_out: set[str]) -> None:
    try:
        found = os.lstat(source)
    except OSError:
        return
    if source in left_out:
        return
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    # What others may not read on the host, the agent may not read either, whoever runs the daemon.
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(found.st_mode) and found.st_mode & 0o005 == 0o005:
        os.mkdir(target, 0o755)
        os.chmod(target, 0o755)
        for name in os.listdir(source):
            _copy(os.path.join(source, name), os.path.join(target, name), left_out)
    elif stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_IROTH and found.st_size <= _LARGEST_BYTES:
        shutil.copyfile(source, target)
        os.chmod(target, 0o644 | found.st_mode & 0o111)
