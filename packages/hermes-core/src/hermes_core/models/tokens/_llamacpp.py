"""llama.cpp's tokenizer and distributions, asked of its server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hermes_core.exceptions import ModelResponseError, TokenDataError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

__all__ = ["LlamaTokenizer", "listed_logprob"]

_LIST_SIZES = (1_024, 2**31 - 1)


class LlamaTokenizer:
    """The tokenizer and chat template of a llama.cpp server.

    Args:
        post: Asks the server: path and body in, answer out.
        eos_ids: The tokens that end a turn, as far as they are known.
    """

    def __init__(
        self,
        post: Callable[[str, Mapping[str, object]], Awaitable[dict[str, Any]]],
        eos_ids: frozenset[int] = frozenset(),
    ) -> None:
        self._post = post
        self.eos_ids = eos_ids

    async def encode(self, text: str, *, special: bool = True, opening: bool = False) -> tuple[int, ...]:
        """Encode text."""
        body = {"content": text, "parse_special": special, "add_special": opening}
        found = (await self._post("/tokenize", body)).get("tokens")
        if not isinstance(found, list) or not all(type(one) is int and one >= 0 for one in found):
            raise TokenDataError("llama.cpp answered /tokenize without token ids")
        return tuple(found)

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""
        return _text(await self._post("/detokenize", {"tokens": list(ids)}), "content", "/detokenize")

    async def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Write messages by the model's chat template."""
        return _text(await self._post("/apply-template", {"messages": list(messages)}), "prompt", "/apply-template")


async def listed_logprob(
    post: Callable[[str, Mapping[str, object]], Awaitable[dict[str, Any]]],
    prompt: Sequence[int],
    token: int,
    letter: int,
    fields: Mapping[str, object],
) -> float:
    """Ask for the whole distribution after a prompt, and look one token up in it.

    llama.cpp lists no logprob of a token that ends inside a character. What is sampled is forced to be a plain letter,
    because the answer again lists nothing for half a character; forcing does not touch what is listed.

    Args:
        post: Asks the server.
        prompt: The ids before the token.
        token: The token.
        letter: A token that is a whole character.
        fields: Further fields of the request.

    Raises:
        TokenDataError: It is not listed.
    """
    for size in _LIST_SIZES:
        body: dict[str, object] = {
            "prompt": list(prompt),
            "n_predict": 1,
            "n_probs": size,
            "temperature": 0,
            "logit_bias": [[letter, 1e6]],
            "cache_prompt": True,
            **fields,
        }
        answer = await post("/completion", body)
        try:
            listed = answer["completion_probabilities"][0]["top_logprobs"]
            found = next((float(one["logprob"]) for one in listed if one["id"] == token), None)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise TokenDataError("llama.cpp lists no logprobs") from error
        if found is not None:
            return found
    raise TokenDataError(f"llama.cpp lists no logprob of token {token}")


def _text(answer: Mapping[str, Any], field: str, path: str) -> str:
    found = answer.get(field)
    if not isinstance(found, str):
        raise ModelResponseError(f"llama.cpp answered {path} without a {field}")
    return found
