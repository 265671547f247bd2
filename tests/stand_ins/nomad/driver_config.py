"""What the configuration of a task may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .drivers import DriverError

if TYPE_CHECKING:
    from .documents import Doc

__all__ = ["FailedValidation", "check", "unparsable"]

KNOWN: dict[str, frozenset[str]] = {
    "raw_exec": frozenset(
        {
            *("command", "args", "work_dir", "cgroup_v2_override", "cgroup_v1_override"),
            *("oom_score_adj", "denied_envvars"),
        }
    ),
    "docker": frozenset(
        {
            *("image", "command", "args", "entrypoint", "ports", "volumes", "mount", "mounts", "cap_add", "cap_drop"),
            *("security_opt", "privileged", "network_mode", "hostname", "work_dir", "init", "tty", "labels"),
            *("shm_size", "readonly_rootfs", "pids_limit", "sysctl", "devices", "userns_mode", "pid_mode", "runtime"),
            *("extra_hosts", "force_pull", "auth", "auth_soft_fail", "ulimit", "image_pull_timeout", "logging"),
            *("dns_servers", "dns_options", "dns_search_domains", "ipc_mode", "interactive", "network_aliases"),
            *("cpu_hard_limit", "cpu_cfs_period", "memory_hard_limit", "group_add", "healthchecks", "load"),
            *("advertise_ipv6_address", "ipv4_address", "ipv6_address", "mac_address", "storage_opt", "volume_driver"),
            *("isolation", "uts_mode", "cgroupns", "container_exists_attempts", "cpuset_cpus", "oom_score_adj"),
        }
    ),
}
"""What the configuration of a driver may hold."""


SHAPES = {
    **dict.fromkeys(("args", "ports", "volumes", "cap_add", "cap_drop", "security_opt"), "list of string"),
    **dict.fromkeys(("dns_servers", "extra_hosts", "group_add"), "list of string"),
    **dict.fromkeys(("labels", "ulimit", "sysctl"), "list of map of string"),
}

IGNORED: dict[str, frozenset[str]] = {
    "raw_exec": frozenset({"cgroup_v2_override", "cgroup_v1_override", "oom_score_adj", "denied_envvars"}),
    "docker": frozenset(
        {
            *("auth", "auth_soft_fail", "image_pull_timeout", "logging", "dns_options", "dns_search_domains"),
            *("interactive", "network_aliases", "cpu_hard_limit", "cpu_cfs_period", "memory_hard_limit", "load"),
            *("healthchecks", "advertise_ipv6_address", "ipv4_address", "ipv6_address", "mac_address", "storage_opt"),
            *("volume_driver", "isolation", "uts_mode", "cgroupns", "container_exists_attempts", "cpuset_cpus"),
            "oom_score_adj",
        }
    ),
}
"""What the stand-in would have to ignore, and therefore refuses."""


class FailedValidation(DriverError):
    """The configuration cannot be used; the event is `Failed Validation`."""


def unparsable(why: str) -> FailedValidation:
    """Write what is wrong as the agent nests it."""
    return FailedValidation(f"2 errors occurred:\n\t* failed to parse config: \n\t{why}\n\n")


def fits(value: object, wanted: str) -> bool:
    """Tell whether a value has a shape."""
    if wanted == "string":
        return isinstance(value, str)
    inner = dict if "map" in wanted else str | int | float | bool
    return isinstance(value, list) and all(isinstance(one, inner) for one in value)


def check(driver: str, config: Doc) -> None:
    """Refuse unknown and missing fields."""
    unknown = sorted(set(config) - KNOWN.get(driver, frozenset(config)))
    if unknown:
        raise unparsable(f'* Invalid label: No argument or block type is named "{unknown[0]}".')
    required = {"raw_exec": "command", "docker": "image"}.get(driver)
    if required and required not in config:
        said = f'The argument "{required}" is required, but no definition was found.'
        raise unparsable(f"* Missing required argument: {said}")
    for name, value in config.items():
        wanted = "string" if name == required else SHAPES.get(name)
        if wanted is not None and value is not None and not fits(value, wanted):
            said = f'Inappropriate value for attribute "{name}": {wanted} required.'
            raise unparsable(f"* Incorrect attribute value type: {said}")
    if ignored := sorted(name for name in IGNORED.get(driver, frozenset()) & set(config) if config[name]):
        raise unparsable(f"* The stand-in does not know what {driver} does with {ignored[0]}.")
