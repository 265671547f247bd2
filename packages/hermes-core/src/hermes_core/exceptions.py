"""Every error that Hermes raises.

::

    HermesError                      one line, and a hint when there is something to do
    ├── UsageError                   what was asked for cannot be done (exit code 2)
    │   ├── ConfigError              a setting is missing, unknown or malformed
    │   ├── UnknownNameError         no plugin registers that name
    │   ├── RunDirectoryError        the output folder belongs to another run, or is in use
    │   └── LeaseStateError          a slot was used after its lease ended
    ├── PluginError                  a plugin package is at fault
    │   ├── PluginLoadError          it could not be imported, or a hook of it failed
    │   └── DuplicateNameError       two distributions register the same name
    ├── SandboxError                 infrastructure: never the agent's doing, never a reward
    │   ├── BackendUnavailableError  the backend cannot start sandboxes here
    │   ├── NoCapacityError          the place where sandboxes run is full
    │   ├── SandboxLostError         a daemon, container or node went away
    │   ├── ProtocolError            a peer does not speak the sandbox protocol
    │   └── LeaseTimeoutError        no slot became free in time
    ├── SlotError                    inside one slot while its daemon answers: the agent's doing
    │   ├── SlotDeadError            the slot was killed, wedged, or breached a limit
    │   ├── SlotFileError            a file request could not be served (not found, too large, …)
    │   └── SlotJobError             a background process cannot be started, or fed, or is unknown
    ├── ToolError                    a tool call failed; told to the model as an error result
    ├── ModelError                   a model endpoint misbehaved: infrastructure
    │   ├── ModelUnreachableError    nothing answers there
    │   ├── ModelResponseError       it answered with an error, or with something unusable
    │   └── TokenDataError           token ids or logprobs are missing or impossible
    ├── ContextExceededError         the conversation no longer fits the model's context
    └── EnvironmentFault             an environment's own code failed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BackendUnavailableError",
    "ConfigError",
    "ContextExceededError",
    "DuplicateNameError",
    "EnvironmentFault",
    "HermesError",
    "LeaseStateError",
    "LeaseTimeoutError",
    "ModelError",
    "ModelResponseError",
    "ModelUnreachableError",
    "NoCapacityError",
    "PluginError",
    "PluginLoadError",
    "ProtocolError",
    "RunDirectoryError",
    "SandboxError",
    "SandboxLostError",
    "SlotDeadError",
    "SlotError",
    "SlotFileError",
    "SlotJobError",
    "TokenDataError",
    "ToolError",
    "UnknownNameError",
    "UsageError",
]


class HermesError(Exception):
    """Root of all errors of Hermes.

    Args:
        message: One line that says what went wrong.
        hint: One line that says what to do about it, if anything is known to help.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HermesError):
    """What was asked for cannot be done; nothing was started."""


class ConfigError(UsageError):
    """A setting is missing, unknown or malformed."""


class UnknownNameError(UsageError):
    """No installed plugin registers a name.

    Args:
        kind: What was looked for, in the singular ("backend", "model").
        name: The name that was asked for.
        known: The names that are registered.
        hint: Where the name may come from; the known names when not given.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str | None = None) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        listing = ", ".join(self.known) or "none"
        super().__init__(f"unknown {kind} {name!r}", hint=hint or f"registered: {listing}")


class RunDirectoryError(UsageError):
    """The output folder belongs to a different run, is in use, or cannot be written."""


class LeaseStateError(UsageError):
    """A slot was used after its lease had ended."""


class PluginError(HermesError):
    """A plugin package is at fault."""


class PluginLoadError(PluginError):
    """A plugin could not be imported, is malformed, or one of its hooks raised."""


class DuplicateNameError(PluginError):
    """Two distributions register the same name."""

    def __init__(self, kind: str, name: str, first: str, second: str) -> None:
        super().__init__(
            f"{kind} {name!r} is registered by both {first} and {second}",
            hint=f"uninstall one of them: pip uninstall {second}",
        )


class SandboxError(HermesError):
    """Infrastructure failed: never the agent's doing, never a reward."""


class BackendUnavailableError(SandboxError):
    """The backend cannot start sandboxes here; the message says why, the hint what to change."""


class NoCapacityError(SandboxError):
    """The place where sandboxes run is full, or has no node left that may take one."""


class SandboxLostError(SandboxError):
    """A daemon, container or node went away, and with it the outcome of what ran there."""


class ProtocolError(SandboxError):
    """A peer does not speak the sandbox protocol."""


class LeaseTimeoutError(SandboxError):
    """No slot became free within the time that the caller was ready to wait."""


class SlotError(HermesError):
    """Something failed inside one slot while its daemon still answers."""


class SlotDeadError(SlotError):
    """The slot was killed from inside, wedged, or breached a limit.

    Args:
        limit: The breached limit, if one is known.
    """

    def __init__(self, message: str, *, limit: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class SlotFileError(SlotError):
    """A file request could not be served.

    Args:
        kind: `not_found`, `is_directory`, `not_a_file`, `permission_denied`, `too_large`, `no_space`, `bad_archive` (it
            is none, or hostile) or `interrupted` (what did the work was ended from inside the slot).
    """

    def __init__(self, message: str, *, kind: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class SlotJobError(SlotError):
    """A request about a background process could not be served.

    Args:
        kind: `cannot_start`, `too_many_jobs`, `unknown_job`, `input_closed` or `no_terminal`.
        exit_code: What a shell would report of a program that cannot be started, 126 or 127; None for other kinds.
    """

    def __init__(self, message: str, *, kind: str, exit_code: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.exit_code = exit_code


class ToolError(HermesError):
    """A tool call failed; the model is told so as an error result."""


class ModelError(HermesError):
    """A model endpoint misbehaved; the trajectory is not scored."""


class ModelUnreachableError(ModelError):
    """Nothing answers at the model's address."""


class ModelResponseError(ModelError):
    """The endpoint answered with an error, or with something that cannot be used."""


class TokenDataError(ModelError):
    """Token ids or logprobs are missing, of unequal length, NaN or positive."""


class ContextExceededError(HermesError):
    """The conversation no longer fits the model's context: the agent's doing, and scored."""


class EnvironmentFault(HermesError):
    """An environment's own code failed in set-up or scoring."""
