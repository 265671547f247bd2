"""Where requests go: settings, variables, `.env` files, several endpoints."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hermes_core.config import first_variable
from hermes_core.default_plugins.models.openai import NousModel, OpenAIConfig, OpenAIModel, OpenRouterModel
from hermes_core.default_plugins.models.openai._config import endpoints_of, pace_of
from hermes_core.exceptions import ConfigError, ModelResponseError, ModelUnreachableError
from hermes_core.models import ConversationStart, Message
from hermes_core.runs import component
from hermes_core.testing import ChatAnswer, FakeChatServer, completion

QUESTION = (Message("user", "What is here?"),)


def key_of(config: OpenAIConfig) -> str:
    return endpoints_of(config)[0].key.get_secret_value()


def url_of(config: OpenAIConfig) -> str:
    return endpoints_of(config)[0].base_url


def test_nothing_is_set() -> None:
    (endpoint,) = endpoints_of(OpenAIConfig())
    assert (endpoint.base_url, endpoint.model) == ("http://127.0.0.1:8080/v1", None)
    assert endpoint.key.get_secret_value() == "local"
    assert (pace_of(OpenAIConfig()).timeout_s, pace_of(OpenAIConfig()).heartbeat_s) == (240, 15)


def test_of_the_old_names_the_first_that_is_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ("LLM_BASE_URL", "LOCAL_LLM_BASE_URL", "OPENAI_BASE_URL", "ATROPOS_SERVER_BASE_URL")
    keys = ("LLM_API_KEY", "LOCAL_LLM_API_KEY", "OPENAI_API_KEY", "NOUS_API_KEY", "ATROPOS_SERVER_API_KEY")
    models = ("LOCAL_LLM_MODEL", "LLM_MODEL", "ATROPOS_SERVER_MODEL")
    for name in urls:  # the last of the order first
        monkeypatch.setenv(name, f"http://{name.lower()}")
        assert url_of(OpenAIConfig()) == f"http://{name.lower()}/v1"
    for name in keys:
        monkeypatch.setenv(name, f" {name} ")
        assert key_of(OpenAIConfig()) == name
    for name in models:
        monkeypatch.setenv(name, name)
        assert endpoints_of(OpenAIConfig())[0].model == name
    given = OpenAIConfig.model_validate({"base_url": "http://mine", "model": "m", "api_key": "k"})
    assert (url_of(given), endpoints_of(given)[0].model, key_of(given)) == ("http://mine/v1", "m", "k")


def test_dotenv_files_below_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    (Path.home() / ".hermes").mkdir()
    (Path.home() / ".hermes" / ".env").write_text("LLM_API_KEY=of-home\nLLM_MODEL=of-home\nLLM_BASE_URL=http://home\n")
    Path(".env").write_text('export LLM_API_KEY="of-work"\nLLM_MODEL=of-work\n')
    monkeypatch.setenv("LLM_API_KEY", "of-process")
    (endpoint,) = endpoints_of(OpenAIConfig())
    assert endpoint.key.get_secret_value() == "of-process"
    assert (endpoint.model, endpoint.base_url) == ("of-work", "http://home/v1")
    monkeypatch.setenv("LLM_MODEL", "")
    assert first_variable(["LLM_MODEL"]) is None


def test_a_dotenv_file_that_is_no_text() -> None:
    Path(".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"\.env cannot be read"):
        first_variable(["LLM_MODEL"])


def test_times_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATROPOS_SERVER_TIMEOUT_S", "300")
    assert pace_of(OpenAIConfig()).timeout_s == 300
    monkeypatch.setenv("ATROPOS_AGENT_CHAT_TIMEOUT_S", "60")
    assert pace_of(OpenAIConfig()).timeout_s == 60
    assert pace_of(OpenAIConfig(timeout_s=5)).timeout_s == 5
    for wrong in ("soon", "nan", "-1"):
        monkeypatch.setenv("ATROPOS_DEBUG_AGENT_WAIT_EVERY_S", wrong)
        with pytest.raises(ConfigError, match="ATROPOS_DEBUG_AGENT_WAIT_EVERY_S is no number of seconds"):
            pace_of(OpenAIConfig())


def test_a_hosted_service_gets_no_key_that_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere")
    for made, variable in ((OpenRouterModel, "OPENROUTER_API_KEY"), (NousModel, "NOUS_API_KEY")):
        with pytest.raises(ConfigError, match="no key for") as caught:
            made(OpenAIConfig(model="m"))
        assert variable in str(caught.value.hint)
    monkeypatch.setenv("OPENROUTER_API_KEY", "of-openrouter")
    (endpoint,) = endpoints_of(OpenAIConfig(), OpenRouterModel.provider)
    assert endpoint.base_url == "https://openrouter.ai/api/v1"
    assert endpoint.key.get_secret_value() == "of-openrouter"


@pytest.mark.anyio
async def test_a_hosted_service_is_asked_for_a_model_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeChatServer([completion("hi")], key="of-openrouter") as server:
        monkeypatch.setenv("OPENROUTER_API_KEY", "of-openrouter")
        monkeypatch.setenv("OPENROUTER_BASE_URL", server.url)
        async with OpenRouterModel(OpenAIConfig(model="org/m")) as model:
            assert model.name == "openrouter:org/m"
            assert (await model.conversation(ConversationStart("t")).respond(QUESTION)).content == "hi"
        assert server.requests[0]["model"] == "org/m"
    with pytest.raises(ConfigError, match="which model of openrouter"):
        async with OpenRouterModel():
            pass


@pytest.mark.parametrize("url", ["", ",", "http://a,,http://b"])
def test_an_empty_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="an address is empty"):
        OpenAIConfig(base_url=url)


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:port", "http://u:secret@:1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address") as caught:
        endpoints_of(OpenAIConfig(base_url=url))
    assert "secret" not in str(caught.value)


def test_credentials_of_an_address_are_not_shown() -> None:
    config = OpenAIConfig(base_url="http://u:secret@h:1,http://u:secret@h:2/v1")
    first, second = endpoints_of(config)
    assert (first.shown, second.shown) == ("http://h:1/v1", "http://h:2/v1")
    assert first.without_key("u:secret") == "u:***"
    assert component("openai", config).config["base_url"] == ["http://h:1", "http://h:2/v1"]


@pytest.mark.anyio
async def test_endpoints_share_the_work_and_keep_their_conversations() -> None:
    with FakeChatServer([completion("a")]) as first, FakeChatServer([completion("b")]) as second:
        async with OpenAIModel(OpenAIConfig(base_url=f"{first.url}, {second.url}/v1")) as model:
            for _ in range(3):
                conversation = model.conversation(ConversationStart("t"))
                answers = [(await conversation.respond(QUESTION)).content for _ in range(4)]
                assert len(set(answers)) == 1
        assert min(len(first.requests), len(second.requests)) == 4
        assert max(len(first.requests), len(second.requests)) == 8


@pytest.mark.anyio
async def test_an_endpoint_that_fails_is_left_alone_and_comes_back() -> None:
    answers = [ChatAnswer("down", status=500)] * 2 + [completion("recovered")]
    with FakeChatServer(answers) as flaky, FakeChatServer([completion("steady")]) as steady:
        async with OpenAIModel(OpenAIConfig(base_url=(flaky.url, steady.url))) as model:
            for _ in range(6):
                assert (await model.conversation(ConversationStart("t")).respond(QUESTION)).content == "steady"
            assert len(flaky.requests) == 1
            with anyio.fail_after(30):
                while len(flaky.requests) < 3:
                    turn = await model.conversation(ConversationStart("t")).respond(QUESTION)
                    await anyio.sleep(0.05)
            assert turn.content == "recovered"


@pytest.mark.anyio
async def test_one_endpoint_is_enough_to_begin(caplog: pytest.LogCaptureFixture) -> None:
    with FakeChatServer() as gone:
        nowhere = gone.url
    with FakeChatServer([completion("here")]) as server:
        async with OpenAIModel(OpenAIConfig(base_url=(nowhere, server.url))) as model:
            assert (await model.conversation(ConversationStart("t")).respond(QUESTION)).content == "here"
    assert f"nothing answers at {nowhere}" in caplog.text
    with pytest.raises(ModelUnreachableError, match=r"nothing answers at .*, "):
        async with OpenAIModel(OpenAIConfig(base_url=(nowhere, f"{nowhere}/v2"))):
            pass


@pytest.mark.anyio
async def test_endpoints_must_serve_the_same_model() -> None:
    with FakeChatServer(models=["a"]) as first, FakeChatServer(models=["b"]) as second:
        with pytest.raises(ConfigError, match="different models: a, b"):
            async with OpenAIModel(OpenAIConfig(base_url=(first.url, second.url))):
                pass


@pytest.mark.anyio
@pytest.mark.parametrize("status", [401, 404])
async def test_a_wrong_setting_is_told_at_once(status: int) -> None:
    wrong = ChatAnswer({"error": {"message": "wrong"}}, status=status)
    with FakeChatServer([wrong, completion("fine"), wrong], models=["right"]) as server:
        async with OpenAIModel(OpenAIConfig(base_url=server.url, model="wrong")) as model:
            conversation = model.conversation(ConversationStart("t"))
            with pytest.raises(ConfigError, match="wrong") as caught:
                await conversation.respond(QUESTION)
            assert len(server.requests) == 1
            assert ("right" if status == 404 else "api_key") in str(caught.value.hint)
            await conversation.respond(QUESTION)
            # Once it worked it is no wrong setting: the run goes on.
            with pytest.raises(ModelResponseError):
                await conversation.respond(QUESTION)
            assert len(server.requests) == 3
