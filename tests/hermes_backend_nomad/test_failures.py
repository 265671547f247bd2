"""Why a sandbox did not come up: one line with the cause, and a hint."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_backend_nomad._allocation import Allocation, Evaluation
from hermes_backend_nomad._failures import broken_start, start_failure, unplaced
from hermes_core.exceptions import BackendUnavailableError, NoCapacityError, SandboxLostError


def evaluation(**numbers: object) -> Evaluation:
    return Evaluation.of(
        {"ID": "e", "JobID": "j", "Status": "complete", "FailedTGAllocs": {"sandbox": {"NodesEvaluated": 1, **numbers}}}
    )


def allocation(*events: tuple[str, str], **more: object) -> Allocation:
    said: dict[str, Any] = {
        "ID": "a",
        "JobID": "j",
        "NodeName": "node7",
        "ClientStatus": "pending",
        "DesiredStatus": "run",
        "TaskStates": {"daemon": {"Events": [{"Type": kind, "DisplayMessage": text} for kind, text in events]}},
        **more,
    }
    return Allocation.of(said)


@pytest.mark.parametrize(
    ("numbers", "message", "hint"),
    [
        ({"DimensionExhausted": {"memory": 2}}, "exhausted is memory on 2 nodes", "-B memory=MB"),
        ({"ConstraintFiltered": {"missing drivers": 1}}, "missing drivers on 1 node", "enable the driver"),
        ({"ConstraintFiltered": {"${attr.x} = y": 3}}, "${attr.x} = y on 3 nodes", "-B job=FILE"),
        (
            {"NodesEvaluated": 0, "NodesAvailable": {"dc1": 0}},
            "no node in datacenter 'dc1,dc2', node pool 'gpu'",
            "nomad node status",
        ),
    ],
)
def test_a_sandbox_that_no_node_takes_says_what_is_lacking(numbers: dict[str, Any], message: str, hint: str) -> None:
    error = unplaced(evaluation(**numbers), {"Datacenters": ["dc1", "dc2"], "NodePool": "gpu"})
    assert isinstance(error, NoCapacityError)
    assert message in error.message
    assert hint in str(error.hint)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("driver does not allow the following capabilities: sys_admin", "allow_caps"),
        ("Docker privileged mode is disabled on this Nomad agent", "privileged"),
        ('volumes are not enabled; cannot mount host path: "/x"', "enable volumes"),
        ('binary "apptainer" could not be found', "-B executable=PATH"),
        ("user: unknown user nobody7", "-B user=NAME"),
        ("Failed to pull `x:1`: Error response from daemon: manifest not found", "-B image=TAG"),
    ],
)
def test_a_driver_that_refuses_is_not_waited_for(text: str, hint: str) -> None:
    refused = allocation(("Received", "Task received by client"), ("Driver Failure", text))
    assert broken_start(refused)
    error = start_failure(refused, "")
    assert isinstance(error, BackendUnavailableError)
    assert "on node node7: Driver Failure" in error.message
    assert hint in str(error.hint)


def test_a_driver_that_tells_the_whole_command_is_cut_short() -> None:
    text = """failed to launch command with executor: path="/bin/sh" --- args=["/bin/sh" "-c" "[ 1 ]
    && echo" "/run/hermes/runtime/lib/loader"]: fork/exec /bin/sh: permission denied"""
    error = start_failure(allocation(("Driver Failure", text)), "")
    assert error.message.endswith('executor: path="/bin/sh": fork/exec /bin/sh: permission denied')
    assert "chmod 711" in str(error.hint)


def test_a_daemon_that_ends_is_told_with_its_last_lines() -> None:
    ended = allocation(("Terminated", "Exit Code: 3"), ClientStatus="failed")
    error = start_failure(ended, "one\ntwo\nthree\nfour\n")
    assert isinstance(error, SandboxLostError)
    assert error.message.endswith("Terminated: Exit Code: 3: two | three | four")


def test_a_daemon_that_cannot_work_there_is_not_tried_again() -> None:
    ended = allocation(("Terminated", "Exit Code: 2"), ClientStatus="failed")
    error = start_failure(ended, "hermes-sandboxd: no tmp; mount one\n")
    assert isinstance(error, BackendUnavailableError)
    assert error.hint == "mount one"


def test_a_runtime_of_another_version_is_called_that() -> None:
    ended = allocation(("Terminated", "Exit Code: 2"), ClientStatus="failed")
    error = start_failure(ended, "usage: hermes-sandboxd\nhermes-sandboxd: error: unrecognized arguments: --new\n")
    assert isinstance(error, BackendUnavailableError)
    assert "another version" in str(error.hint)


def test_a_sandbox_that_was_told_to_end_is_tried_again_whatever_its_status() -> None:
    stopped = allocation(("Terminated", "Exit Code: 255"), ClientStatus="failed", DesiredStatus="stop")
    assert isinstance(start_failure(stopped, ""), SandboxLostError)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"ClientStatus": "running"}, None),
        ({"ClientStatus": "unknown"}, None),
        ({"ClientStatus": "lost"}, "node node7 is lost"),
        ({"DesiredStatus": "stop", "DesiredTransition": {"Migrate": True}}, "is drained, or"),
        ({"DesiredStatus": "evict", "PreemptedByAllocation": "b"}, "preempted"),
        ({"DesiredStatus": "stop", "DesiredDescription": "alloc not needed"}, "stopped: alloc not needed"),
        ({"ClientStatus": "failed"}, "it is failed"),
    ],
)
def test_what_the_cluster_says_of_a_running_sandbox(said: dict[str, Any], why: str | None) -> None:
    seen = allocation(**said).dying
    assert (seen is None) if why is None else why in str(seen)
