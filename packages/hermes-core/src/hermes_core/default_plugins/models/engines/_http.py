"""Requests to an engine's server: a deadline for each, a few retries, and our errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx

from hermes_core.default_plugins.models._dumps import Dumps
from hermes_core.default_plugins.models._heartbeat import with_heartbeat
from hermes_core.default_plugins.models._retries import delay_s, is_passing, speaks_of_context
from hermes_core.exceptions import ConfigError, ContextExceededError, ModelResponseError, ModelUnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from hermes_core.default_plugins.models.engines._config import EngineConfig

__all__ = ["EngineServer"]

_SHOWN = 20_000  # characters of an answer


class EngineServer:
    """A client of one server.

    Args:
        engine: As errors call it.
        config: Where it is, and how long to wait.
    """

    def __init__(self, engine: str, config: EngineConfig) -> None:
        self.engine = engine
        url = config.base_url if "://" in config.base_url else f"http://{config.base_url}"
        self._url = url.rstrip("/").removesuffix("/v1")
        parts = urlsplit(self._url)
        host = parts.netloc.rpartition("@")[2]
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigError(
                f"{config.base_url.rpartition('@')[2]!r} is no address of a server",
                hint="give -M base_url=http://HOST:PORT",
            )
        self.url = urlunsplit(parts._replace(netloc=host))
        """Its address without credentials."""
        key = config.api_key.get_secret_value() if config.api_key else ""
        self._secrets = [secret for secret in (key, parts.password) if secret]
        self._config = config
        self._places = anyio.Semaphore(config.max_concurrency)
        self._dumps = None if config.debug_dir is None else Dumps(config.debug_dir.expanduser())
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=None,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=config.max_concurrency),
        )

    async def __aenter__(self) -> Self:
        """Nothing to acquire."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        with anyio.move_on_after(2, shield=True):
            await self._http.aclose()

    async def get(self, path: str) -> dict[str, Any]:
        """Ask for one JSON object; errors as for `complete`."""
        return await self._ask(path, lambda: self._http.get(self._url + path))

    async def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Ask for one JSON object; errors as for `complete`."""
        return await self._ask(path, lambda: self._http.post(self._url + path, json=body))

    async def complete(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Ask for a completion, again as far as that helps; it may be slow, and is written down if that is wanted.

        Raises:
            ModelUnreachableError: There is no connection.
            ModelResponseError: The server refused, answered with something unusable, or not in time.
            ContextExceededError: The prompt does not fit.
        """
        what = f"{self.engine} at {self.url}"
        return await self._ask(
            path, lambda: with_heartbeat(lambda: self._written_down(path, body), self._config.heartbeat_s, what)
        )

    async def _written_down(self, path: str, body: Mapping[str, object]) -> httpx.Response:
        if self._dumps is None:
            return await self._http.post(self._url + path, json=body)
        async with self._dumps.of(self.url + path, body, self._without_key) as dump:
            response = await self._http.post(self._url + path, json=body)
            dump.status, dump.answer = response.status_code, response.text
            return response

    async def _ask(self, path: str, send: Callable[[], Awaitable[httpx.Response]]) -> dict[str, Any]:
        attempt = 0
        while True:
            last = attempt == self._config.max_retries
            response: httpx.Response | None = None
            try:
                async with self._places:
                    with anyio.fail_after(self._config.timeout_s):
                        response = await send()
            except TimeoutError:
                raise ModelResponseError(
                    f"{self.engine} at {self.url} did not answer {path} for {self._config.timeout_s:g} s",
                    hint="-M timeout_s=SECONDS waits longer",
                ) from None
            except httpx.HTTPError as error:
                if last:
                    raise self._unreachable(error) from None
            if response is not None and (last or not is_passing(response.status_code, response.text)):
                return self._object(path, response)
            await anyio.sleep(delay_s(attempt, response.headers if response is not None else None))
            attempt += 1

    def _without_key(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _unreachable(self, error: httpx.HTTPError) -> ModelUnreachableError:
        if isinstance(error, httpx.ConnectError):
            said = f"nothing answers at {self.url}"
        else:
            said = f"the connection to {self.engine} at {self.url} broke: {type(error).__name__}: {error}"
        return ModelUnreachableError(said, hint=f"start {self.engine} there, or name another with --base-url URL")

    def _object(self, path: str, response: httpx.Response) -> dict[str, Any]:
        text = response.text
        if response.status_code != httpx.codes.OK:
            raise self._refusal(path, response.status_code, text)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            raise ModelResponseError(
                f"{self.engine} answered {path} with something that is not JSON: {self._excerpt(text)}",
                hint=f"see that {self.engine} itself listens at {self.url}",
            ) from None
        if not isinstance(answer, dict):
            raise ModelResponseError(
                f"{self.engine} answered {path} with something that is no object: {self._excerpt(text)}"
            )
        if answer.get("error"):
            raise self._refusal(path, response.status_code, text)
        return answer

    def _refusal(self, path: str, status: int, text: str) -> ModelResponseError | ContextExceededError:
        said = self._excerpt(text)
        if status in (200, 400, 413, 422, 500) and speaks_of_context(text):
            return ContextExceededError(f"{self.engine}: {said}")
        hints = {
            401: "give -M api_key=KEY",
            403: "give -M api_key=KEY",
            404: f"see that {self.engine} itself listens at {self.url}",
        }
        return ModelResponseError(f"{self.engine} answered {path} with {status}: {said}", hint=hints.get(status))

    def _excerpt(self, text: str) -> str:
        line = " ".join(self._without_key(text).split())
        return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
