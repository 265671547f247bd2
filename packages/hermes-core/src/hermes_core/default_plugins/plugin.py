"""Registers what ships with Hermes."""

from __future__ import annotations

from hermes_core.hookspecs import hookimpl
from hermes_core.plugins import Entry

_HERE = "hermes_core.default_plugins"
_CLI = "hermes_core.cli"


@hookimpl
def hermes_tools() -> list[Entry]:
    """The sandbox tools."""
    return [
        Entry("terminal", f"{_HERE}.tools:terminal", "Run a command in the sandbox"),
        Entry("terminal_stateful", f"{_HERE}.tools:terminal_stateful", "Run a command in a shell that persists"),
        Entry("tmux", f"{_HERE}.tools:tmux", "Work in a terminal: full-screen programs, keys, screens"),
        Entry("read_file", f"{_HERE}.tools:read_file", "Read a text file of the sandbox"),
        Entry("write_file", f"{_HERE}.tools:write_file", "Write a text file in the sandbox"),
    ]


@hookimpl
def hermes_toolsets() -> list[Entry]:
    """The built-in toolsets."""
    return [
        Entry("terminal", f"{_HERE}.toolsets:TERMINAL", "Run commands in the sandbox"),
        Entry("terminal_stateful", f"{_HERE}.toolsets:TERMINAL_STATEFUL", "A shell and terminals that persist"),
        Entry("filesystem", f"{_HERE}.toolsets:FILESYSTEM", "Read and write files in the sandbox"),
        Entry("sandbox", f"{_HERE}.toolsets:SANDBOX", "Everything that works in the sandbox"),
        Entry("default", f"{_HERE}.toolsets:DEFAULT", "What an agent usually needs"),
        Entry("safe", f"{_HERE}.toolsets:SAFE", "No command execution"),
    ]


@hookimpl
def hermes_sandbox_backends() -> list[Entry]:
    """The embedded default."""
    return [Entry("local", f"{_HERE}.local_backend:LocalBackend", "Slots in namespaces on this machine")]


@hookimpl
def hermes_models() -> list[Entry]:
    """Models that need no engine of their own."""
    return [
        Entry("oracle", f"{_HERE}.models:OracleModel", "Plays the environment's reference solution"),
        Entry("scripted", f"{_HERE}.models:ScriptedModel", "Says turns that were written beforehand"),
        Entry("replay", f"{_HERE}.models:ReplayModel", "Plays the turns of a recorded run again"),
        Entry("openai", f"{_HERE}.models:OpenAIModel", "Any OpenAI-compatible chat endpoint"),
        Entry("openrouter", f"{_HERE}.models:OpenRouterModel", "openrouter:MODEL, a model of OpenRouter"),
        Entry("nous", f"{_HERE}.models:NousModel", "nous:MODEL, a model of Nous' hosted API"),
        Entry("llamacpp", f"{_HERE}.models:LlamacppModel", "A llama.cpp server, exact tokens"),
        Entry("vllm", f"{_HERE}.models:VllmModel", "A vLLM server, exact tokens"),
        Entry("sglang", f"{_HERE}.models:SglangModel", "An SGLang server, exact tokens"),
    ]


@hookimpl
def hermes_tool_call_formats() -> list[Entry]:
    """The format that any model can be prompted into, and those of model families."""
    formats = f"{_HERE}.tool_call_formats"
    return [
        Entry("hermes", "hermes_core.models:HERMES_FORMAT", '<tool_call>{"name": …, "arguments": {…}}</tool_call>'),
        Entry("qwen3_coder", f"{formats}:QWEN3_CODER", "<tool_call><function=…><parameter=…>value</parameter>…"),
        Entry("glm4.5", f"{formats}:GLM45", "<tool_call>name<arg_key>…</arg_key><arg_value>…</arg_value>…"),
        Entry("llama3_json", f"{formats}:LLAMA3_JSON", '{"name": …, "parameters": {…}}; …'),
        Entry("pythonic", f"{formats}:PYTHONIC", "[name(key=value), …]"),
        Entry("lfm2", f"{formats}:LFM2", "<|tool_call_start|>[name(key=value), …]<|tool_call_end|>"),
        Entry("mistral", f"{formats}:MISTRAL", '[TOOL_CALLS] [{"name": …, "arguments": {…}, "id": …}, …]'),
        Entry("mistral_v11", f"{formats}:MISTRAL_V11", "[TOOL_CALLS]name[ARGS]{…}…"),
        Entry("deepseek_v3", f"{formats}:DEEPSEEK_V3", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>name ```json…"),
        Entry("deepseek_v3.1", f"{formats}:DEEPSEEK_V31", "<｜tool▁call▁begin｜>name<｜tool▁sep｜>{…}…"),
        Entry("kimi_k2", f"{formats}:KIMI_K2", "<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}…"),
    ]


@hookimpl
def hermes_exporters() -> list[Entry]:
    """The plainest form of what is trained on."""
    return [Entry("rows", f"{_HERE}.exporters:ROWS", "JSON lines of ids, mask, logprobs and reward")]


@hookimpl
def hermes_slot_pools() -> list[Entry]:
    """The pool of the setting `slot_pool = "default"`."""
    return [Entry("default", "hermes_core.slots:DefaultSlotPool", "Fair leases, grows on demand")]


@hookimpl
def hermes_batch_executors() -> list[Entry]:
    """The executor of the setting `batch_executor = "default"`."""
    return [Entry("default", "hermes_core.execution:DefaultBatchExecutor", "One write per sandbox, no waiting window")]


@hookimpl
def hermes_commands() -> list[Entry]:
    """The command line."""
    return [
        Entry("run", f"{_CLI}._run:run", "Run a model on an environment's tasks"),
        Entry("export", f"{_CLI}._export:export", "Write a run's trajectories in another format"),
        Entry("doctor", f"{_CLI}._doctor:doctor", "What works on this machine, and what to do about the rest"),
        Entry(
            "sandbox",
            f"{_CLI}._sandbox:sandbox",
            "Run commands in a sandbox: exec, shell, list, cleanup, runtime",
        ),
        Entry("plugins", f"{_CLI}._listings:plugins", "List plugins and what they register"),
        Entry("tools", f"{_CLI}._listings:tools", "List tools"),
        Entry("toolsets", f"{_CLI}._listings:toolsets", "List toolsets"),
        Entry("backends", f"{_CLI}._listings:backends", "List sandbox backends"),
        Entry("models", f"{_CLI}._listings:models", "List models"),
        Entry("models formats", f"{_CLI}._listings:formats", "List text forms of tool calls"),
        Entry("envs", f"{_CLI}._listings:envs", "List environments"),
    ]
