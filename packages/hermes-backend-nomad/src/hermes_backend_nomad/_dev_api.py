"""What is asked of an agent that was started for this machine alone."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio
import click
import httpx

from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from hermes_backend_nomad._dev_agent import DevAgent

__all__ = ["DevApi"]

CALL_S = 10.0
TASKS_S = 20.0
"""Within which tasks that are stopped end: Nomad kills them after five seconds, unless their job says otherwise."""
CLEAR_S = 10.0
POLL_S = 0.2
EVERYWHERE = {"namespace": "*"}
NEVER = "0s"
DONE = "already done"
LIVE = ("pending", "running")


class DevApi:
    """The API of an agent that has one node.

    Args:
        agent: Which one.
        token: What it lets us in for, if it asks for tokens.
    """

    def __init__(self, agent: DevAgent, token: str | None) -> None:
        self._agent = agent
        self._token = token

    async def set_token(self) -> bool:
        """Have the agent know the token, its first one; say whether it does, which it cannot before it is up.

        Raises:
            BackendUnavailableError: It knows another.
        """
        async with self._http() as http:
            try:
                made = await http.put("/v1/acl/bootstrap", json={"BootstrapSecret": self._token})
                if not made.is_success and DONE not in made.text:
                    return False
                known = await http.get("/v1/acl/token/self")
            except httpx.HTTPError:
                return False
        if known.status_code in (403, 404):
            raise BackendUnavailableError(
                "the agent asks for another token than the one that is kept in its folder",
                hint=f"remove {self._agent.data_dir}, with all that it knows, or name another: --data-dir",
            )
        return known.is_success

    async def drivers(self) -> dict[str, str]:
        """Return what is wrong with each driver of its node, nothing being the empty text; none until it is ready."""
        async with self._http() as http:
            try:
                client = (await http.get("/v1/agent/self")).raise_for_status().json()["stats"].get("client", {})
                nodes = (await http.get("/v1/nodes")).raise_for_status().json()
            except httpx.HTTPError:
                return {}
        # A node that was here before is called ready even while its agent has not yet said that it is back.
        if client.get("heartbeat_ttl", NEVER) == NEVER or [node["Status"] for node in nodes] != ["ready"]:
            return {}
        found = {name: facts for name, facts in nodes[0]["Drivers"].items() if facts["Detected"]}
        return {name: "" if facts["Healthy"] else facts["HealthDescription"] for name, facts in found.items()}

    async def stop_everything(self) -> None:
        """Purge all jobs, wait for their tasks to end, and have what is left of them removed; say what fails."""
        try:
            async with self._http() as http:
                for job in (await http.get("/v1/jobs", params=EVERYWHERE)).raise_for_status().json():
                    query = {"purge": "true", "namespace": job["Namespace"]}
                    await http.delete(f"/v1/job/{quote(job['ID'], safe='')}", params=query)
                if left := await self._still_live(http):
                    click.echo(f"warning: {left} tasks do not end", err=True)
                await self._clear(http)
        except httpx.HTTPError as error:
            click.echo(f"warning: its jobs could not be stopped: {error or type(error).__name__}", err=True)

    async def _clear(self, http: httpx.AsyncClient) -> None:
        """Have containers and folders of what has ended removed."""
        folders = anyio.Path(self._agent.data_dir) / "alloc"
        with anyio.move_on_after(CLEAR_S):
            while [folder async for folder in folders.iterdir()]:
                await http.put("/v1/client/gc")
                await anyio.sleep(POLL_S)
        await http.put("/v1/system/gc")

    async def _still_live(self, http: httpx.AsyncClient) -> int:
        """Wait for all tasks to end; return how many do not if that takes too long."""
        left = 0
        with anyio.move_on_after(TASKS_S):
            while True:
                allocations = (await http.get("/v1/allocations", params=EVERYWHERE)).raise_for_status().json()
                left = sum(one["ClientStatus"] in LIVE for one in allocations)
                if not left:
                    break
                await anyio.sleep(POLL_S)
        return left

    def _http(self) -> httpx.AsyncClient:
        headers = {"X-Nomad-Token": self._token} if self._token else {}
        return httpx.AsyncClient(base_url=self._agent.url, headers=headers, timeout=CALL_S, trust_env=False)
