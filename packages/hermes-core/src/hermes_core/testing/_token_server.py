"""A stand-in for engines that return tokens: real HTTP, in the wire forms of llama.cpp, vLLM and SGLang."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from hermes_core.testing._chat_server import ChatAnswer, FakeChatServer, _Handler, unauthorized
from hermes_core.testing._toy_tokenizer import ToyTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["EngineForm", "FakeTokenServer", "token_completion"]

EngineForm = Literal["llamacpp", "vllm", "vllm-generate", "sglang"]


def token_completion(
    form: EngineForm, ids: Sequence[int], logprobs: Sequence[float], *, text: str = "", finish_reason: str = "stop"
) -> dict[str, Any]:
    """The body of a completion, as an engine writes it.

    Args:
        form: Which engine.
        ids: What was sampled.
        logprobs: Of each.
        text: What they spell.
        finish_reason: `stop` or `length`.
    """
    pairs = list(zip(ids, logprobs, strict=True))
    if form == "llamacpp":
        return {
            "content": text,
            "tokens": list(ids),
            "completion_probabilities": [{"id": one, "logprob": value} for one, value in pairs],
            "stop_type": "limit" if finish_reason == "length" else "eos",
        }
    if form == "sglang":
        meta = {
            "id": "request-1",
            "finish_reason": {"type": finish_reason},
            "completion_tokens": len(ids),
            "output_token_logprobs": [[value, one, None] for one, value in pairs],
        }
        return {"text": text, "output_ids": list(ids), "meta_info": meta}
    listed: dict[str, Any] = {
        "tokens": [f"token_id:{one}" for one in ids],
        "token_logprobs": list(logprobs),
    }
    if form == "vllm-generate":
        listed = {"content": [{"token": f"token_id:{one}", "logprob": value} for one, value in pairs]}
    choice = {"index": 0, "token_ids": list(ids), "logprobs": listed, "finish_reason": finish_reason}
    return {"id": "cmpl-1", "choices": [choice if form == "vllm-generate" else {**choice, "text": text}]}


class FakeTokenServer(FakeChatServer):
    """Serves what the provider of one engine asks for; a context manager.

    The tokenizer of its llama.cpp form is the toy one.

    Args:
        form: Which engine it plays.
        answers: Given in order to completions, the last one repeated; or a function that makes one from a request's
            body and path, called by one thread at a time.
        folder: The model's folder, as vLLM and SGLang tell it.
        context: Tokens of the context that it claims.
        key: Answer 401 without this bearer token.
    """

    def __init__(
        self,
        form: EngineForm,
        answers: Iterable[ChatAnswer | Mapping[str, Any]]
        | Callable[[dict[str, Any]], ChatAnswer | Mapping[str, Any]] = (),
        *,
        folder: str = "",
        context: int = 4096,
        key: str | None = None,
    ) -> None:
        super().__init__(answers, key=key)
        self.tokenizer = ToyTokenizer()
        self._folder = folder
        self._context = context
        self._server.RequestHandlerClass = type("TokenHandler", (_TokenHandler,), {"chat": self})

    def _tell(self, path: str) -> dict[str, Any] | None:
        """What a GET is answered with."""
        found: dict[str, dict[str, Any]] = {
            "/props": {
                "default_generation_settings": {"n_ctx": self._context},
                "model_path": "/models/toy.gguf",
                "eos_token": "<|im_end|>",
            },
            "/v1/models": {"data": [{"id": "toy", "root": self._folder, "max_model_len": self._context}]},
            "/get_model_info": {"model_path": self._folder, "tokenizer_path": self._folder},
        }
        return found.get(path)

    def _encode(self, path: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a POST that asks for no completion is answered with."""
        if path == "/tokenize":
            return {"tokens": list(self.tokenizer.ids(request["content"], special=request["parse_special"]))}
        if path == "/detokenize":
            return {"content": self.tokenizer.text(request["tokens"])}
        if path == "/apply-template":
            return {"prompt": self.tokenizer.prompt(request["messages"])}
        return None


class _TokenHandler(_Handler):
    chat: FakeTokenServer

    def do_GET(self) -> None:
        """Tell of the model."""
        if not self._may():
            self._answer(unauthorized())
            return
        found = self.chat._tell(self.path)
        self._answer(ChatAnswer({"error": "not found"}, status=404) if found is None else ChatAnswer(found))

    def do_POST(self) -> None:
        """Encode, or complete."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = json.loads(body)
        if not self._may():
            self._answer(unauthorized())
            return
        found = self.chat._encode(self.path, request)
        if found is not None:
            self._answer(ChatAnswer(found))
            return
        answer = self.chat._take({"path": self.path, **request})
        try:
            if answer.hang:
                self.chat._closing.wait()
            self._answer(answer)
        finally:
            self.chat._answered()
