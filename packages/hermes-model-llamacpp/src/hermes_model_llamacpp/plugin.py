"""Registers the model `local` and the commands that bring and serve models."""

from hermes_core import Entry, hookimpl


@hookimpl
def hermes_models() -> list[Entry]:
    """The model on this machine."""
    return [Entry("local", "hermes_model_llamacpp._model:LocalModel", "llama.cpp on this machine, exact tokens")]


@hookimpl
def hermes_commands() -> list[Entry]:
    """`hermes models pull` and `hermes models serve`."""
    return [
        Entry("models pull", "hermes_model_llamacpp._command:pull", "Bring a model for --model local"),
        Entry("models serve", "hermes_model_llamacpp._serve_command:serve", "Serve a model by llama.cpp"),
    ]
