"""Settings of `openai`, and what the environment says where they are silent."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr

__all__ = ["Endpoint", "OpenAIConfig", "endpoint_of"]

# Names that users have set for years, the first one that is set wins.
BASE_URL_VARIABLES = ("ATROPOS_SERVER_BASE_URL", "OPENAI_BASE_URL", "LOCAL_LLM_BASE_URL", "LLM_BASE_URL")
MODEL_VARIABLES = ("ATROPOS_SERVER_MODEL", "LLM_MODEL", "LOCAL_LLM_MODEL")
KEY_VARIABLES = ("ATROPOS_SERVER_API_KEY", "NOUS_API_KEY", "OPENAI_API_KEY", "LOCAL_LLM_API_KEY", "LLM_API_KEY")
DEFAULT_BASE_URL = "http://127.0.0.1:8080/v1"
DEFAULT_KEY = "local"  # servers of one's own ask for none, but the SDK insists on one


class OpenAIConfig(BaseModel):
    """An endpoint, and how to talk to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str | None = None
    """Where it is, with or without `/v1`. By default from ATROPOS_SERVER_BASE_URL, OPENAI_BASE_URL, LOCAL_LLM_BASE_URL,
    LLM_BASE_URL, else 127.0.0.1:8080."""

    model: str | None = None
    """The model's id. By default from ATROPOS_SERVER_MODEL, LLM_MODEL, LOCAL_LLM_MODEL, else the first that the
    endpoint lists."""

    api_key: SecretStr | None = None
    """By default from ATROPOS_SERVER_API_KEY, NOUS_API_KEY, OPENAI_API_KEY, LOCAL_LLM_API_KEY, LLM_API_KEY."""

    tool_call_format: str = "structured"
    """`structured` uses the API's `tool_calls`; the name of a text format ("hermes") writes tools into the prompt and
    reads calls out of the text, for endpoints that know no tools."""

    timeout_s: float = Field(default=240.0, gt=0)
    """Seconds that one completion may take; one that takes longer is a failure."""

    max_retries: int = Field(default=4, ge=0)
    """How often a request is tried again after 429, 5xx, or a broken connection."""

    max_concurrency: int = Field(default=64, ge=1)
    """Most requests at once."""

    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of each request, as the endpoint knows them."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go.

    Attributes:
        base_url: With its version path, without a slash at the end.
        model: The model's id, or None to ask the endpoint.
        key: What it is asked with; never shown.
    """

    base_url: str
    model: str | None
    key: SecretStr

    def without_key(self, text: str) -> str:
        """A text that an endpoint sent, in which it may have repeated the key."""
        key = self.key.get_secret_value()
        return text if key == DEFAULT_KEY else text.replace(key, "***")


def endpoint_of(config: OpenAIConfig) -> Endpoint:
    """Decide where requests go: the configuration, else the environment, else a server on this machine."""
    key = config.api_key.get_secret_value() if config.api_key else _first_set(KEY_VARIABLES)
    return Endpoint(
        _with_version(config.base_url or _first_set(BASE_URL_VARIABLES) or DEFAULT_BASE_URL),
        config.model or _first_set(MODEL_VARIABLES),
        SecretStr(key or DEFAULT_KEY),
    )


def _first_set(variables: tuple[str, ...]) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name, "").strip())), None)


def _with_version(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    path = parts.path.rstrip("/")
    if not re.search(r"/v\d", path):
        path += "/v1"
    return urlunsplit(parts._replace(path=path, query="", fragment=""))
