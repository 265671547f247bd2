"""The way to one endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import anyio
import openai

from hermes_core.default_plugins.models._balance import Health
from hermes_core.default_plugins.models._dumps import Dump
from hermes_core.default_plugins.models._heartbeat import with_heartbeat
from hermes_core.default_plugins.models.openai._errors import answer_of, mapped_errors, unreachable
from hermes_core.default_plugins.models.openai._stream import assembled
from hermes_core.default_plugins.models.openai._wire import UnusableAnswerError, listed_models
from hermes_core.exceptions import ModelError

if TYPE_CHECKING:
    from types import TracebackType

    from hermes_core.default_plugins.models._dumps import Dumps
    from hermes_core.default_plugins.models.openai._config import Endpoint, OpenAIConfig, Pace

__all__ = ["Connection"]

_LOOK_S = 10.0
_CONNECT_S = 10.0


class Connection(Health):
    """Requests to one endpoint, a bounded number at once, and how it fares. An async context manager.

    The SDK's own retries are off, because they do not count towards a deadline for each attempt.
    """

    def __init__(self, endpoint: Endpoint, config: OpenAIConfig, pace: Pace, dumps: Dumps | None) -> None:
        super().__init__(config.max_concurrency)
        self.endpoint = endpoint
        self.model = endpoint.model or ""
        self.listed: list[str] = []
        self._config = config
        self._pace = pace
        self._dumps = dumps
        self._client: openai.AsyncOpenAI | None = None
        self._places: anyio.Semaphore

    async def __aenter__(self) -> Self:
        """Make room for requests; nothing is sent."""
        timeout_s = self._pace.timeout_s
        self._places = anyio.Semaphore(self._config.max_concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=self.endpoint.base_url,
            api_key=self.endpoint.key.get_secret_value(),
            timeout=openai.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            max_retries=0,
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            with anyio.move_on_after(2, shield=True):
                await client.close()

    async def look(self) -> None:
        """See that it answers, and choose the first model that it lists if none is named.

        Raises:
            ModelUnreachableError: Nothing answers.
            ModelResponseError: It refuses the key.
        """
        try:
            with anyio.fail_after(_LOOK_S):
                answer = await self._opened().models.with_raw_response.list()
            self.listed = listed_models(answer.http_response.text)
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                with mapped_errors(self.endpoint):
                    raise
            return  # it answers, and need not list its models
        except (TimeoutError, openai.APIConnectionError):
            raise unreachable([self.endpoint]) from None
        self.model = self.model or next(iter(self.listed), "")

    async def post(self, request: dict[str, object]) -> str:
        """Ask for a completion; returns the answer's body, without the key if it repeats it.

        Raises:
            openai.OpenAIError: The request failed.
            UnusableAnswerError: The answer broke off.
            TimeoutError: It took too long.
        """
        with self.asked():
            async with self._places:
                what = f"{self.model} at {self.endpoint.shown}"
                return await with_heartbeat(lambda: self._in_time(request), self._pace.heartbeat_s, what)

    async def _in_time(self, request: dict[str, object]) -> str:
        request = {"model": self.model, **request}
        if self._config.stream:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        if self._dumps is None:
            return await self._sent(request, Dump())
        url, body = f"{self.endpoint.shown}/chat/completions", {**request, **self._config.extra_body}
        async with self._dumps.of(url, body, self.endpoint.without_key) as dump:
            return await self._sent(request, dump)

    async def _sent(self, request: dict[str, object], dump: Dump) -> str:
        try:
            with anyio.fail_after(self._pace.timeout_s):
                dump.answer = await (self._streamed(request) if self._config.stream else self._whole(request))
        except openai.APIStatusError as error:
            dump.status, dump.answer = error.status_code, answer_of(error)
            raise
        dump.status = 200
        return self.endpoint.without_key(dump.answer)

    async def _whole(self, request: dict[str, object]) -> str:
        # Reads the raw body: what is wrong with an answer is ours to say, and what the SDK does not know is not lost.
        completions = cast("Any", self._opened().chat.completions.with_raw_response)
        answer = await completions.create(extra_body=self._config.extra_body or None, **request)
        return cast("str", answer.http_response.text)

    async def _streamed(self, request: dict[str, object]) -> str:
        completions = cast("Any", self._opened().chat.completions.with_streaming_response)
        async with completions.create(extra_body=self._config.extra_body or None, **request) as answer:
            try:
                if "text/event-stream" not in answer.headers.get("content-type", ""):
                    return cast("str", await answer.text())  # an endpoint that does not stream, or no completion at all
                return await assembled(answer.iter_lines())
            except (UnusableAnswerError, openai.OpenAIError):
                raise
            except Exception as error:
                # What kind of error a broken connection is depends on the SDK's HTTP library.
                raise UnusableAnswerError(f"the stream broke: {error}") from error

    def _opened(self) -> openai.AsyncOpenAI:
        if self._client is None:
            raise ModelError("the openai model is not open", hint="enter it first: async with model")
        return self._client
