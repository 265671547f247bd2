from __future__ import annotations

import pytest

from hermes_core._catalogue import Catalogue
from hermes_core.default_plugins.models import OpenAIModel
from hermes_core.exceptions import ConfigError, UnknownNameError
from hermes_core.plugins import create_plugin_manager


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(create_plugin_manager())


@pytest.mark.parametrize("model", ["gpt-x", "org/name:free", "a:b:c"])
def test_what_follows_the_colon_is_the_setting_that_the_model_names(catalogue: Catalogue, model: str) -> None:
    made = catalogue.model(f"openai:{model}", {"max_retries": 1})
    assert isinstance(made, OpenAIModel)
    assert (made.config.model, made.config.max_retries) == (model, 1)


def test_without_a_colon_nothing_is_set(catalogue: Catalogue) -> None:
    made = catalogue.model("openai", {})
    assert isinstance(made, OpenAIModel)
    assert made.config.model is None


def test_a_setting_that_is_given_twice_must_be_the_same(catalogue: Catalogue) -> None:
    catalogue.model("openai:gpt-x", {"model": "gpt-x"})
    with pytest.raises(ConfigError, match="model is given twice: 'gpt-x' and 'gpt-y'"):
        catalogue.model("openai:gpt-x", {"model": "gpt-y"})


@pytest.mark.parametrize(
    ("name", "said"),
    [("oracle:x", "takes nothing after a colon"), ("openai:", "nothing follows the colon")],
)
def test_a_colon_that_means_nothing_is_refused(catalogue: Catalogue, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        catalogue.model(name, {})


def test_an_unknown_name_is_told_without_what_follows_it(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'nobody'"):
        catalogue.model("nobody:http://host:1", {})
