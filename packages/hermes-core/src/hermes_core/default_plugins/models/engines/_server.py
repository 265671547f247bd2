"""Requests to one server of an engine: a deadline for each, what it answers, and our errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx

from hermes_core.default_plugins.models._balance import Health
from hermes_core.default_plugins.models._heartbeat import with_heartbeat
from hermes_core.default_plugins.models._retries import speaks_of_context
from hermes_core.exceptions import ConfigError, ContextExceededError, ModelResponseError, ModelUnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from hermes_core.default_plugins.models._dumps import Dumps
    from hermes_core.default_plugins.models.engines._config import EngineConfig

__all__ = ["EngineServer"]

_SHOWN = 20_000  # characters of an answer


class EngineServer(Health):
    """A client of one server. Each method sends one request, once.

    Args:
        engine: As errors call it.
        address: Where it is.
        key: Sent as a bearer token; "" for none.
        config: How long to wait, and how much to ask at once.
        dumps: Where completions are written down.
    """

    def __init__(self, engine: str, address: str, key: str, config: EngineConfig, dumps: Dumps | None) -> None:
        super().__init__(config.max_concurrency)
        self.engine = engine
        url = address if "://" in address else f"http://{address}"
        self._url = url.rstrip("/").removesuffix("/v1")
        parts = urlsplit(self._url)
        host = parts.netloc.rpartition("@")[2]
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigError(
                f"{address.rpartition('@')[2]!r} is no address of a server", hint="give -M base_url=http://HOST:PORT"
            )
        self.url = urlunsplit(parts._replace(netloc=host))
        """Its address without credentials."""
        self._secrets = [secret for secret in (key, parts.password) if secret]
        self._config = config
        self._places = anyio.Semaphore(config.max_concurrency)
        self._dumps = dumps
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

    async def get(self, path: str) -> httpx.Response:
        """Ask for something; errors as for `complete`."""
        return await self._in_time(lambda: self._http.get(self._url + path))

    async def post(self, path: str, body: Mapping[str, object]) -> httpx.Response:
        """Ask for something; errors as for `complete`."""
        return await self._in_time(lambda: self._http.post(self._url + path, json=body))

    async def complete(self, path: str, body: Mapping[str, object]) -> httpx.Response:
        """Ask for a completion, which may be slow, and is written down if that is wanted.

        Raises:
            httpx.HTTPError: There is no connection.
            TimeoutError: It did not answer in time.
        """
        what = f"{self.engine} at {self.url}"
        with self.asked():
            return await self._in_time(
                lambda: with_heartbeat(lambda: self._written_down(path, body), self._config.heartbeat_s, what)
            )

    def late(self, path: str) -> ModelResponseError:
        """It did not answer in time."""
        return ModelResponseError(
            f"{self.engine} at {self.url} did not answer {path} for {self._config.timeout_s:g} s",
            hint="-M timeout_s=SECONDS waits longer",
        )

    def unreachable(self, error: httpx.HTTPError) -> ModelUnreachableError:
        """There is no connection, or none any more."""
        if isinstance(error, httpx.ConnectError):
            said = f"nothing answers at {self.url}"
        else:
            said = f"the connection to {self.engine} at {self.url} broke: {type(error).__name__}: {error}"
        return ModelUnreachableError(said, hint=f"start {self.engine} there, or name another with --base-url URL")

    def answer(self, path: str, response: httpx.Response) -> dict[str, Any]:
        """The JSON object that it answered with.

        Raises:
            ModelResponseError: It refused, or answered with something unusable.
            ContextExceededError: The prompt does not fit.
        """
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

    async def _in_time(self, send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        async with self._places:
            with anyio.fail_after(self._config.timeout_s):
                return await send()

    async def _written_down(self, path: str, body: Mapping[str, object]) -> httpx.Response:
        if self._dumps is None:
            return await self._http.post(self._url + path, json=body)
        async with self._dumps.of(self.url + path, body, self._without_key) as dump:
            response = await self._http.post(self._url + path, json=body)
            dump.status, dump.answer = response.status_code, response.text
            return response

    def _without_key(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

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
