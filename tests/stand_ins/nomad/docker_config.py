"""What a docker task becomes: the arguments of a container, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from docker.types import LogConfig, Mount, Ulimit

from .drivers import DriverError, Task

if TYPE_CHECKING:
    from .documents import Doc
    from .options import Options

__all__ = ["container_arguments"]

BASIS = {
    *("audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod"),
    *("net_bind_service", "setfcap", "setgid", "setpcap", "setuid", "sys_chroot"),
}
"""Capabilities of a task that asks for none."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Makes errors about one image."""

    image: str
    identifier: str

    def __call__(self, why: str) -> DriverError:
        """Write the error."""
        about = f'for image "{self.image}" ("{self.identifier}")'
        return DriverError(f"Failed to create container configuration {about}: {why}")


def first(value: Any) -> Doc:
    """Read a table, which as a block of HCL is a list of one."""
    found = value[0] if isinstance(value, list) and value else value or {}
    return dict(found)


def published(task: Task, refuse: Refusal) -> Doc:
    """Return what is published of the ports that the task names."""
    known = {port["Label"]: port for port in task.ports}
    bound: Doc = {}
    for label in task.config.get("ports") or ():
        if label not in known:
            raise refuse(f'Port "{label}" not found, check network block')
        port = known[label]
        for protocol in ("tcp", "udp"):
            bound[f"{port.get('To') or port['Value']}/{protocol}"] = (port["HostIP"], port["Value"])
    return bound


def devices(config: Doc) -> list[str]:
    """Return the node's devices that the task is given."""
    given = config.get("devices") or []
    return [
        f"{one['host_path']}:{one.get('container_path') or one['host_path']}:{one.get('cgroup_permissions') or 'rwm'}"
        for one in given
    ]


def extra_hosts(config: Doc) -> dict[str, str]:
    """Read `name:address`."""
    return dict(str(one).split(":", 1) for one in config.get("extra_hosts") or ())


def capabilities(config: Doc, refuse: Refusal, options: Options) -> list[str]:
    """Return the capabilities that a task has, or refuse those that the operator does not allow."""
    allowed = set(options.docker_allow_caps)
    added, dropped = (
        {str(name).lower().removeprefix("cap_") for name in config.get(key) or ()} for key in ("cap_add", "cap_drop")
    )
    if "all" not in allowed and (missing := sorted(added - allowed)):
        listed = ", ".join(missing)
        raise refuse(f"driver does not allow the following capabilities: {listed}")
    kept = set() if "all" in dropped else (BASIS if "all" in allowed else allowed & BASIS) - dropped
    return sorted(kept | added)


def ulimits(config: Doc) -> list[Ulimit]:
    """Read `nofile = "1024:2048"`."""
    given = first(config.get("ulimit")).items()
    limits = [(name, str(value).partition(":")) for name, value in given]
    return [Ulimit(name=name, soft=int(soft), hard=int(hard or soft)) for name, (soft, _, hard) in limits]


def container_arguments(task: Task, identifier: str, options: Options) -> Doc:
    """Return what the engine is asked for; `identifier` is the image's."""
    config, refuse = task.config, Refusal(str(task.config["image"]), identifier)
    if config.get("privileged") and not options.docker_allow_privileged:
        raise refuse("Docker privileged mode is disabled on this Nomad agent")
    named = [config["command"]] if config.get("command") else []  # without, it is the image's that gets them
    command = [*named, *map(str, config.get("args") or ())] or None
    entrypoint = config.get("entrypoint")
    return {
        **{"image": config["image"], "name": f"{task.name}-{task.allocation}", "command": command, "detach": True},
        **{"entrypoint": entrypoint, "environment": task.environment, "user": task.user or None},
        **{"labels": task.labels | first(config.get("labels")), "cap_drop": ["all"]},
        **{"cap_add": capabilities(config, refuse, options), "privileged": bool(config.get("privileged"))},
        **{"security_opt": config.get("security_opt"), "volumes": volumes(task, refuse, options)},
        **{"mounts": mounts(task, refuse, options), "ports": published(task, refuse)},
        **{"network_mode": config.get("network_mode"), "hostname": config.get("hostname")},
        **{"working_dir": config.get("work_dir"), "init": config.get("init"), "tty": config.get("tty", False)},
        **{"mem_limit": f"{task.resources['MemoryMB']}m", "cpu_shares": max(2, task.resources["CPU"])},
        **{"shm_size": config.get("shm_size"), "read_only": bool(config.get("readonly_rootfs"))},
        **{"pids_limit": config.get("pids_limit"), "sysctls": first(config.get("sysctl")), "devices": devices(config)},
        **{"userns_mode": config.get("userns_mode"), "pid_mode": config.get("pid_mode")},
        **{"runtime": config.get("runtime"), "extra_hosts": extra_hosts(config)},
        **{"ipc_mode": config.get("ipc_mode"), "group_add": config.get("group_add"), "dns": config.get("dns_servers")},
        **{"ulimits": ulimits(config), "log_config": LogConfig(type="json-file")},
    }


def volumes(task: Task, refuse: Refusal, options: Options) -> list[str]:
    own = task.folder
    binds = [f"{own.shared}:/alloc", f"{own.local}:/local", f"{own.secrets}:/secrets", f"{own.logs}:/alloc/logs:ro"]
    for volume in task.config.get("volumes") or ():
        source, _, rest = str(volume).partition(":")
        if not rest:
            raise refuse(f'invalid docker volume "{volume}": invalid volume specification')
        if source.startswith("/") and not options.docker_volumes:
            raise refuse(f'volumes are not enabled; cannot mount host path: "{volume}"')
        binds.append(f"{source}:{rest}" if source.startswith("/") else f"{own.root / source}:{rest}")
    return binds


def mounts(task: Task, refuse: Refusal, options: Options) -> list[Mount]:
    found = []
    given = task.config.get("mount") or task.config.get("mounts") or []
    for mount in given if isinstance(given, list) else [given]:
        kind, source = mount.get("type", "volume"), mount.get("source")
        if kind == "bind" and not options.docker_volumes:
            raise refuse(f'volumes are not enabled; cannot mount host path: "{source}"')
        if kind == "bind" and source and not source.startswith("/"):
            source = str(task.folder.root / source)
        size = first(mount.get("tmpfs_options")).get("size") if kind == "tmpfs" else None
        readonly = bool(mount.get("readonly"))
        found.append(Mount(mount["target"], source, type=kind, read_only=readonly, tmpfs_size=size))
    return found
