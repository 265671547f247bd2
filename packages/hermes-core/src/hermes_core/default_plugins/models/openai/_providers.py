"""Who serves models behind the API, and which variables say how to reach them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NOUS", "OPENAI", "OPENROUTER", "Provider"]


@dataclass(frozen=True, slots=True)
class Provider:
    """A name that users give, and what it stands for. Of its variables the first one that is set wins.

    A hosted service reads no variables but its own, so that it never gets a key that was meant for another.

    Attributes:
        name: As it is registered.
        base_url: Where it is by default.
        base_url_variables: Where it is.
        key_variables: The key.
        model_variables: The model's id.
        needs_key: It cannot be used without a key.
    """

    name: str
    base_url: str
    base_url_variables: tuple[str, ...]
    key_variables: tuple[str, ...]
    model_variables: tuple[str, ...] = ()
    needs_key: bool = True


# Names that users have set for years.
OPENAI = Provider(
    "openai",
    "http://127.0.0.1:8080/v1",
    ("ATROPOS_SERVER_BASE_URL", "OPENAI_BASE_URL", "LOCAL_LLM_BASE_URL", "LLM_BASE_URL"),
    ("ATROPOS_SERVER_API_KEY", "NOUS_API_KEY", "OPENAI_API_KEY", "LOCAL_LLM_API_KEY", "LLM_API_KEY"),
    ("ATROPOS_SERVER_MODEL", "LLM_MODEL", "LOCAL_LLM_MODEL"),
    needs_key=False,
)
OPENROUTER = Provider("openrouter", "https://openrouter.ai/api/v1", ("OPENROUTER_BASE_URL",), ("OPENROUTER_API_KEY",))
NOUS = Provider("nous", "https://inference-api.nousresearch.com/v1", ("NOUS_BASE_URL",), ("NOUS_API_KEY",))
