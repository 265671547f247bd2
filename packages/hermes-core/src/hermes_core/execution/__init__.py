"""Execution: tool calls on their way to a slot or to the host, and back."""

from hermes_core.execution._artifact_replies import (
    ArtifactArchive,
    ArtifactContent,
    ArtifactEntry,
    ArtifactListing,
    archive_artifact,
    list_artifacts,
    read_artifact,
)
from hermes_core.execution._background import BackgroundProcess, ProcessOutput
from hermes_core.execution._call import JsonValue, ToolCall, ToolDefinition, ToolResult
from hermes_core.execution._executor import DefaultBatchExecutor
from hermes_core.execution._grading import Grading
from hermes_core.execution._request import BatchExecutor, CallRequest, ExecutorConfig, ExecutorStatus
from hermes_core.execution._result import ExecResult
from hermes_core.execution._slot import Slot
from hermes_core.execution._tool import Tool, ToolContext, advertised
from hermes_core.execution._transfer import Transferred

__all__ = [
    "ArtifactArchive",
    "ArtifactContent",
    "ArtifactEntry",
    "ArtifactListing",
    "BackgroundProcess",
    "BatchExecutor",
    "CallRequest",
    "DefaultBatchExecutor",
    "ExecResult",
    "ExecutorConfig",
    "ExecutorStatus",
    "Grading",
    "JsonValue",
    "ProcessOutput",
    "Slot",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolDefinition",
    "ToolResult",
    "Transferred",
    "advertised",
    "archive_artifact",
    "list_artifacts",
    "read_artifact",
]
