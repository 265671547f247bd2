"""Several servers of an engine, and where they, their key and their tokenizer are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from hermes_core.default_plugins.models import LlamacppModel, VllmModel
from hermes_core.default_plugins.models.engines import LlamacppConfig, VllmConfig
from hermes_core.exceptions import ConfigError, ModelResponseError, ModelUnreachableError
from hermes_core.models import ConversationStart, Message
from hermes_core.models.tokens import model_folder
from hermes_core.testing import ChatAnswer, FakeTokenServer, ToyTokenizer, token_completion

pytestmark = pytest.mark.anyio

ASK = [Message("user", "Hi")]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("ATROPOS_SERVER_BASE_URL", "ATROPOS_SERVER_API_KEY", "ATROPOS_TOKENIZER_NAME", "LLM_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def answer() -> dict[str, Any]:
    ids = ToyTokenizer().ids("Yes.<|im_end|>")
    return token_completion("llamacpp", ids, [-0.5] * len(ids), text="Yes.")


def model(*servers: FakeTokenServer | str, **settings: object) -> LlamacppModel:
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    return LlamacppModel(LlamacppConfig.model_validate({"base_url": urls, "timeout_s": 5, **settings}))


def asked(*servers: FakeTokenServer) -> list[int]:
    return [len(server.requests) for server in servers]


async def test_conversations_are_shared_out_and_stay_where_they_are() -> None:
    with FakeTokenServer("llamacpp", [answer()]) as first, FakeTokenServer("llamacpp", [answer()]) as second:
        async with model(first, second) as shared:
            talks = [shared.conversation(ConversationStart(f"t{number}")) for number in range(4)]
            for talk in talks:
                await talk.respond(ASK)
            assert asked(first, second) == [2, 2]
            for _ in range(3):
                await talks[0].respond(ASK)
    assert sorted(asked(first, second)) == [2, 5]


@pytest.mark.parametrize("fault", [ChatAnswer("no", status=503), ChatAnswer(drop=True), ChatAnswer(hang=True)])
async def test_a_server_that_fails_is_left_alone(fault: ChatAnswer) -> None:
    with FakeTokenServer("llamacpp", [fault]) as broken, FakeTokenServer("llamacpp", [answer()]) as good:
        async with model(broken, good, timeout_s=0.5) as shared:
            for number in range(4):
                turn = await shared.conversation(ConversationStart(f"t{number}")).respond(ASK)
                assert turn.content == "Yes."
    assert asked(broken, good) == [1, 4]


async def test_servers_that_are_not_there_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with FakeTokenServer("llamacpp", [answer()]) as good:
        async with model(NOWHERE, good, max_retries=0) as shared:
            await shared.conversation(ConversationStart("t")).respond(ASK)
    assert f"nothing answers at {NOWHERE}: it gets no requests for a while" in caplog.text
    with pytest.raises(ModelUnreachableError, match=NOWHERE):
        await model(NOWHERE, "127.0.0.1:8", max_retries=0).__aenter__()


async def test_a_server_that_hangs_is_waited_for_once() -> None:
    with FakeTokenServer("llamacpp", [ChatAnswer(hang=True)]) as server:
        async with model(server, timeout_s=0.3) as alone:
            with anyio.fail_after(20), pytest.raises(ModelResponseError, match="did not answer /completion"):
                await alone.conversation(ConversationStart("t")).respond(ASK)
    assert asked(server) == [1]


async def test_servers_of_different_models_are_refused(tmp_path: Path) -> None:
    class Another(FakeTokenServer):
        def _tell(self, path: str) -> dict[str, Any] | None:
            return {**(super()._tell(path) or {}), "model_path": "/models/another.gguf"}

    with FakeTokenServer("llamacpp", [answer()]) as first, Another("llamacpp", [answer()]) as second:
        with pytest.raises(ConfigError, match=r"run different models: another\.gguf, toy\.gguf"):
            await model(first, second).__aenter__()


async def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-hosted-service")
    with FakeTokenServer("llamacpp", [answer()], key="mine") as server:
        monkeypatch.setenv("ATROPOS_SERVER_BASE_URL", f"{server.url}/v1")
        (tmp_path / ".env").write_text("LLM_API_KEY=mine\n")
        async with LlamacppModel() as found:
            await found.conversation(ConversationStart("t")).respond(ASK)
        assert asked(server) == [1]
        with pytest.raises(ModelResponseError, match=r"401: .*wrong key") as caught:
            await model(server, api_key="another").__aenter__()
        assert caught.value.hint == "give -M api_key=KEY"


async def test_a_tokenizer_of_the_hub_is_found_in_its_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ConfigError, match="there is no tokenizer in some/model") as caught:
        model_folder(Path("some/model"))
    assert "hf download some/model" in str(caught.value.hint)
    (snapshot / "tokenizer.json").write_text("{")
    assert model_folder(Path("some/model")) == snapshot
    monkeypatch.setenv("ATROPOS_TOKENIZER_NAME", "some/model")
    with FakeTokenServer("vllm", [answer()]) as server:
        with pytest.raises(ConfigError, match=r"0123/tokenizer\.json cannot be read"):
            await VllmModel(VllmConfig(base_url=server.url)).__aenter__()
