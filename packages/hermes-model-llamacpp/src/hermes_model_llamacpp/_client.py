"""llama.cpp's own HTTP API: token ids in, token ids out."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import anyio
import httpx

from hermes_core.exceptions import (
    ContextExceededError,
    HermesError,
    ModelResponseError,
    ModelUnreachableError,
    TokenDataError,
)
from hermes_core.models.tokens import LlamaTokenizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from types import TracebackType

__all__ = ["LlamaClient", "SampledToken", "Streamed"]

_BODY_SHOWN = 500


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One token as the server streamed it.

    Attributes:
        position: 0-based index within the completion.
        id: Its id.
        logprob: Natural log of its probability in the model's own distribution.
    """

    position: int
    id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Streamed:
    """A completion as it was streamed. The server streams no token that ends inside a character.

    Attributes:
        text: What was sampled, without stop strings and special tokens.
        tokens: The tokens that were streamed.
        count: How many tokens were sampled.
        stop_type: `eos`, `word` or `limit`.
        cached: Tokens of the prompt that the server had read before.
    """

    text: str
    tokens: tuple[SampledToken, ...]
    count: int
    stop_type: str
    cached: int


class LlamaClient:
    """A client of one llama.cpp server. Maps every fault to an error of Hermes.

    Args:
        address: `http://HOST:PORT`.
        api_key: The server's key.
        parallel: Slots of the server, of which this is the only client; further completions wait here, in order.
        timeout_s: Seconds between two pieces of an answer after which the server counts as hung.
        failure: Says why the server ended, if it did.
    """

    def __init__(
        self,
        address: str,
        api_key: str,
        *,
        parallel: int,
        timeout_s: float,
        failure: Callable[[], str | None] = lambda: None,
    ) -> None:
        # The server drops idle connections, and each open one holds a thread of it: every request brings its own.
        self._http = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )
        self._timeout_s = timeout_s
        self._failure = failure
        self._places = anyio.Semaphore(parallel)
        self._free = list(range(parallel))
        self.tokenizer = LlamaTokenizer(self.post)
        """The server's tokenizer and chat template."""

    async def __aenter__(self) -> Self:
        """Nothing to acquire."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close what is open."""
        await self._http.aclose()

    @asynccontextmanager
    async def slot(self, preferred: int | None) -> AsyncIterator[int]:
        """Wait, in order, for one of the server's slots, and keep others of this client out of it.

        Args:
            preferred: The slot that held this sequence last: if it is free, it need not read the prompt again.
        """
        async with self._places:
            slot = preferred if preferred in self._free else self._free[0]
            self._free.remove(slot)
            try:
                yield slot
            finally:
                self._free.append(slot)

    async def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Ask for one JSON object."""
        async with self._faults():
            response = await self._http.post(path, json=body)
            if response.status_code != httpx.codes.OK:
                raise _refusal(response.status_code, response.text)
            try:
                answer = response.json()
            except ValueError as error:
                raise ModelResponseError(f"llama.cpp answered {path} with something that is not JSON") from error
        if not isinstance(answer, dict):
            raise ModelResponseError(f"llama.cpp answered {path} with something that is no object")
        return answer

    async def stream(self, prompt: Sequence[int], slot: int, settings: Mapping[str, object]) -> Streamed:
        """Sample a completion. Closing the stream, by cancellation too, frees the server's slot.

        Streaming is what makes that so: llama.cpp notices a closed connection only when it writes.

        Raises:
            ContextExceededError: The prompt does not fit.
            ModelError: The server failed.
        """
        body = {
            **settings,
            "prompt": list(prompt),
            "id_slot": slot,
            "stream": True,
            "return_tokens": True,
            "n_probs": 1,
            "post_sampling_probs": False,
            "cache_prompt": True,
        }
        found = _Reader()
        async with self._faults(), self._http.stream("POST", "/completion", json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise _refusal(response.status_code, (await response.aread()).decode(errors="replace"))
            # Read to the end whatever comes: httpx leaves its inner generators open when its lines are not used up.
            async for line in response.aiter_lines():
                found.read(line)
        return found.result()

    @asynccontextmanager
    async def _faults(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise ModelUnreachableError(
                f"llama.cpp did not answer for {self._timeout_s:g} s", hint="-M timeout_s=SECONDS waits longer"
            ) from error
        except httpx.HTTPError as error:
            # The process may need a moment to be seen as ended.
            await anyio.sleep(0.05)
            said = self._failure() or f"{type(error).__name__}: {error}"
            raise ModelUnreachableError(f"the connection to llama.cpp broke: {said}") from error


class _Reader:
    """Takes a stream's lines; keeps the first fault for the end."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._tokens: list[SampledToken] = []
        self._last: dict[str, Any] | None = None
        self._fault: HermesError | None = None

    def read(self, line: str) -> None:
        if self._fault is not None or self._last is not None:
            return
        try:
            event = _event(line)
            if event is None:
                return
            self._pieces.append(str(event.get("content", "")))
            if event.get("stop"):
                self._last = event
            else:
                self._tokens.append(_token(event))
        except HermesError as fault:
            self._fault = fault

    def result(self) -> Streamed:
        """The completion.

        Raises:
            ModelError: A line was not as it must be, or the last one is missing.
        """
        if self._fault is not None:
            raise self._fault
        if self._last is None:
            raise ModelResponseError("llama.cpp ended a completion before its last line")
        return _finished(self._last, "".join(self._pieces), self._tokens)


def _event(line: str) -> dict[str, Any] | None:
    """One server-sent event, or None for what carries none."""
    kind, _, data = line.partition(":")
    if kind not in ("data", "error") or data.strip() == "[DONE]":
        return None
    try:
        event = json.loads(data)
    except ValueError as error:
        raise ModelResponseError("llama.cpp streamed something that is not JSON") from error
    if not isinstance(event, dict):
        raise ModelResponseError("llama.cpp streamed something that is no object")
    if kind == "error" or "error" in event:
        raise _refusal(500, data)
    return event


def _token(event: Mapping[str, Any]) -> SampledToken:
    ids, entries = event.get("tokens"), event.get("completion_probabilities")
    if not isinstance(ids, list) or not isinstance(entries, list) or len(ids) != 1 or len(entries) != 1:
        raise TokenDataError(
            "llama.cpp streamed a piece without exactly one token id and logprob",
            hint="a newer llama.cpp (xllamacpp) honours return_tokens and n_probs",
        )
    entry, position = entries[0], event.get("tokens_predicted")
    if not isinstance(entry, dict) or entry.get("id") != ids[0] or not isinstance(position, int):
        raise TokenDataError(f"llama.cpp streamed token {ids[0]} with the logprob of another")
    logprob = entry.get("logprob")
    if not isinstance(logprob, int | float):
        raise TokenDataError(f"llama.cpp streamed token {ids[0]} without a logprob")
    return SampledToken(position - 1, ids[0], float(logprob))


def _finished(event: Mapping[str, Any], text: str, tokens: Sequence[SampledToken]) -> Streamed:
    timings = event.get("timings") or {}
    return Streamed(
        text=text,
        tokens=tuple(tokens),
        count=int(event.get("tokens_predicted", -1)),
        stop_type=str(event.get("stop_type")),
        cached=int(timings.get("cache_n", 0)),
    )


def _refusal(status: int, body: str) -> ContextExceededError | ModelResponseError:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    error = found.get("error", found) if isinstance(found, dict) else None
    error = error if isinstance(error, dict) else {}
    message = str(error.get("message") or body)[:_BODY_SHOWN]
    if error.get("type") == "exceed_context_size_error":
        return ContextExceededError(
            f"llama.cpp: {message}", hint="-M context=TOKENS makes room for longer trajectories"
        )
    return ModelResponseError(f"llama.cpp answered {status}: {message}")
