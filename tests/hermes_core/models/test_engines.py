from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import tokenizers

from hermes_core import Hermes
from hermes_core._catalogue import Catalogue
from hermes_core.default_plugins.models import LlamacppModel, SglangModel, VllmModel
from hermes_core.default_plugins.models.engines import EngineConfig, LlamacppConfig, SglangConfig, VllmConfig
from hermes_core.exceptions import (
    ConfigError,
    ContextExceededError,
    ModelError,
    ModelResponseError,
    ModelUnreachableError,
    TokenDataError,
    UsageError,
)
from hermes_core.execution import DefaultBatchExecutor, ToolDefinition
from hermes_core.models import ConversationStart, Message, Sampling
from hermes_core.models.tokens import FolderTokenizer
from hermes_core.plugins import create_plugin_manager
from hermes_core.runs import Resources, RolloutOptions, RunConfig, RunDirectory, Work, component, execute_run
from hermes_core.testing import (
    ChatAnswer,
    EngineForm,
    FakeTokenServer,
    SumsEnvironment,
    ToyTokenizer,
    sums_tools,
    token_completion,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from hermes_core.default_plugins.models.engines._model import EngineModel

pytestmark = pytest.mark.anyio

FORMS: tuple[EngineForm, ...] = ("llamacpp", "vllm", "vllm-generate", "sglang")
NAMES = {"llamacpp": "llama.cpp", "vllm": "vLLM", "vllm-generate": "vLLM", "sglang": "SGLang"}
CHATML = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\\n' + m.content + eos_token + '\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
ASK = [Message("user", "Hi")]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with a tokenizer of bytes."""
    path = tmp_path_factory.mktemp("models") / "toy"
    path.mkdir()
    bpe = tokenizers.models.BPE(
        vocab={one: at for at, one in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}, merges=[]
    )
    made = tokenizers.Tokenizer(bpe)
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|end|>"])
    made.save(str(path / "tokenizer.json"))
    config = {"chat_template": CHATML, "eos_token": {"content": "<|im_end|>"}, "bos_token": None}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [257, 258]}))
    return path


def config_of(form: EngineForm, url: str, **more: object) -> EngineConfig:
    made: type[EngineConfig] = (
        LlamacppConfig if form == "llamacpp" else SglangConfig if form == "sglang" else VllmConfig
    )
    api = {"api": "generate"} if form == "vllm-generate" else {}
    return made.model_validate({"base_url": url, "timeout_s": 5, "max_retries": 0, **api, **more})


def model_of(form: EngineForm, url: str, **more: object) -> EngineModel:
    config = config_of(form, url, **more)
    if isinstance(config, VllmConfig):
        return VllmModel(config)
    return LlamacppModel(config) if isinstance(config, LlamacppConfig) else SglangModel(cast("SglangConfig", config))


@contextmanager
def served(
    form: EngineForm,
    answers: Iterable[ChatAnswer | Mapping[str, Any]] | Callable[[dict[str, Any]], ChatAnswer | Mapping[str, Any]],
    folder: Path,
    *,
    context: int = 4096,
) -> Iterator[FakeTokenServer]:
    with FakeTokenServer(form, answers, folder=str(folder), context=context) as server:
        yield server


def sampled(form: EngineForm, server_text: str, ids: tuple[int, ...]) -> dict[str, Any]:
    return token_completion(form, ids, [-0.5 - at / 64 for at in range(len(ids))], text=server_text)


async def spelled(form: EngineForm, folder: Path, text: str) -> tuple[int, ...]:
    """The ids of a turn that ends by itself."""
    if form == "llamacpp":
        return ToyTokenizer().ids(f"{text}<|im_end|>")
    return await FolderTokenizer(folder).encode(f"{text}<|im_end|>")


@pytest.mark.parametrize("form", FORMS)
async def test_ids_and_logprobs_come_from_the_engine_and_the_next_prompt_extends_them(
    form: EngineForm, folder: Path
) -> None:
    ids = await spelled(form, folder, "Héllo 😀")
    answer = sampled(form, "Héllo 😀", ids)
    with served(form, [answer], folder) as server:
        async with model_of(form, server.url) as model:
            assert model.prefix_preserving
            conversation = model.conversation(ConversationStart("t", sampling=Sampling(temperature=1.0, seed=1)))
            first = await conversation.respond(ASK)
            assert first.tokens is not None
            assert (first.content, first.tokens.completion_ids) == ("Héllo 😀", ids)
            assert first.tokens.logprobs == tuple(-0.5 - at / 64 for at in range(len(ids)))
            assert first.tokens.logprobs_mode == "processed"
            said = Message("assistant", first.content)
            second = await conversation.respond([*ASK, said, Message("user", "So?")])
    assert second.tokens is not None
    held = first.tokens.prompt_ids + ids
    assert second.tokens.prompt_ids[: len(held)] == held
    assert second.tokens.prompt_ids[len(held)] != ids[-1]
    sent = server.requests[1]
    fields = {"llamacpp": "prompt", "vllm": "prompt", "vllm-generate": "token_ids", "sglang": "input_ids"}
    assert sent[fields[form]] == list(second.tokens.prompt_ids)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, None), (1.0, 0.9), (0.0, None)])
async def test_logprobs_are_called_processed_only_where_they_are(
    form: EngineForm, folder: Path, temperature: float, top_p: float | None
) -> None:
    answer = sampled(form, "a", await spelled(form, folder, "a"))
    with served(form, [answer], folder) as server:
        async with model_of(form, server.url) as model:
            start = ConversationStart("t", sampling=Sampling(temperature=temperature, top_p=top_p))
            turn = await model.conversation(start).respond(ASK)
    assert turn.tokens is not None
    of_sglang = {(0.7, None): "processed", (1.0, 0.9): "unknown", (0.0, None): "raw"}[temperature, top_p]
    assert turn.tokens.logprobs_mode == (of_sglang if form == "sglang" else "raw")


def without_ids(body: dict[str, Any]) -> None:
    if "meta_info" in body:
        body["meta_info"]["output_token_logprobs"] = [
            [value] for value, *_ in body["meta_info"]["output_token_logprobs"]
        ]
    elif "choices" in body:
        choice = body["choices"][0]
        choice["token_ids"] = None
        entries = choice["logprobs"].get("content", [])
        for entry in entries:
            entry["token"] = "a"
        if not entries:
            choice["logprobs"]["tokens"] = ["a"] * len(choice["logprobs"]["tokens"])
    else:
        del body["tokens"]


def without_logprobs(body: dict[str, Any]) -> None:
    if "meta_info" in body:
        del body["meta_info"]["output_token_logprobs"]
    elif "choices" in body:
        body["choices"][0]["logprobs"] = None
    else:
        del body["completion_probabilities"]


def too_few_logprobs(body: dict[str, Any]) -> None:
    if "meta_info" in body:
        body["meta_info"]["output_token_logprobs"].pop()
    elif "choices" in body:
        listed = body["choices"][0]["logprobs"]
        listed.get("token_logprobs", listed.get("content")).pop()
    else:
        body["completion_probabilities"].append({"id": 99, "logprob": -1.0})


def of_other_tokens(body: dict[str, Any]) -> None:
    if "meta_info" in body:
        body["meta_info"]["output_token_logprobs"][0][1] += 1
    elif "choices" in body:
        body["choices"][0]["token_ids"][0] += 1
    else:
        body["completion_probabilities"][0]["id"] += 1


def with_logprob(value: object) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        if "meta_info" in body:
            body["meta_info"]["output_token_logprobs"][0][0] = value
        elif "choices" in body:
            listed = body["choices"][0]["logprobs"]
            if "content" in listed:
                listed["content"][0]["logprob"] = value
            else:
                listed["token_logprobs"][0] = value
        else:
            body["completion_probabilities"][0]["logprob"] = value

    return change


FAULTS = {
    "no ids": without_ids,
    "no logprobs": without_logprobs,
    "unequal lengths": too_few_logprobs,
    "other tokens": of_other_tokens,
    "NaN": with_logprob(float("nan")),
    "minus infinity": with_logprob(float("-inf")),
    "positive": with_logprob(0.25),
    "sentinel": with_logprob(-9999.0),
    "lowest float": with_logprob(-3.4028235e38),
    "null": with_logprob(None),
    "text": with_logprob("-0.5"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_tokens_that_are_not_exact_are_an_error_that_names_engine_and_setting(
    form: EngineForm, fault: str, folder: Path
) -> None:
    body = sampled(form, "ab", await spelled(form, folder, "ab"))
    FAULTS[fault](body)
    with served(form, [body], folder) as server:
        async with model_of(form, server.url) as model:
            with pytest.raises(TokenDataError, match=NAMES[form]) as caught:
                await model.conversation(ConversationStart("t")).respond(ASK)
    settings = {"llamacpp": "return_tokens", "sglang": "return_logprob"}
    assert settings.get(form, "--return-tokens-as-token-ids") in str(caught.value.hint)


BROKEN = {
    "HTML": ChatAnswer("<html>Bad gateway</html>"),
    "half of the JSON": ChatAnswer('{"tokens": [1, 2'),
    "a list": ChatAnswer("[]"),
    "nothing": ChatAnswer("{}"),
    "hang": ChatAnswer(hang=True),
    "drop": ChatAnswer(drop=True),
    "drop half-way": ChatAnswer('{"tokens": [1, 2]}', drop=True),
    "500": ChatAnswer("boom", status=500),
    "error in a 200": ChatAnswer({"error": {"message": "boom"}}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_engine_is_a_model_error(form: EngineForm, broken: str, folder: Path) -> None:
    with served(form, [BROKEN[broken]], folder) as server:
        async with model_of(form, server.url, timeout_s=0.3) as model:
            with pytest.raises(ModelError) as caught:
                await model.conversation(ConversationStart("t")).respond(ASK)
    assert NAMES[form] in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.namespaces
@pytest.mark.parametrize("form", FORMS)
async def test_nothing_of_a_faulty_turn_reaches_the_segments(form: EngineForm, folder: Path) -> None:
    good = sampled(form, "It is 3.", await spelled(form, folder, "It is 3."))
    bad = sampled(form, "ab", await spelled(form, folder, "ab"))
    with_logprob(float("nan"))(bad)
    with served(form, [good, bad], folder) as server:
        async with Hermes() as hermes:
            agent = hermes.agent(model_of(form, server.url), toolsets=[])
            first = await agent.run("What is 1 + 2?")
            second = await agent.run("And 2 + 2?")
    assert (first.outcome, second.outcome) == ("completed", "model_error")
    assert second.segments == first.segments
    (segment,) = second.segments
    assert sum(segment.mask) == len(await spelled(form, folder, "It is 3."))


@pytest.mark.parametrize("form", FORMS)
async def test_completions_are_written_down_without_the_key_and_can_be_sent_again(
    form: EngineForm, folder: Path, tmp_path: Path
) -> None:
    good = sampled(form, "a", await spelled(form, folder, "a"))
    with served(form, [ChatAnswer("boom, sk-secret", status=500), good, good], folder) as server:
        address = server.url.replace("http://", "http://user:pa55word@")
        settings = {"api_key": "sk-secret", "max_retries": 1, "debug_dir": tmp_path / "dumps"}
        async with model_of(form, address, **settings) as model:
            await model.conversation(ConversationStart("t")).respond(ASK)
        paths = sorted((tmp_path / "dumps").iterdir())
        failed, done = (json.loads(path.read_text()) for path in paths)
        async with httpx.AsyncClient() as client:
            again = (await client.post(done["url"], json=done["body"])).json()
    assert (failed["status"], failed["answer"]) == (500, "boom, ***")
    assert done["status"] == 200
    assert json.loads(done["answer"]) == again == good
    assert server.requests[1] == server.requests[2]
    for path in paths:
        assert not {"sk-secret", "pa55word"} & set(re.findall(r"[\w-]+", path.read_text()))


async def test_a_slow_completion_is_said_to_be_waited_for(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served("llamacpp", [ChatAnswer(hang=True)], folder) as server:
        async with model_of("llamacpp", server.url, timeout_s=0.6, heartbeat_s=0.2) as model:
            with pytest.raises(ModelResponseError, match=r"did not answer /completion for 0\.6 s"):
                await model.conversation(ConversationStart("t")).respond(ASK)
    assert f"still waiting for llama.cpp at {server.url}: 0 s" in caplog.text


@pytest.mark.parametrize("form", FORMS)
async def test_a_run_on_a_broken_engine_ends_and_scores_nothing(form: EngineForm, folder: Path, tmp_path: Path) -> None:
    faults = iter(range(10**6))
    good = sampled(form, "1", await spelled(form, folder, "1"))

    def answer(request: dict[str, Any]) -> ChatAnswer | Mapping[str, Any]:
        number = next(faults) % (len(BROKEN) + len(FAULTS))
        if number < len(BROKEN):
            return list(BROKEN.values())[number]
        body = json.loads(json.dumps(good))
        list(FAULTS.values())[number - len(BROKEN)](body)
        return ChatAnswer(body)

    environment = SumsEnvironment()
    with served(form, answer, folder) as server:
        async with model_of(form, server.url, timeout_s=1) as model:
            work = Work(environment, model, 4, 5, 8, "train", 0, RolloutOptions(retries=2, retry_delay_s=0.0), "r")
            described = RunConfig(run_id="r", environment=component("sums", None), model=component(form, None))
            with RunDirectory.open(tmp_path / "out", described) as directory:
                run = await execute_run(Resources(DefaultBatchExecutor(), sums_tools), work, directory)
    failed = [(t.outcome, t.reward, t.segments) async for t in run.failures()]
    assert failed == [("model_error", None, ())] * 20
    assert len(server.requests) > 40  # of 60 attempts; a busy machine may be too late with a prompt
    assert environment.scored == []
    assert run.statistics.trajectories == 0


@pytest.mark.parametrize("form", FORMS)
async def test_what_passes_is_tried_again(form: EngineForm, folder: Path) -> None:
    good = sampled(form, "a", await spelled(form, folder, "a"))
    busy = ChatAnswer("later", status=429, headers={"Retry-After": "0"})
    passing: list[ChatAnswer | Mapping[str, Any]] = [
        busy,
        ChatAnswer("no", status=503, headers={"Retry-After": "0"}),
        ChatAnswer(drop=True),
        good,
    ]
    with served(form, passing, folder) as server:
        async with model_of(form, server.url, max_retries=3) as model:
            turn = await model.conversation(ConversationStart("t")).respond(ASK)
    assert turn.content == "a"
    assert len(server.requests) == 4


@pytest.mark.parametrize("form", FORMS)
async def test_a_conversation_that_does_not_fit_says_so(form: EngineForm, folder: Path) -> None:
    refusal = ChatAnswer({"error": {"message": "This model's maximum context length is 64 tokens"}}, status=400)
    with served(form, [refusal], folder) as server:
        async with model_of(form, server.url, max_retries=2) as model:
            with pytest.raises(ContextExceededError, match="64 tokens"):
                await model.conversation(ConversationStart("t")).respond(ASK)
        async with model_of(form, server.url, context=16) as model:
            with pytest.raises(ContextExceededError, match="no room in a context of 16"):
                await model.conversation(ConversationStart("t")).respond([Message("user", "words " * 10)])
    assert len(server.requests) == 1


async def test_no_more_is_asked_for_than_the_context_has_room_for(folder: Path) -> None:
    good = sampled("vllm", "a", await spelled("vllm", folder, "a"))
    with served("vllm", [good], folder, context=100) as server:
        async with model_of("vllm", server.url) as model:
            turn = await model.conversation(ConversationStart("t")).respond(ASK)
    assert turn.tokens is not None
    assert server.requests[0]["max_tokens"] == 100 - len(turn.tokens.prompt_ids)


async def test_a_given_system_prompt_replaces_that_of_the_format(folder: Path) -> None:
    good = sampled("vllm", "a", await spelled("vllm", folder, "a"))
    tool = ToolDefinition("look", "Look", {"type": "object"})
    start = ConversationStart("t", tools=(tool,))
    with served("vllm", [good], folder) as server:
        async with model_of("vllm", server.url, system_prompt="Use these:\n{tools}\nThat is all.") as model:
            turn = await model.conversation(start).respond([Message("system", "You look."), *ASK])
    assert turn.tokens is not None
    prompt = await FolderTokenizer(folder).decode(turn.tokens.prompt_ids)
    listed = '{"name": "look", "description": "Look", "parameters": {"type": "object"}, "required": null}'
    assert f"system\nUse these:\n{listed}\nThat is all.\n\nYou look.<|im_end|>" in prompt


@pytest.mark.parametrize("form", FORMS)
async def test_sampling_and_what_is_left_of_a_budget_go_to_the_engine(form: EngineForm, folder: Path) -> None:
    good = sampled(form, "a", await spelled(form, folder, "a"))
    start = ConversationStart("t", sampling=Sampling(1.0, top_p=0.9, top_k=40, min_p=0.05, max_tokens=8))
    with served(form, [good], folder) as server:
        async with model_of(form, server.url) as model:
            await model.conversation(start).respond(ASK, max_tokens=5)
            turn = await model.conversation(start).respond(ASK, max_tokens=20)
    sent = [request.get("sampling_params", request) for request in server.requests]
    longest = {"llamacpp": "n_predict", "sglang": "max_new_tokens"}.get(form, "max_tokens")
    assert [each[longest] for each in sent] == [5, 8]
    assert [(each["top_p"], each["top_k"], each["min_p"]) for each in sent] == [(0.9, 40, 0.05)] * 2
    assert turn.tokens is not None
    assert turn.tokens.logprobs_mode == ("unknown" if form == "sglang" else "raw")


async def test_the_logprobs_that_llamacpp_does_not_list_are_asked_for(folder: Path) -> None:
    body = token_completion("llamacpp", (12, 13, 13, 1), (-0.5, -0.6, -0.7, -0.8), text="x")
    del body["completion_probabilities"][1]  # which of the two equal tokens is missing cannot be told
    asked = {"completion_probabilities": [{"top_logprobs": [{"id": 13, "logprob": -0.25}]}]}
    with served("llamacpp", [body, asked, asked], folder) as server:
        async with model_of("llamacpp", server.url) as model:
            turn = await model.conversation(ConversationStart("t")).respond(ASK)
    assert turn.tokens is not None
    assert turn.tokens.logprobs == (-0.5, -0.25, -0.25, -0.8)
    prompt = list(turn.tokens.prompt_ids)
    assert [sent["prompt"] for sent in server.requests[1:]] == [[*prompt, 12], [*prompt, 12, 13]]


@pytest.mark.parametrize("spelling", ["token_id:N", "token_id"])
async def test_ids_of_vllm_are_read_from_the_logprobs_too(spelling: str, folder: Path) -> None:
    ids = await spelled("vllm", folder, "a")
    body = sampled("vllm", "a", ids)
    del body["choices"][0]["token_ids"]
    if spelling == "token_id":
        body["choices"][0]["logprobs"] = {"content": [{"token_id": one, "logprob": -0.5} for one in ids]}
    with served("vllm", [body], folder) as server:
        async with model_of("vllm", server.url) as model:
            turn = await model.conversation(ConversationStart("t")).respond(ASK)
    assert turn.tokens is not None
    assert turn.tokens.completion_ids == ids


async def test_another_prompt_than_the_one_given_is_an_error(folder: Path) -> None:
    body = sampled("vllm", "a", await spelled("vllm", folder, "a"))
    body["choices"][0]["prompt_token_ids"] = [1, 2, 3]
    with served("vllm", [body], folder) as server:
        async with model_of("vllm", server.url) as model:
            with pytest.raises(TokenDataError, match="another prompt"):
                await model.conversation(ConversationStart("t")).respond(ASK)


@pytest.mark.parametrize("form", ["vllm", "sglang"])
async def test_an_aborted_completion_is_no_turn(form: EngineForm, folder: Path) -> None:
    body = token_completion(form, (1,), (-0.5,), finish_reason="abort")
    with served(form, [body], folder) as server:
        async with model_of(form, server.url) as model:
            with pytest.raises(ModelResponseError, match="'abort'"):
                await model.conversation(ConversationStart("t")).respond(ASK)


@pytest.mark.parametrize("name", ["llamacpp", "vllm", "sglang"])
def test_a_name_may_bring_the_address(name: str) -> None:
    made = Catalogue(create_plugin_manager()).model(f"{name}:http://host:1234", {})
    assert cast("EngineModel", made).config.base_url == "http://host:1234"


async def test_nothing_there_is_one_line_with_a_hint() -> None:
    for form in FORMS:
        with pytest.raises(ModelUnreachableError, match=r"nothing answers at http://127\.0\.0\.1:9$") as caught:
            await model_of(form, "127.0.0.1:9").__aenter__()
        assert "--base-url" in str(caught.value.hint)
    with pytest.raises(UsageError, match="not open"):
        model_of("vllm", "127.0.0.1:9").conversation(ConversationStart("t"))
    with pytest.raises(ConfigError, match="no address"):
        await model_of("vllm", "ftp://x").__aenter__()


async def test_without_a_tokenizer_it_says_which_setting(tmp_path: Path) -> None:
    for form in ("vllm", "sglang"):
        with served(form, [], tmp_path) as server:
            with pytest.raises(ConfigError, match="needs the model's tokenizer") as caught:
                await model_of(form, server.url).__aenter__()
            assert "-M tokenizer=FOLDER" in str(caught.value.hint)
            with pytest.raises(ConfigError, match=r"tokenizer\.json is missing"):
                await model_of(form, server.url, tokenizer=tmp_path).__aenter__()


async def test_a_broken_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"tokenizer\.json cannot be read"):
        FolderTokenizer(tmp_path)


async def test_a_tokenizer_without_a_template_gets_chatml_and_says_so(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    tokenizer = FolderTokenizer(tmp_path)
    assert "no chat template: ChatML is used" in caplog.text
    assert tokenizer.eos_ids == {257}
    rendered = await tokenizer.render([{"role": "user", "content": "x"}])
    assert rendered == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    assert await tokenizer.decode(await tokenizer.encode("é<|im_end|>")) == "é<|im_end|>"
    assert len(await tokenizer.encode("<|im_end|>", special=False)) == len("<|im_end|>")


async def test_a_template_cannot_reach_out_and_refuses_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    template = tmp_path / "chat_template.jinja"
    for source, said in {
        "{{ ''.__class__.__mro__[1].__subclasses__() }}": "unsafe",
        "{{ raise_exception('no system message') }}": "no system message",
    }.items():
        template.write_text(source)
        with pytest.raises(ModelResponseError, match=said):
            await FolderTokenizer(tmp_path).render([{"role": "user", "content": "x"}])
    template.write_text("{% for %}")
    with pytest.raises(ConfigError, match="cannot be read"):
        FolderTokenizer(tmp_path)


async def test_a_template_that_drops_thinking_is_known_when_the_model_starts(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for history, told in {"append": "history=append keeps them", "template": "a new segment begins there"}.items():
        caplog.clear()
        with served("llamacpp", [], folder) as server:
            server.tokenizer.template = "forget"
            async with model_of("llamacpp", server.url, history=history) as model:
                assert not model.prefix_preserving
                assert model.prefix is not None
                assert model.prefix.tool_turns
        assert "drops the thinking of a turn before a user message" in caplog.text
        assert told in caplog.text
