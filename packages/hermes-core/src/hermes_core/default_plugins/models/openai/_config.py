"""Settings of `openai`, and what the environment says where they are silent."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr

from hermes_core.config import first_variable
from hermes_core.default_plugins.models._addresses import Addresses, separated
from hermes_core.default_plugins.models.openai._providers import OPENAI, Provider
from hermes_core.exceptions import ConfigError

__all__ = ["Endpoint", "OpenAIConfig", "Pace", "endpoints_of", "pace_of"]

TIMEOUT_VARIABLES = ("ATROPOS_AGENT_CHAT_TIMEOUT_S", "ATROPOS_SERVER_TIMEOUT_S")
HEARTBEAT_VARIABLES = ("ATROPOS_DEBUG_AGENT_WAIT_EVERY_S",)
DEFAULT_TIMEOUT_S = 240.0
DEFAULT_HEARTBEAT_S = 15.0
DEFAULT_KEY = "local"  # servers of one's own ask for none, but the SDK insists on one


class OpenAIConfig(BaseModel):
    """An endpoint or several of them, and how to talk to them.

    Variables are read from the process environment, then from `.env` in the working folder and in `~/.hermes/`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: Addresses = None
    """Where it is, with or without `/v1`; several, as a list or separated by commas, share the requests. By default
    from ATROPOS_SERVER_BASE_URL, OPENAI_BASE_URL, LOCAL_LLM_BASE_URL, LLM_BASE_URL, else 127.0.0.1:8080; for
    `openrouter` and `nous` from OPENROUTER_BASE_URL and NOUS_BASE_URL, else their services."""

    model: str | None = None
    """The model's id. By default from ATROPOS_SERVER_MODEL, LLM_MODEL, LOCAL_LLM_MODEL, else the first that the
    endpoint lists; `openrouter` and `nous` have to be told."""

    api_key: SecretStr | None = None
    """By default from ATROPOS_SERVER_API_KEY, NOUS_API_KEY, OPENAI_API_KEY, LOCAL_LLM_API_KEY, LLM_API_KEY; for
    `openrouter` and `nous` from OPENROUTER_API_KEY and NOUS_API_KEY alone."""

    tool_call_format: str = "structured"
    """`structured` uses the API's `tool_calls`; the name of a text format ("hermes") writes tools into the prompt and
    reads calls out of the text, for endpoints that know no tools."""

    system_prompt: str | None = None
    """Instead of a text format's own prompt, where tools are enabled; `{tools}` in it becomes the tools, one line of
    JSON each. What the environment says follows it."""

    stream: bool = False
    """Have answers streamed, for endpoints and proxies that cut long silences; the turns are the same."""

    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds that one completion may take; one that takes longer is tried once more, then a failure. By default from
    ATROPOS_AGENT_CHAT_TIMEOUT_S, ATROPOS_SERVER_TIMEOUT_S, else 240."""

    max_retries: int = Field(default=4, ge=0)
    """How often a request is tried again after 429, 5xx, a broken connection or an unusable answer."""

    max_concurrency: int = Field(default=64, ge=1)
    """Most requests at once to one endpoint."""

    heartbeat_s: float | None = Field(default=None, ge=0)
    """A completion that takes longer is logged as still waited for, again and again after so many seconds; 0 for never.
    By default from ATROPOS_DEBUG_AGENT_WAIT_EVERY_S, else 15."""

    debug_dir: Path | None = None
    """Write each request and its answer to a file in this folder, without the key."""

    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of each request, as the endpoint knows them (top_k, min_p, …)."""


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

    @property
    def shown(self) -> str:
        """The address without credentials."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def without_key(self, text: str) -> str:
        """A text that an endpoint sent, in which it may have repeated the key or the password of its address."""
        password = urlsplit(self.base_url).password
        for secret in (self.key.get_secret_value(), password):
            if secret and secret != DEFAULT_KEY:
                text = text.replace(secret, "***")
        return text


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things may take, in seconds.

    Attributes:
        timeout_s: One completion.
        heartbeat_s: Between two lines about one that is waited for; 0 for none.
    """

    timeout_s: float
    heartbeat_s: float


def endpoints_of(config: OpenAIConfig, provider: Provider = OPENAI) -> tuple[Endpoint, ...]:
    """Decide where requests go: the configuration, else the environment, else where the provider is.

    Raises:
        ConfigError: The provider needs a key and there is none, or an address is none.
    """
    key = config.api_key.get_secret_value().strip() if config.api_key else first_variable(provider.key_variables)
    if not key and provider.needs_key:
        names = " or ".join(provider.key_variables)
        raise ConfigError(f"no key for {provider.name}", hint=f"set {names}, in the environment or in ~/.hermes/.env")
    given = config.base_url or first_variable(provider.base_url_variables) or provider.base_url
    model = config.model or first_variable(provider.model_variables)
    urls = dict.fromkeys(map(_with_version, separated(given)))
    return tuple(Endpoint(url, model, SecretStr(key or DEFAULT_KEY)) for url in urls)


def pace_of(config: OpenAIConfig) -> Pace:
    """Decide how long things may take.

    Raises:
        ConfigError: A variable holds no such number.
    """
    timeout_s, heartbeat_s = config.timeout_s, config.heartbeat_s
    if timeout_s is None:
        timeout_s = _number(TIMEOUT_VARIABLES, DEFAULT_TIMEOUT_S)
    if timeout_s == 0:
        raise ConfigError(f"{' or '.join(TIMEOUT_VARIABLES)} must be more than 0")
    return Pace(timeout_s, _number(HEARTBEAT_VARIABLES, DEFAULT_HEARTBEAT_S) if heartbeat_s is None else heartbeat_s)


def _number(variables: tuple[str, ...], default: float) -> float:
    for name in variables:
        text = first_variable([name])
        if text is None:
            continue
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            raise ConfigError(f"{name} is no number of seconds: {text!r}")
        return number
    return default


def _with_version(url: str) -> str:
    url = url.strip()
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usable = bool(parts.hostname) and parts.scheme in ("http", "https") and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{url.rpartition('@')[2]!r} is no address", hint="such as http://127.0.0.1:8080/v1")
    path = parts.path.rstrip("/")
    if not re.search(r"/v\d", path):
        path += "/v1"
    return urlunsplit(parts._replace(path=path, query="", fragment=""))
