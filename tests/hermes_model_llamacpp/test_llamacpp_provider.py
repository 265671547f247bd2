"""The provider `llamacpp` of core against the real server."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from hermes_core.default_plugins.models.engines import LlamacppConfig, LlamacppModel
from hermes_core.exceptions import ContextExceededError
from hermes_core.models import ConversationStart, Message, Sampling
from hermes_core.trajectory import SegmentRecorder
from hermes_model_llamacpp import LlamaServer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.local_model]


_SAMPLED = re.compile(r"task (\d+) \| n_gen = (\d+), n_remaining = (\d+), next token: +(\d+) ")
_EVERYTHING = 9


def logged_ids(log: Path) -> list[int]:
    """What the server's own log says that it sampled, without the requests that ask for one token's logprob."""
    lines = [tuple(map(int, found)) for found in _SAMPLED.findall(log.read_text(errors="replace"))]
    return [token for _, sampled, left, token in lines if sampled + left > 1]


async def test_the_mask_covers_exactly_what_the_server_returned(weights: Path, tmp_path: Path) -> None:
    running = LlamaServer(weights, context=1024, parallel=2, tools_template=False, log=tmp_path / "log")
    running._settings["verbosity"] = _EVERYTHING
    async with running as server:
        config = LlamacppConfig(
            base_url=server.address, api_key=server.api_key, max_tokens=24, debug_dir=tmp_path / "dumps"
        )
        async with LlamacppModel(config) as model:
            assert model.prefix_preserving
            start = ConversationStart("t", sampling=Sampling(temperature=1.0, seed=3, stop=("zzz",)))
            conversation = model.conversation(start)
            messages, recorder, text = [Message("user", "Answer with emoji only: how are you?")], SegmentRecorder(), ""
            for _ in range(4):
                turn = await conversation.respond(messages)
                assert turn.tokens is not None
                assert turn.tokens.logprobs_mode == "processed"
                recorder.add(turn.tokens)
                messages += [Message("assistant", turn.content), Message("user", "More emoji 😀, please.")]
                text = await model._tokenizer.decode(turn.tokens.prompt_ids)
            with pytest.raises(ContextExceededError, match="no room"):
                await conversation.respond([Message("user", "many words " * 900)])
    dumps = [json.loads(path.read_text()) for path in sorted((tmp_path / "dumps").iterdir())]
    sent = [dump["body"]["prompt"] for dump in dumps]
    returned = [json.loads(dump["answer"])["tokens"] for dump in dumps]
    (segment,) = recorder.segments
    trained = [one for one, mask in zip(segment.ids, segment.mask, strict=True) if mask]
    assert len(returned) == 4
    assert trained == [one for ids in returned for one in ids]
    assert trained == logged_ids(tmp_path / "log")
    assert list(segment.ids[: len(sent[-1])]) == sent[-1]
    assert text.count("<|im_start|>assistant") == 4
    assert "<|im_end|><|im_end|>" not in text.replace("\n", "")
