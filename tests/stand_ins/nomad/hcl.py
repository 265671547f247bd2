"""Job specifications in HCL, read into what the API takes: the common blocks."""

from __future__ import annotations

import re
from typing import Any

import hcl2
from hcl2.utils import SerializationOptions
from lark.exceptions import LarkError

from .documents import Doc, RequestError

__all__ = ["parse_job"]

OPTIONS = SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)
UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
HEREDOC = re.compile(r"<<(-?)(\w+)\n(.*?)\n?[ \t]*\2\s*", re.DOTALL)

JOB = {
    **{"type": "Type", "region": "Region", "namespace": "Namespace", "priority": "Priority", "name": "Name"},
    **{"datacenters": "Datacenters", "node_pool": "NodePool", "all_at_once": "AllAtOnce", "id": "ID"},
}
RESTART = {
    **{"attempts": "Attempts", "mode": "Mode", "delay": "Delay", "interval": "Interval", "unlimited": "Unlimited"},
    **{"delay_function": "DelayFunction", "max_delay": "MaxDelay", "render_templates": "RenderTemplates"},
}
TASK = {
    **{"driver": "Driver", "user": "User", "kill_timeout": "KillTimeout", "kill_signal": "KillSignal"},
    **{"leader": "Leader", "shutdown_delay": "ShutdownDelay"},
}
TEMPLATE = {
    **{"data": "EmbeddedTmpl", "destination": "DestPath", "env": "Envvars", "change_mode": "ChangeMode"},
    **{"change_signal": "ChangeSignal", "perms": "Perms", "uid": "Uid", "gid": "Gid", "source": "SourcePath"},
    **{"left_delimiter": "LeftDelim", "right_delimiter": "RightDelim", "splay": "Splay", "once": "Once"},
}
RESOURCES = {
    **{"cpu": "CPU", "cores": "Cores", "memory": "MemoryMB", "memory_max": "MemoryMaxMB", "disk": "DiskMB"},
}
ARTIFACT = {"source": "GetterSource", "destination": "RelativeDest", "mode": "GetterMode"}
VOLUME = {
    **{"type": "Type", "source": "Source", "read_only": "ReadOnly", "access_mode": "AccessMode"},
    **{"attachment_mode": "AttachmentMode", "per_alloc": "PerAlloc", "sticky": "Sticky"},
}
MOUNT = {"volume": "Volume", "destination": "Destination", "read_only": "ReadOnly"}
LOGS = {"max_files": "MaxFiles", "max_file_size": "MaxFileSizeMB", "disabled": "Disabled"}
DISK = {"size": "SizeMB", "sticky": "Sticky", "migrate": "Migrate"}
DURATIONS = {"KillTimeout", "ShutdownDelay", "Delay", "Interval", "MaxDelay", "Splay"}


def nanoseconds(value: Any) -> int:
    """Read `1m30s`."""
    if isinstance(value, int):
        return value
    return int(sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ns|us|ms|s|m|h)", value)))


def plain(value: Any, variables: dict[str, Any]) -> Any:
    """Undo what the parser keeps of the text: heredocs, and references to variables with defaults."""
    if isinstance(value, dict):
        return {key: plain(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one, variables) for one in value]
    if not isinstance(value, str):
        return value
    if found := HEREDOC.fullmatch(value):
        lines = found[3].split("\n")
        if found[1]:
            indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
            lines = [line[indent:] for line in lines]
        return "\n".join(lines) + "\n"
    if (found := re.fullmatch(r"\$\{var\.(\w+)\}", value)) and found[1] in variables:
        return variables[found[1]]
    return re.sub(r"\$\{var\.(\w+)\}", lambda one: str(variables.get(one[1], one[0])), value)


def renamed(block: Doc, names: dict[str, str], within: str) -> Doc:
    """Give the fields of a block their names in the API; others are refused."""
    for key in block:
        if key not in names:
            raise failure(f'Unsupported argument; An argument named "{key}" is not expected in {within}.')
    found = {names[key]: value for key, value in block.items()}
    return {key: nanoseconds(value) if key in DURATIONS else value for key, value in found.items()}


def failure(why: str) -> RequestError:
    return RequestError(400, f"Failed to parse job: input.hcl: {why}")


def take(block: Doc, name: str) -> list[Doc]:
    """Take the blocks of one name out of a block."""
    given = block.pop(name, None)
    return [] if given is None else list(given) if isinstance(given, list) else [given]


def merged(block: Doc, name: str) -> Doc | None:
    """Take a table that may be written as one or more blocks, or as an attribute."""
    found: Doc = {}
    for one in take(block, name):
        found |= one
    return found or None


def labelled(block: Doc, name: str) -> list[tuple[str, Doc]]:
    """Take the blocks of one name that have a label."""
    return [(label, dict(body)) for one in take(block, name) for label, body in one.items()]


def rules(block: Doc) -> Doc:
    """Take constraints and affinities."""
    found: Doc = {}
    for name, key in (("constraint", "Constraints"), ("affinity", "Affinities")):
        written = [rule(one) for one in take(block, name)]
        if written:
            found[key] = written
    return found


def rule(block: Doc) -> Doc:
    """Read a constraint; `regexp = "x"` is short for an operator and a value."""
    operator, value = block.get("operator", "="), block.get("value", "")
    for short in ("regexp", "version", "semver", "set_contains", "set_contains_any"):
        if short in block:
            operator, value = short, block[short]
    for short in ("distinct_hosts", "is_set", "is_not_set"):
        operator = short if block.get(short) else operator
    found = {"LTarget": block.get("attribute", ""), "RTarget": str(value), "Operand": operator}
    return found | ({"Weight": block["weight"]} if "weight" in block else {})


def single(block: Doc, name: str, names: dict[str, str]) -> Doc | None:
    """Take a block that occurs at most once."""
    given = take(block, name)
    return renamed(given[0], names, name) if given else None


def network(block: Doc) -> Doc:
    """Read a network with its ports."""
    found: Doc = {"Mode": block.get("mode", ""), "DynamicPorts": [], "ReservedPorts": []}
    for label, port in labelled(dict(block), "port"):
        written = {"Label": label, "Value": port.get("static", 0), "To": port.get("to", 0)}
        written["HostNetwork"] = port.get("host_network", "")
        found["ReservedPorts" if written["Value"] else "DynamicPorts"].append(written)
    return {key: value or None for key, value in found.items()} | {"Mode": found["Mode"]}


def resources(block: Doc) -> Doc:
    """Read what a task needs."""
    devices = []
    for name, device in labelled(block, "device"):
        devices.append({"Name": name, "Count": device.get("count", 1), **rules(device)})
    return {**renamed(block, RESOURCES, "resources"), "Devices": devices or None}


def artifact(block: Doc) -> Doc:
    """Read an artifact."""
    options, headers = merged(block, "options"), merged(block, "headers")
    return {**renamed(block, ARTIFACT, "artifact"), "GetterOptions": options, "GetterHeaders": headers}


def task(name: str, block: Doc) -> Doc:
    """Read a task."""
    found: Doc = {"Name": name, **rules(block)}
    found["Config"] = merged(block, "config") or {}
    found |= {"Env": merged(block, "env"), "Meta": merged(block, "meta")}
    found["Templates"] = [renamed(one, TEMPLATE, "template") for one in take(block, "template")] or None
    found["Artifacts"] = [artifact(one) for one in take(block, "artifact")] or None
    found["VolumeMounts"] = [renamed(one, MOUNT, "volume_mount") for one in take(block, "volume_mount")] or None
    given = take(block, "resources")
    found["Resources"] = resources(given[0]) if given else None
    found["LogConfig"] = single(block, "logs", LOGS)
    found["RestartPolicy"] = single(block, "restart", RESTART)
    return found | renamed(block, TASK, "task")


def group(name: str, block: Doc) -> Doc:
    """Read a task group."""
    found: Doc = {"Name": name, **rules(block), "Meta": merged(block, "meta")}
    found["Networks"] = [network(one) for one in take(block, "network")] or None
    volumes = {label: {"Name": label, **renamed(one, VOLUME, "volume")} for label, one in labelled(block, "volume")}
    found["Volumes"] = volumes or None
    found["EphemeralDisk"] = single(block, "ephemeral_disk", DISK)
    found["RestartPolicy"] = single(block, "restart", RESTART)
    found["ReschedulePolicy"] = single(block, "reschedule", RESTART)
    found["Tasks"] = [task(label, one) for label, one in labelled(block, "task")]
    return found | renamed(block, {"count": "Count", "shutdown_delay": "ShutdownDelay"}, "group")


def parse_job(text: str) -> Doc:
    """Parse one job."""
    try:
        document = hcl2.loads(text + "\n", serialization_options=OPTIONS)
    except LarkError as error:
        raise failure(" ".join(str(error).split())) from error
    variables = {name: plain(one.get("default"), {}) for name, one in labelled(document, "variable")}
    jobs = labelled(plain(document, variables), "job")
    if len(jobs) != 1:
        raise failure("Missing job block; A job block is required.")
    name, block = jobs[0]
    found: Doc = {"ID": name, "Name": name, **rules(block), "Meta": merged(block, "meta")}
    restart, reschedule = single(block, "restart", RESTART), single(block, "reschedule", RESTART)
    found["TaskGroups"] = [group(label, one) for label, one in labelled(block, "group")]
    for one in found["TaskGroups"]:
        one["RestartPolicy"] = one["RestartPolicy"] or restart
        one["ReschedulePolicy"] = one["ReschedulePolicy"] or reschedule
    return found | renamed(block, JOB, "job")
