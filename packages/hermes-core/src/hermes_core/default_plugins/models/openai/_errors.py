"""Which of the SDK's errors is which of ours, and which of them to try again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import openai

from hermes_core.default_plugins.models._retries import delay_s, is_passing, speaks_of_context
from hermes_core.default_plugins.models.openai._wire import UnusableAnswerError
from hermes_core.exceptions import ConfigError, ContextExceededError, ModelResponseError, ModelUnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hermes_core.default_plugins.models.openai._config import Endpoint
    from hermes_core.exceptions import HermesError

__all__ = ["FAULTS", "answer_of", "mapped_errors", "retry_delay", "unreachable"]

FAULTS = (openai.OpenAIError, UnusableAnswerError, TimeoutError)
"""What may go wrong with a request."""

_BODY_KEPT = 20_000
_LISTED_KEPT = 10


@contextmanager
def mapped_errors(endpoint: Endpoint, *, listed: Sequence[str] = (), worked: bool = True) -> Iterator[None]:
    """Raise the SDK's errors as ours.

    They are not chained: a chain shows the request, and what the endpoint sent back of it.

    Args:
        endpoint: Who was asked.
        listed: The models that it lists.
        worked: Whether it completed anything before. If not, a wrong key or an unknown model is a wrong setting, with
            which a run need not go on.

    Raises:
        ModelUnreachableError: There is no connection.
        ModelResponseError: The endpoint answered with an error, with something unusable, or not in time.
        ContextExceededError: The conversation does not fit.
        ConfigError: The key or the model's name is wrong.
    """
    try:
        yield
    except (TimeoutError, openai.APITimeoutError):
        raise ModelResponseError(
            f"{endpoint.shown} did not answer in time", hint="give it longer with -M timeout_s=SECONDS"
        ) from None
    except openai.APIConnectionError:
        raise unreachable([endpoint]) from None
    except openai.APIStatusError as error:
        raise _refused(endpoint, error.status_code, answer_of(error), listed, worked) from None
    except UnusableAnswerError as error:
        raise _refused(endpoint, error.status, str(error), listed, worked) from None
    except openai.OpenAIError as error:
        raise ModelResponseError(f"{endpoint.shown}: {_excerpt(endpoint, str(error))}") from None


def unreachable(endpoints: Sequence[Endpoint]) -> ModelUnreachableError:
    """Nothing is there."""
    return ModelUnreachableError(
        f"nothing answers at {', '.join(endpoint.shown for endpoint in endpoints)}",
        hint="start a server there, or name another with --base-url URL",
    )


def retry_delay(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before a request is tried again; None when that would not help.

    Args:
        error: What came of it.
        attempt: How often it was tried again already.
    """
    if isinstance(error, (TimeoutError, openai.APITimeoutError)):
        if attempt:  # a whole deadline is long, and two of them are enough
            return None
    elif isinstance(error, openai.APIStatusError):
        if not is_passing(error.status_code, answer_of(error)):
            return None
        return delay_s(attempt, error.response.headers)
    elif isinstance(error, UnusableAnswerError):
        if error.status is not None and not is_passing(error.status):
            return None
    elif not isinstance(error, openai.APIConnectionError):
        return None
    return delay_s(attempt)


def answer_of(error: openai.APIStatusError) -> str:
    """The body of an answer that is an error."""
    try:
        return error.response.text
    except Exception:
        # What kind of error depends on the SDK's HTTP library: the body was not read, or is no text.
        return error.message


def _refused(endpoint: Endpoint, status: int | None, body: str, listed: Sequence[str], worked: bool) -> HermesError:
    said = _excerpt(endpoint, body)
    if status in (400, 413, 422, 500) and speaks_of_context(body):
        return ContextExceededError(f"{endpoint.shown}: {said}")
    # A 403 may be about one conversation (moderation), so it never ends a run.
    kind = ConfigError if status in (401, 404) and not worked else ModelResponseError
    if status in (401, 403):
        return kind(
            f"{endpoint.shown} refuses the key ({status}): {said}",
            hint="set it in the environment or in ~/.hermes/.env, such as OPENAI_API_KEY, or give -M api_key=KEY",
        )
    hint = None
    if status == 404:
        names = ", ".join(listed[:_LISTED_KEPT]) + (", …" if len(listed) > _LISTED_KEPT else "")
        hint = f"name a model that it lists with -M model=ID: {names}" if names else "give -M model=ID"
    return kind(f"{endpoint.shown} answered {status or 'something unusable'}: {said}", hint=hint)


def _excerpt(endpoint: Endpoint, text: str) -> str:
    line = " ".join(endpoint.without_key(text).split())
    return line if len(line) <= _BODY_KEPT else f"{line[:_BODY_KEPT]}…"
