"""A tokenizer from a model's folder, as Hugging Face lays it out."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from hermes_core.exceptions import ConfigError
from hermes_core.models.tokens._chat_template import CHATML, ChatTemplate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["FolderTokenizer"]

_LOG = logging.getLogger(__name__)
_SPECIALS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


class FolderTokenizer:
    """`tokenizer.json` with the chat template of `chat_template.jinja` or `tokenizer_config.json`, else ChatML.

    Args:
        folder: The folder.

    Raises:
        ConfigError: A file is missing or malformed, or the extra `tokenizers` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import jinja2  # noqa: F401 - the template needs it
            import tokenizers
        except ImportError as error:
            raise ConfigError(
                f"tokenizer={folder} needs the package {error.name}", hint="pip install 'hermes-core[tokenizers]'"
            ) from None
        path = folder.expanduser() / "tokenizer.json"
        if not path.is_file():
            raise ConfigError(
                f"there is no tokenizer in {folder}: tokenizer.json is missing",
                hint="give the folder of a model that has tokenizer.json and tokenizer_config.json",
            )
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(path))
            self._plain: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ConfigError(f"{path} cannot be read: {error}", hint="download it again") from None
        self._plain.encode_special_tokens = True  # their spelling is then text like any other
        config = _read(path.with_name("tokenizer_config.json"))
        specials = {name: text for name in _SPECIALS if (text := _spelling(config.get(name))) is not None}
        source = _template_source(folder.expanduser(), config)
        if source is None:
            _LOG.warning("the tokenizer in %s has no chat template: ChatML is used", folder)
            specials["eos_token"] = (
                "<|im_end|>" if self._id("<|im_end|>") is not None else specials.get("eos_token", "")
            )
        self._template = ChatTemplate(source or CHATML, specials)
        self.eos_ids = self._ends(specials, _read(path.with_name("generation_config.json")))

    async def encode(self, text: str, *, special: bool = True, opening: bool = False) -> tuple[int, ...]:
        """Encode text."""
        tokenizer = self._tokenizer if special else self._plain
        return tuple(tokenizer.encode(text, add_special_tokens=opening).ids)

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens spelled out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    async def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Write messages by the chat template."""
        return self._template.render(messages)

    def _id(self, token: str) -> int | None:
        found = self._tokenizer.token_to_id(token)
        return None if found is None else int(found)

    def _ends(self, specials: Mapping[str, str], generation: Mapping[str, Any]) -> frozenset[int]:
        named = generation.get("eos_token_id")
        listed = named if isinstance(named, list) else [named]
        ends = {one for one in listed if isinstance(one, int)}
        found = self._id(specials.get("eos_token", ""))
        return frozenset(ends if found is None else {*ends, found})


def _template_source(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # several by name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _spelling(token: object) -> str | None:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}", hint="download it again") from None
    return found if isinstance(found, dict) else {}
