"""Which of the SDK's errors is which of ours, and which of them to try again."""

from __future__ import annotations

import random
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import openai

from hermes_core.default_plugins.models.openai._wire import UnusableAnswerError
from hermes_core.exceptions import ContextExceededError, ModelResponseError, ModelUnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_core.default_plugins.models.openai._config import Endpoint

__all__ = ["mapped_errors", "retry_delay", "unreachable"]

_BODY_KEPT = 2_000
_LONGEST_WAIT_S = 60.0
_CONTEXT = re.compile(
    r"context[ _-]?(?:length|window|size)|maximum (?:context|model|input|prompt) ?length|max_model_len|"
    r"prompt is too long|input is too long|too many (?:input |prompt )?tokens|"
    r"reduce the length of the (?:messages|prompt)",
    re.IGNORECASE,
)


@contextmanager
def mapped_errors(endpoint: Endpoint) -> Iterator[None]:
    """Raise the SDK's errors as ours.

    They are not chained: a chain shows the request, and what the endpoint sent back of it.

    Raises:
        ModelUnreachableError: There is no connection.
        ModelResponseError: The endpoint answered with an error, with something unusable, or not in time.
        ContextExceededError: The conversation does not fit.
    """
    try:
        yield
    except (TimeoutError, openai.APITimeoutError):
        raise ModelResponseError(
            f"{endpoint.base_url} did not answer in time", hint="give it longer with -M timeout_s=SECONDS"
        ) from None
    except openai.APIConnectionError:
        raise unreachable(endpoint) from None
    except openai.APIStatusError as error:
        raise _refused(endpoint, error.status_code, _body(error)) from None
    except UnusableAnswerError as error:
        raise _refused(endpoint, error.status, str(error)) from None
    except openai.OpenAIError as error:
        raise ModelResponseError(f"{endpoint.base_url}: {_excerpt(endpoint, str(error))}") from None


def unreachable(endpoint: Endpoint) -> ModelUnreachableError:
    """Nothing is there."""
    return ModelUnreachableError(
        f"nothing answers at {endpoint.base_url}", hint="start a server there, or name another with --base-url URL"
    )


def retry_delay(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before a request is tried again; None when that would not help.

    Args:
        error: What came of it.
        attempt: How often it was tried again already.
    """
    if isinstance(error, openai.APITimeoutError):
        return None
    if isinstance(error, openai.APIStatusError):
        if not _is_passing(error.status_code) or _CONTEXT.search(_body(error)):
            return None
        asked = _retry_after(error)
        if asked is not None:
            return asked + random.uniform(0, 0.1)
    elif isinstance(error, UnusableAnswerError):
        if error.status is not None and not _is_passing(error.status):
            return None
    elif not isinstance(error, openai.APIConnectionError):
        return None
    # Jitter keeps clients that failed together from coming back together.
    return min(8.0, 0.5 * 2.0**attempt) * random.uniform(0.5, 1.0)


def _is_passing(status: int) -> bool:
    return status in (408, 409, 425, 429) or status >= 500


def _retry_after(error: openai.APIStatusError) -> float | None:
    headers = error.response.headers
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(_LONGEST_WAIT_S, max(0.0, float(headers[name]) * unit))
        except (KeyError, ValueError):  # absent, or a date, which nobody sends here
            continue
    return None


def _refused(endpoint: Endpoint, status: int | None, body: str) -> ModelResponseError | ContextExceededError:
    said = _excerpt(endpoint, body)
    if status in (400, 413, 422, 500) and _CONTEXT.search(body):
        return ContextExceededError(f"{endpoint.base_url}: {said}")
    if status in (401, 403):
        return ModelResponseError(
            f"{endpoint.base_url} refuses the key ({status}): {said}", hint="set OPENAI_API_KEY, or give -M api_key=KEY"
        )
    hint = "see what the endpoint lists: GET /v1/models" if status == 404 else None
    return ModelResponseError(f"{endpoint.base_url} answered {status or 'something unusable'}: {said}", hint=hint)


def _body(error: openai.APIStatusError) -> str:
    try:
        return error.response.text
    except Exception:
        # What kind of error depends on the SDK's HTTP library: the body was not read, or is no text.
        return error.message


def _excerpt(endpoint: Endpoint, text: str) -> str:
    line = " ".join(endpoint.without_key(text).split())
    return line if len(line) <= _BODY_KEPT else f"{line[:_BODY_KEPT]}…"
