"""Task states and their events, in the agent's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .documents import Doc, duration, now, rfc3339

if TYPE_CHECKING:
    from .drivers import Exit

__all__ = ["TaskState", "event", "killing", "restarting", "terminated"]

KEPT = 10
"""Events of a task that are kept."""

UNUSED: Doc = {
    **{"DiskLimit": 0, "DownloadError": "", "DriverError": "", "DriverMessage": "", "ExitCode": 0},
    **{"FailedSibling": "", "FailsTask": False, "GenericSource": "", "KillError": "", "KillReason": ""},
    **{"KillTimeout": 0, "RestartReason": "", "SetupError": "", "Signal": 0, "StartDelay": 0, "TaskSignal": ""},
    **{"TaskSignalReason": "", "ValidationError": "", "VaultError": "", "Message": ""},
}
TEXTS = {
    "Received": "Task received by client",
    "Started": "Task started by client",
    "Downloading Artifacts": "Client is downloading artifacts",
    "Killed": "Task successfully killed",
}


def event(kind: str, text: str | None = None, details: dict[str, str] | None = None, **fields: object) -> Doc:
    """Write one event; the usual text of its kind is known."""
    shown = TEXTS.get(kind, "") if text is None else text
    return {**UNUSED, **fields, "Type": kind, "Time": now(), "DisplayMessage": shown, "Details": details or {}}


def terminated(end: Exit) -> Doc:
    """Write how a task ended."""
    parts = [f"Exit Code: {end.code}"]
    parts += [f"Signal: {end.signal}"] if end.signal else []
    parts += [f'Exit Message: "{end.message}"'] if end.message else []
    details = {"exit_code": str(end.code), "signal": str(end.signal), "oom_killed": "false"}
    if end.message:
        details["exit_message"] = end.message
    return event("Terminated", ", ".join(parts), details, ExitCode=end.code, Signal=end.signal, Message=end.message)


def killing(timeout: int) -> Doc:
    """Write that a task is asked to end; `timeout` in nanoseconds."""
    text = f"Sent interrupt. Waiting {duration(timeout)} before force killing"
    return event("Killing", text, {"kill_timeout": duration(timeout)}, KillTimeout=timeout)


def restarting(reason: str, delay: int) -> Doc:
    """Write that a task is started again after `delay` nanoseconds."""
    text = f"Task restarting in {duration(delay)}"
    details = {"restart_reason": reason, "start_delay": str(delay)}
    shown = text if reason in ("", "Restart within policy") else f"{reason} - {text}"
    return event("Restarting", shown, details, RestartReason=reason, StartDelay=delay)


class TaskState:
    """`TaskStates.<task>` of an allocation."""

    def __init__(self, doc: Doc | None = None) -> None:
        self.doc: Doc = doc or {
            **{"State": "pending", "Failed": False, "Restarts": 0, "LastRestart": None, "StartedAt": None},
            **{"FinishedAt": None, "Events": [], "TaskHandle": None, "Paused": ""},
        }
        self.doc.pop("TaskHandle", None)

    @property
    def state(self) -> str:
        """One of `pending`, `running`, `dead`."""
        return str(self.doc["State"])

    @property
    def started(self) -> bool:
        """Whether it has ever run."""
        return self.doc["StartedAt"] is not None

    def tell(self, happened: Doc) -> None:
        """Append an event; only the latest are kept."""
        self.doc["Events"] = [*self.doc["Events"], happened][-KEPT:]
        if happened["FailsTask"]:
            self.doc["Failed"] = True

    def become(self, state: str) -> None:
        """Change the state."""
        moment = rfc3339(now())
        if state == "running" and self.doc["State"] != "running":
            self.doc["StartedAt"] = moment
        if state == "dead" and self.doc["State"] != "dead":
            self.doc["FinishedAt"] = moment
        self.doc["State"] = state

    def restarted(self) -> None:
        """Count a restart."""
        self.doc["Restarts"] += 1
        self.doc["LastRestart"] = rfc3339(now())
