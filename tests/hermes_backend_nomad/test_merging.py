"""A user's own job specification is merged into that of a sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_backend_nomad._merging import merge_job
from hermes_core.exceptions import ConfigError


def own() -> dict[str, Any]:
    return {
        "ID": "hermes-sandbox-1",
        "Name": "hermes-sandbox-1",
        "Type": "batch",
        "Namespace": "default",
        "Datacenters": ["dc1"],
        "Priority": 50,
        "Meta": {"hermes_owner": "me"},
        "TaskGroups": [
            {
                "Name": "sandbox",
                "Count": 1,
                "EphemeralDisk": {"SizeMB": 1024},
                "Networks": [{"Mode": "host", "DynamicPorts": [{"Label": "rpc"}]}],
                "Tasks": [
                    {
                        "Name": "daemon",
                        "Driver": "docker",
                        "Config": {"image": "i", "args": ["a"], "volumes": ["/x:/y:ro"]},
                        "Resources": {"CPU": 500, "MemoryMB": 512},
                        "Templates": [{"DestPath": "secrets/hermes.env"}],
                    }
                ],
            }
        ],
    }


def test_what_the_user_says_counts_and_all_else_stays() -> None:
    users = {
        "ID": "gpu",
        "Datacenters": ["dc2"],
        "NodePool": "gpu",
        "Constraints": [{"LTarget": "${attr.kernel.name}", "RTarget": "linux", "Operand": "="}],
        "Meta": {"team": "rl"},
        "TaskGroups": [
            {
                "Name": "any",
                "Volumes": {"data": {"Type": "host", "Source": "data"}},
                "Networks": [{"DynamicPorts": [{"Label": "rpc", "HostNetwork": "private"}]}],
                "Tasks": [
                    {
                        "Name": "any",
                        "Driver": "docker",
                        "Config": {"shm_size": 1},
                        "Resources": {"Devices": [{"Name": "nvidia/gpu", "Count": 1}], "MemoryMB": 4096},
                        "Templates": [{"DestPath": "local/more"}],
                    }
                ],
            }
        ],
    }
    merged = merge_job(own(), users)
    [group] = merged["TaskGroups"]
    [task] = group["Tasks"]
    assert (merged["ID"], merged["Type"], merged["NodePool"]) == ("hermes-sandbox-1", "batch", "gpu")
    assert merged["Datacenters"] == ["dc2"]
    assert merged["Meta"] == {"hermes_owner": "me", "team": "rl"}
    assert merged["Constraints"] == users["Constraints"]
    assert (group["Name"], group["Count"], group["Volumes"]["data"]["Source"]) == ("sandbox", 1, "data")
    assert group["Networks"] == [{"Mode": "host", "DynamicPorts": [{"Label": "rpc", "HostNetwork": "private"}]}]
    assert task["Config"] == {"image": "i", "args": ["a"], "volumes": ["/x:/y:ro"], "shm_size": 1}
    assert task["Resources"] == {"CPU": 500, "MemoryMB": 4096, "Devices": [{"Name": "nvidia/gpu", "Count": 1}]}
    assert [template["DestPath"] for template in task["Templates"]] == ["secrets/hermes.env", "local/more"]


def test_nothing_said_changes_nothing() -> None:
    assert merge_job(own(), {"ID": "x", "Name": "x"}) == own()


def test_what_sandboxes_need_of_their_driver_stays_beside_what_the_user_adds() -> None:
    merged = merge_job(own(), {"TaskGroups": [{"Tasks": [{"Config": {"volumes": ["/data:/data"], "args": ["b"]}}]}]})
    assert merged["TaskGroups"][0]["Tasks"][0]["Config"] == {
        "image": "i",
        "args": ["b"],
        "volumes": ["/x:/y:ro", "/data:/data"],
    }


def test_the_image_of_a_task_takes_the_place_of_any_that_is_configured() -> None:
    users = {"TaskGroups": [{"Tasks": [{"Config": {"image": "of-the-job"}}]}]}

    def image(tasks_image: str | None) -> str:
        [group] = merge_job(own(), users, tasks_image=tasks_image)["TaskGroups"]
        return str(group["Tasks"][0]["Config"]["image"])

    assert image(None) == "of-the-job"
    assert image("of-the-task") == "of-the-task"


@pytest.mark.parametrize(
    ("users", "reason"),
    [
        ({"Type": "service"}, "batch jobs"),
        ({"Namespace": "other"}, "names the namespace 'other'"),
        ({"TaskGroups": [{}, {}]}, "2 blocks group"),
        ({"TaskGroups": [{"Tasks": [{}, {}]}]}, "2 blocks task"),
        ({"TaskGroups": [{"Tasks": [{"Driver": "exec"}]}]}, "driver 'exec'"),
        ({"Periodic": {"Spec": "@daily"}}, "run once"),
        ({"TaskGroups": [{"Count": 3}]}, "asks for 3"),
        ({"TaskGroups": [{"Networks": [{"Mode": "bridge"}]}]}, "mode 'bridge'"),
        ({"TaskGroups": "sandbox"}, "no list of objects"),
        ({"TaskGroups": [{"Networks": ["x"]}]}, "no list of objects"),
    ],
)
def test_what_no_sandbox_can_be_is_refused(users: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        merge_job(own(), users)
