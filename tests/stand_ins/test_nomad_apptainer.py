"""Apptainer as a task of raw_exec, as an ordinary user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.hermes_backend_singularity.engine import IMAGE
from tests.hermes_backend_singularity.ordinary_user import USER
from tests.stand_ins.nomad_jobs import batch

if TYPE_CHECKING:
    from tests.stand_ins.nomad.cluster import Cluster


@pytest.mark.apptainer
def test_a_port_is_handed_into_the_container(cluster: Cluster) -> None:
    script = 'echo "$PORT ${NOMAD_PORT_rpc-unset}"; id -u >/dev/null && exec sleep 1000'
    arguments = [
        "exec",
        "--cleanenv",
        "--env",
        "PORT=${NOMAD_PORT_rpc}",
        str(IMAGE),
        "sh",
        "-c",
        script.replace("${", "$${"),
    ]
    job = batch("raw_exec", {"command": "apptainer", "args": arguments}, User=USER)
    try:
        cluster.register(job)
        allocation = cluster.allocation(job["ID"], "running", "failed")
        [port] = allocation["AllocatedResources"]["Shared"]["Ports"]
        expected = f"{port['Value']} unset\n"
        cluster.eventually(lambda: cluster.logs(allocation["ID"]) == expected)
    finally:
        cluster.purge(job["ID"])
