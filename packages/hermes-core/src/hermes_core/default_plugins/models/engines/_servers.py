"""The servers of an engine: requests are shared among them, and sent again as far as that helps."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import anyio
import httpx

from hermes_core.config import first_variable
from hermes_core.default_plugins.models._addresses import separated
from hermes_core.default_plugins.models._balance import awake, choose
from hermes_core.default_plugins.models._dumps import Dumps
from hermes_core.default_plugins.models._retries import delay_s, is_passing
from hermes_core.default_plugins.models.engines._server import EngineServer
from hermes_core.exceptions import ModelUnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from hermes_core.default_plugins.models.engines._config import EngineConfig

__all__ = ["EngineServers"]

_LOG = logging.getLogger(__name__)
_ADDRESS_VARIABLES = ("ATROPOS_SERVER_BASE_URL", "LOCAL_LLM_BASE_URL", "LLM_BASE_URL")
_KEY_VARIABLES = ("ATROPOS_SERVER_API_KEY", "LOCAL_LLM_API_KEY", "LLM_API_KEY")  # none of a hosted service


class EngineServers:
    """Clients of the servers that are configured, at least one. An async context manager.

    One that fails is left alone for a while. A conversation stays where it is as long as that server is fine, so that
    its prefix cache is of use.

    Args:
        engine: As errors call it.
        config: Where they are, and how long to wait.
        address: Where one is if nothing is configured.
    """

    def __init__(self, engine: str, config: EngineConfig, address: str) -> None:
        self._config = config
        key = config.api_key.get_secret_value() if config.api_key else first_variable(_KEY_VARIABLES) or ""
        addresses = separated(config.base_url or first_variable(_ADDRESS_VARIABLES) or address)
        dumps = None if config.debug_dir is None else Dumps(config.debug_dir.expanduser())
        self._servers = [EngineServer(engine, each, key, config, dumps) for each in addresses]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Nothing is sent yet."""
        async with AsyncExitStack() as stack:
            for server in self._servers:
                await stack.enter_async_context(server)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._stack.aclose()

    async def ask_all(self, path: str) -> list[tuple[EngineServer, dict[str, Any]]]:
        """What each of them answers a GET with; those that cannot be reached are left out, and it is said.

        Raises:
            ModelUnreachableError: None can be reached.
            ModelResponseError: One refused, or answered with something unusable, or not in time.
        """
        answers: list[tuple[EngineServer, dict[str, Any]]] = []
        missing: list[tuple[EngineServer, ModelUnreachableError]] = []
        for server in self._servers:
            try:
                answer, _ = await self._ask([server], path, lambda each: each.get(path), None)
                answers.append((server, answer))
            except ModelUnreachableError as error:
                missing.append((server, error))
        if not answers:
            raise missing[0][1]
        for server, _ in missing:
            _LOG.warning("nothing answers at %s: it gets no requests for a while", server.url)
        return answers

    async def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Ask any of them for one JSON object; errors as for `complete`."""
        answer, _ = await self._ask(self._servers, path, lambda each: each.post(path, body), None)
        return answer

    async def complete(
        self, path: str, body: Mapping[str, object], before: EngineServer | None
    ) -> tuple[dict[str, Any], EngineServer]:
        """Ask for a completion, again as far as that helps.

        Args:
            path: Where.
            body: What is sent.
            before: Where the conversation's last turn came from.

        Returns:
            The answer, and whose it is.

        Raises:
            ModelUnreachableError: There is no connection.
            ModelResponseError: The server refused, answered with something unusable, or not in time.
            ContextExceededError: The prompt does not fit.
        """
        return await self._ask(self._servers, path, lambda each: each.complete(path, body), before)

    async def _ask(
        self,
        servers: Sequence[EngineServer],
        path: str,
        send: Callable[[EngineServer], Awaitable[httpx.Response]],
        before: EngineServer | None,
    ) -> tuple[dict[str, Any], EngineServer]:
        attempt = 0
        while True:
            last = attempt == self._config.max_retries
            server = choose(servers, before)
            response: httpx.Response | None = None
            try:
                response = await send(server)
            except TimeoutError:
                # A whole deadline is long: only another server may still be worth one.
                if last or attempt or len(servers) == 1:
                    raise server.late(path) from None
            except httpx.HTTPError as error:
                if last:
                    server.failed(0.0)
                    raise server.unreachable(error) from None
            if response is not None and (last or not is_passing(response.status_code, response.text)):
                answer = server.answer(path, response)
                server.succeeded()
                return answer, server
            wait_s = delay_s(attempt, response.headers if response is not None else None)
            server.failed(wait_s)
            attempt += 1
            if not awake(servers):
                await anyio.sleep(wait_s)
