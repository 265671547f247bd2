"""The decorator `@tool`."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import anyio
import anyio.lowlevel
import anyio.to_thread

from hermes_core.exceptions import ToolError
from hermes_core.execution import ToolDefinition
from hermes_core.tools._schema import read_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from hermes_core.execution import JsonValue, Slot, ToolContext

__all__ = ["FunctionTool", "Need", "tool"]

Need = Literal["network"]

THREADS = 40
"""Synchronous tools that run at once, of all trajectories of one event loop."""


class FunctionTool:
    """A tool made from a function; still callable as the function that it was.

    Args:
        function: Typed and documented; sync (run in a thread) or async.
        name: Its name for the model; the function's own by default.
        requires_env: Environment variables of the host that must be set.
        timeout_s: Seconds that one call may take.
        available: Called to ask whether the tool can be used now; False or a reason (a string) means no.
        needs: What its slot must have; `network` means a slot with network `host`.
        ignores: Arguments that a model may send and that are dropped unseen (policy is not the model's to set).
        aliases: Further names that a model may call it by; they are not advertised.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *,
        name: str | None = None,
        requires_env: Collection[str] = (),
        timeout_s: float = 30.0,
        available: Callable[[], bool | str] | None = None,
        needs: Collection[Need] = (),
        ignores: Collection[str] = (),
        aliases: Collection[str] = (),
    ) -> None:
        self._function = function
        self._signature = read_signature(function)
        self._requires_env = tuple(requires_env)
        self._available = available
        self._needs = frozenset(needs)
        self._ignores = frozenset(ignores)
        self.aliases = tuple(aliases)
        self.timeout_s = timeout_s
        self.definition = ToolDefinition(
            name or function.__name__, self._signature.description, self._signature.schema()
        )
        self.__doc__ = function.__doc__

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call the function as it is."""
        return self._function(*args, **kwargs)

    @property
    def needs_slot(self) -> bool:
        """Whether the function takes a `Slot`."""
        return self._signature.slot is not None

    def unavailable(self) -> str | None:
        """Why it cannot be used now, or None."""
        missing = [variable for variable in self._requires_env if not os.environ.get(variable)]
        if missing:
            return f"set {', '.join(missing)} in the environment"
        if self._available is None:
            return None
        answer = self._available()
        if answer is True:
            return None
        return answer if isinstance(answer, str) and answer else "not available on this machine"

    async def run(self, arguments: Mapping[str, JsonValue], context: ToolContext, slot: Slot | None) -> JsonValue:
        """Validate the arguments and call the function."""
        values = self._validated(arguments)
        if self._signature.slot is not None:
            if slot is None:
                raise ToolError(f"{self.definition.name} works in a sandbox, and this trajectory has none")
            if "network" in self._needs and slot.network == "none":
                raise ToolError(f"{self.definition.name} needs the network, and this sandbox has none")
            values[self._signature.slot] = slot
        if self._signature.context is not None:
            values[self._signature.context] = context
        if inspect.iscoroutinefunction(self._function):
            return cast("JsonValue", await self._function(**values))
        return await anyio.to_thread.run_sync(
            lambda: cast("JsonValue", self._function(**values)), abandon_on_cancel=True, limiter=_thread_limiter()
        )

    def _validated(self, arguments: Mapping[str, JsonValue]) -> dict[str, Any]:
        from pydantic import ValidationError

        kept = {name: value for name, value in arguments.items() if name not in self._ignores}
        try:
            model = self._signature.arguments.model_validate(kept)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ToolError(f"invalid arguments for {self.definition.name}: {faults}") from None
        return {name: getattr(model, name) for name in self._signature.arguments.model_fields}


_limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("hermes_tool_threads")


def _thread_limiter() -> anyio.CapacityLimiter:
    """A limiter of the tools' own, so that slow tools cannot starve the threads that others need."""
    try:
        return _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
        return limiter


@overload
def tool(function: Callable[..., object], /) -> FunctionTool: ...


@overload
def tool(
    *,
    name: str | None = None,
    requires_env: Collection[str] = (),
    timeout_s: float = 30.0,
    available: Callable[[], bool | str] | None = None,
    needs: Collection[Need] = (),
    ignores: Collection[str] = (),
    aliases: Collection[str] = (),
) -> Callable[[Callable[..., object]], FunctionTool]: ...


def tool(function: Callable[..., object] | None = None, /, **options: Any) -> object:
    """Turn a typed, documented function into a tool.

    The description and the arguments' descriptions come from the Google-style docstring, the schema from the
    annotations. A parameter annotated `Slot` is injected and makes it a sandbox tool; a `ToolContext` parameter is
    injected as well; neither is in the schema. It returns a string or a JSON value; an exception becomes an error
    result.

        @tool
        async def word_count(path: str, slot: Slot) -> int:
            '''Count the words of a file.'''
            return len((await slot.read_file(path)).split())

    Args:
        function: What becomes a tool, when the decorator has no options.
        **options: Those of `FunctionTool`.
    """
    if function is not None:
        return FunctionTool(function)
    return lambda decorated: FunctionTool(decorated, **options)
