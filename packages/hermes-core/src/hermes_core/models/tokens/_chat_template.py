"""Chat templates, rendered as transformers renders them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from hermes_core.exceptions import ConfigError, ModelResponseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CHATML", "ChatTemplate"]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ChatTemplate:
    """A Jinja template in a sandbox: a model's files are data, not code to trust.

    Args:
        source: The template.
        variables: The spellings of the special tokens, as templates know them (`bos_token`, …).

    Raises:
        ConfigError: It is no template.
    """

    def __init__(self, source: str, variables: Mapping[str, str]) -> None:
        import jinja2
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        self._variables = dict(variables)
        self._error = jinja2.TemplateError
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ConfigError(
                f"the chat template cannot be read: {error}", hint="give another -M tokenizer=FOLDER"
            ) from None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Write messages, ready for the assistant's next turn.

        Raises:
            ModelResponseError: The template refuses them.
        """
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._variables,
            )
        except (self._error, TypeError, ValueError) as error:
            raise ModelResponseError(f"the chat template refuses the conversation: {error}") from None


def _to_json(value: object, indent: int | None = None, **more: Any) -> str:  # noqa: ANN401 - what json.dumps takes
    # Not Jinja's own, which writes < and > as HTML wants them.
    return json.dumps(value, ensure_ascii=False, indent=indent, **more)


def _refuse(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
