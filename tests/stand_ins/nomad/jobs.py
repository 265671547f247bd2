"""Registration: defaults of a job specification, what is refused, and how jobs are listed."""

from __future__ import annotations

from typing import Any

from .documents import Doc, RequestError

__all__ = ["canonical", "check", "stub", "summary"]

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
RESTARTS: dict[str, Doc] = {
    "batch": {"Attempts": 3, "Delay": 15 * SECOND, "Interval": DAY, "Mode": "fail", "RenderTemplates": False},
    "service": {"Attempts": 2, "Delay": 15 * SECOND, "Interval": 1800 * SECOND, "Mode": "fail"},
}
RESCHEDULES: dict[str, Doc] = {
    "batch": {
        **{"Attempts": 1, "Interval": DAY, "Delay": 5 * SECOND},
        **{"DelayFunction": "constant", "MaxDelay": 0, "Unlimited": False},
    },
    "service": {
        **{"Attempts": 0, "Interval": 0, "Delay": 30 * SECOND},
        **{"DelayFunction": "exponential", "MaxDelay": 3600 * SECOND, "Unlimited": True},
    },
}
TEMPLATE: Doc = {
    **{"ChangeMode": "restart", "ChangeSignal": "", "DestPath": "", "EmbeddedTmpl": "", "Envvars": False},
    **{"Gid": None, "LeftDelim": "{{", "Once": False, "Perms": "0644", "RightDelim": "}}", "SourcePath": ""},
    **{"Splay": 5 * SECOND, "Uid": None, "ErrMissingKey": False},
}


def defaults(doc: Doc, **values: Any) -> Doc:
    """Fill what is missing or null."""
    for key, value in values.items():
        if doc.get(key) is None:
            doc[key] = value
    return doc


def over(usual: Doc, given: Doc | None) -> Doc:
    """Put what is given over what is usual; null means nothing is given."""
    return usual | {key: value for key, value in (given or {}).items() if value is not None}


def canonical(job: Doc, node_pool: str = "default") -> Doc:
    """Fill the defaults of a job specification in place."""
    defaults(job, Name=job.get("ID"), Namespace="default", Type="service", Priority=50, Region="global")
    defaults(job, Datacenters=["*"], NodePool=node_pool, Meta=None, Stop=False, ParentID="", AllAtOnce=False)
    defaults(job, Constraints=None, Affinities=None, Spreads=None, TaskGroups=[], Version=0, Dispatched=False)
    for group in job["TaskGroups"] or ():
        canonical_group(group, job["Type"])
    return job


def canonical_group(group: Doc, kind: str) -> None:
    """Fill the defaults of a task group."""
    defaults(group, Count=1, Constraints=None, Affinities=None, Meta=None, Networks=None, Volumes=None, Tasks=[])
    group["RestartPolicy"] = over(RESTARTS.get(kind, RESTARTS["batch"]), group.get("RestartPolicy"))
    group["ReschedulePolicy"] = over(RESCHEDULES.get(kind, RESCHEDULES["batch"]), group.get("ReschedulePolicy"))
    group["EphemeralDisk"] = over({"Migrate": False, "SizeMB": 300, "Sticky": False}, group.get("EphemeralDisk"))
    for network in group["Networks"] or ():
        network["Mode"] = network.get("Mode") or "host"
        for key in ("DynamicPorts", "ReservedPorts"):
            ports = network.get(key) or ()
            network[key] = [{"HostNetwork": "default"} | {k: v for k, v in port.items() if v} for port in ports] or None
    for task in group["Tasks"] or ():
        defaults(task, Config=None, Env=None, Meta=None, Templates=None, Artifacts=None, Constraints=None, User="")
        defaults(task, KillTimeout=5 * SECOND, KillSignal="", Leader=False, Driver="", VolumeMounts=None)
        usual = {"CPU": 100, "MemoryMB": 300, "Cores": 0, "DiskMB": 0}
        task["Resources"] = over(usual, task.get("Resources"))
        usual = {"MaxFiles": 10, "MaxFileSizeMB": 10, "Disabled": False}
        task["LogConfig"] = over(usual, task.get("LogConfig"))
        task["RestartPolicy"] = over(group["RestartPolicy"], task.get("RestartPolicy"))
        task["Templates"] = [over(TEMPLATE, template) for template in task["Templates"] or ()] or None


def refuse(*within: str, says: str) -> RequestError:
    """Write one fault as the agent nests them: `within` names what it is in, from the outside."""
    for around in reversed(("", *within)):
        says = f"{around}1 error occurred:\n\t* {says}\n\n"
    return RequestError(500, says)


def check(job: Doc, namespaces: tuple[str, ...], pools: tuple[str, ...]) -> None:
    """Refuse what the agent refuses at registration."""
    if " " in job["ID"]:
        raise refuse(says="Job ID contains a space")
    if job["Namespace"] not in namespaces:
        raise refuse(says=f'job "{job["ID"]}" is in nonexistent namespace "{job["Namespace"]}"')
    if job["NodePool"] not in pools:
        raise refuse(says=f'job "{job["ID"]}" is in nonexistent node pool "{job["NodePool"]}"')
    if job["Type"] not in ("batch", "service"):
        raise refuse(says=f'Invalid job type: "{job["Type"]}"')
    if not job["TaskGroups"]:
        raise refuse(says="Missing job task groups")
    for group in job["TaskGroups"]:
        check_group(group)


def check_group(group: Doc) -> None:
    """Refuse a faulty task group."""
    if not group.get("Name"):
        raise refuse(says="Job task group 1 missing name")
    within = f"Task group {group['Name']} validation failed: "
    if not group["Tasks"]:
        raise refuse(within, says="Missing tasks for task group")
    labels = [port["Label"] for network in group["Networks"] or () for port in network["DynamicPorts"] or ()]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        network = "Task group network validation failed: "
        raise refuse(within, network, says=f"Port label {twice} already in use by taskgroup network")
    for task in group["Tasks"]:
        check_task(task, group["EphemeralDisk"]["SizeMB"], within)


def check_task(task: Doc, disk: int, group: str) -> None:
    """Refuse a faulty task."""
    if not task.get("Name"):
        raise refuse(group, says="Task 1 missing name")
    within = (group, f"Task {task['Name']} validation failed: ")
    if "/" in task["Name"]:
        raise refuse(*within, says="Task name cannot include slashes")
    if not task["Driver"]:
        raise refuse(*within, says="Missing task driver")
    for limit, least in (("CPU", 1), ("MemoryMB", 10)):
        if task["Resources"][limit] < least:
            says = f"minimum {limit} value is {least}; got {task['Resources'][limit]}"
            raise refuse(*within, "", "", says=says)
    logs = task["LogConfig"]["MaxFiles"] * task["LogConfig"]["MaxFileSizeMB"]
    if not task["LogConfig"]["Disabled"] and disk <= logs:
        says = f"log storage ({logs} MB) must be less than requested disk capacity ({disk} MB)"
        raise refuse(*within, "", says=says)


def summary(job: Doc, allocations: list[Doc], queued: dict[str, int]) -> Doc:
    """Count the allocations of each group."""
    groups: Doc = {}
    for group in job["TaskGroups"] or ():
        counted = dict.fromkeys(("Queued", "Complete", "Failed", "Running", "Starting", "Lost", "Unknown"), 0)
        counted["Queued"] = queued.get(group["Name"], 0)
        for allocation in allocations:
            if allocation["TaskGroup"] == group["Name"]:
                status = allocation["ClientStatus"].capitalize()
                counted["Starting" if status == "Pending" else status] += 1
        groups[group["Name"]] = counted
    return {
        **{"JobID": job["ID"], "Namespace": job["Namespace"], "Summary": groups},
        **{"Children": {"Pending": 0, "Running": 0, "Dead": 0}},
        **{"CreateIndex": job["CreateIndex"], "ModifyIndex": job["ModifyIndex"]},
    }


def stub(job: Doc, counted: Doc, *, meta: bool) -> Doc:
    """Show a job as lists do: without groups, and with `Meta` only if asked for."""
    keys = ("ID", "ParentID", "Name", "Namespace", "Datacenters", "NodePool", "Type", "Priority", "Stop", "Status")
    shown = {key: job.get(key) for key in keys}
    shown |= {"StatusDescription": "", "Periodic": False, "ParameterizedJob": False, "JobSummary": counted}
    shown |= {key: job.get(key) for key in ("CreateIndex", "ModifyIndex", "JobModifyIndex", "SubmitTime")}
    if meta and job.get("Meta"):
        shown["Meta"] = job["Meta"]
    return shown
