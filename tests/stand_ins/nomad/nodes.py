"""The nodes: what they are, draining, eligibility, and what becomes of one that is silent."""

from __future__ import annotations

import asyncio
import os
import platform
from typing import TYPE_CHECKING

from .capacity import node_resources
from .documents import Doc, RequestError, new_id, now, rfc3339
from .state import key_of
from .web import check_id

if TYPE_CHECKING:
    from .client import Client
    from .options import Options
    from .scheduler import Scheduler
    from .state import State

__all__ = ["Nodes", "node_stub"]


def driver_info(detected: bool, name: str, version: str = "") -> Doc:
    attributes = {f"driver.{name}": "true"} | ({f"driver.{name}.version": version} if version else {})
    said = "Healthy" if detected else f"{name} is not available"
    return {
        **{"Attributes": attributes if detected else None, "Detected": detected, "Healthy": detected},
        **{"HealthDescription": said, "UpdateTime": rfc3339(now())},
    }


class Nodes:
    """All nodes of the cluster, which are one machine."""

    def __init__(self, options: Options, state: State, scheduler: Scheduler, client: Client) -> None:
        self._options = options
        self._state = state
        self._scheduler = scheduler
        self._client = client
        self.lost: set[str] = set()

    def register(self, docker_version: str | None) -> None:
        """Make the nodes, or find them again."""
        known = {node["Name"]: node for node in self._state.tables["nodes"].values()}
        with self._state.change("NodeRegistration") as transaction:
            for number in range(self._options.nodes):
                node = known.get(f"stand-in-{number}", {"ID": new_id(), "DrainStrategy": None, "LastDrain": None})
                node |= self._describe(number, docker_version)
                node.setdefault("SchedulingEligibility", "eligible")
                transaction.put("nodes", node)
        for node in list(self._state.tables["nodes"].values()):
            if node["DrainStrategy"]:
                self._client.spawn(self._drain(node))

    def _describe(self, number: int, docker_version: str | None) -> Doc:
        options = self._options
        low, high = options.min_dynamic_port, options.max_dynamic_port
        share = (high + 1 - low) // options.nodes
        ports = (low + share * number, low + share * (number + 1) - 1)
        drivers = {
            "raw_exec": driver_info(options.raw_exec, "raw_exec"),
            "docker": driver_info(options.docker and docker_version is not None, "docker", docker_version or ""),
            "mock": driver_info(True, "mock"),
        }
        attributes = {
            **{"kernel.name": "linux", "kernel.version": platform.release(), "cpu.arch": "amd64", "os.name": "linux"},
            **{"unique.hostname": platform.node(), "unique.network.ip-address": options.host},
            **{"nomad.version": options.version, "cpu.numcores": str(os.cpu_count() or 1), "stand-in": "true"},
            **{"memory.totalbytes": str(options.memory << 20)},
        }
        for info in drivers.values():
            attributes |= info["Attributes"] or {}
        return {
            **{"Name": f"stand-in-{number}", "Datacenter": options.datacenter, "NodePool": options.node_pool},
            **{
                "NodeClass": "",
                "HTTPAddr": f"{options.host}:{options.port}",
                "TLSEnabled": options.tls_cert is not None,
            },
            **{"Attributes": attributes, "Drivers": drivers, "Meta": {}, "HostVolumes": {}, "Links": {}},
            **{"Status": "ready", "StatusDescription": "", "StatusUpdatedAt": now() // 10**9, "Events": []},
            "NodeResources": node_resources(options.cpu, options.memory, options.disk, options.host, ports),
            "ReservedResources": {"Cpu": {"CpuShares": 0}, "Memory": {"MemoryMB": 0}, "Disk": {"DiskMB": 0}},
        }

    def get(self, name: str) -> Doc:
        """Find a node by its ID."""
        check_id(name, "node lookup failed")
        node = self._state.tables["nodes"].get(name)
        if node is None:
            raise RequestError(404, "node not found")
        return node

    def set_eligibility(self, node: Doc, eligibility: str) -> None:
        """Let a node be given new allocations, or not."""
        if eligibility not in ("eligible", "ineligible"):
            raise RequestError(500, f'invalid scheduling eligibility "{eligibility}"')
        if node["DrainStrategy"] and eligibility == "eligible":
            raise RequestError(500, "can not set node's scheduling eligibility to eligible while it is draining")
        with self._state.change("NodeEligibility") as transaction:
            node["SchedulingEligibility"] = eligibility
            transaction.put("nodes", node)
        if eligibility == "eligible":
            self._scheduler.capacity_changed()

    def set_drain(self, node: Doc, spec: Doc | None, *, eligible: bool) -> None:
        """Begin or end a drain."""
        with self._state.change("NodeDrain") as transaction:
            if spec is None:
                node["DrainStrategy"] = None
                node["SchedulingEligibility"] = "eligible" if eligible else "ineligible"
            else:
                deadline = int(spec.get("Deadline") or 0)
                end = rfc3339(now() + deadline) if deadline > 0 else None
                node["DrainStrategy"] = {
                    **{"Deadline": deadline, "IgnoreSystemJobs": bool(spec.get("IgnoreSystemJobs"))},
                    **{"ForceDeadline": end, "StartedAt": rfc3339(now())},
                }
                node["SchedulingEligibility"] = "ineligible"
                moment = rfc3339(now())
                node["LastDrain"] = {"StartedAt": moment, "UpdatedAt": moment, "Status": "draining", "Meta": None}
            transaction.put("nodes", node)
        if spec is None:
            self._scheduler.capacity_changed()
        else:
            self._client.spawn(self._drain(node))

    def _left(self, node: Doc) -> list[Doc]:
        on_node = self._state.of_node[node["ID"]].values()
        return [one for one in on_node if one["DesiredStatus"] == "run"]

    async def _drain(self, node: Doc) -> None:
        """Migrate services at once, and batch jobs when the deadline has passed."""
        strategy = node["DrainStrategy"]
        waited, deadline = 0.0, strategy["Deadline"] / 1e9
        while node["DrainStrategy"] is strategy:
            forced = deadline < 0 or 0 < deadline <= waited
            moving = [one for one in self._left(node) if forced or one["Job"]["Type"] == "service"]
            if moving:
                self.migrate(moving, "node-drain")
            if forced or not self._state.of_node[node["ID"]]:
                break
            await asyncio.sleep(0.05)
            waited += 0.05
        if node["DrainStrategy"] is strategy:
            with self._state.change("NodeDrain") as transaction:
                node["DrainStrategy"] = None
                node["LastDrain"] |= {"Status": "complete", "UpdatedAt": rfc3339(now())}
                transaction.put("nodes", node)

    def migrate(self, allocations: list[Doc], trigger: str) -> str:
        """Have allocations replaced; returns the last evaluation's ID."""
        evaluation = ""
        with self._state.change("AllocationUpdateDesiredStatus") as transaction:
            for allocation in allocations:
                wanted = {"Migrate": True}
                if trigger == "node-drain" and allocation["Job"]["Type"] == "batch":
                    wanted["MigrateDisablePlacement"] = True
                allocation["DesiredTransition"] = allocation["DesiredTransition"] | wanted
                transaction.put("allocations", allocation)
            jobs = {key_of(one["Namespace"], one["JobID"]): one["Job"] for one in allocations}
            for job in jobs.values():
                evaluation = self._scheduler.evaluate(transaction, job, trigger)["ID"]
        return evaluation

    async def lose(self, node: Doc, *, keep_tasks: bool) -> None:
        """Take a node away, perhaps with its tasks; the servers learn of it when its heartbeat is missed."""
        self.lost.add(node["ID"])
        await self._client.lose(node["ID"], keep_tasks=keep_tasks)
        self._client.spawn(self._miss(node))

    async def _miss(self, node: Doc) -> None:
        await asyncio.sleep(self._options.node_ttl)
        if node["ID"] not in self.lost:
            return
        with self._state.change("NodeStreamEvent") as transaction:
            node |= {"Status": "down", "StatusUpdatedAt": now() // 10**9}
            transaction.put("nodes", node)
            on_node = self._state.of_node[node["ID"]].values()
            for job in {key_of(one["Namespace"], one["JobID"]): one["Job"] for one in on_node}.values():
                self._scheduler.evaluate(transaction, job, "node-update")

    def find(self, node: Doc) -> None:
        """Let a lost node come back."""
        self.lost.discard(node["ID"])
        self._client.find(node["ID"])
        with self._state.change("NodeRegistration") as transaction:
            node |= {"Status": "ready", "StatusUpdatedAt": now() // 10**9}
            transaction.put("nodes", node)
        self._client.find(node["ID"])
        self._scheduler.capacity_changed()

    def set_capacity(self, node: Doc, *, cpu: int | None, memory: int | None, disk: int | None) -> None:
        """Change what a node has."""
        with self._state.change("NodeRegistration") as transaction:
            resources = node["NodeResources"]
            for name, key, value in (
                ("Cpu", "CpuShares", cpu),
                ("Memory", "MemoryMB", memory),
                ("Disk", "DiskMB", disk),
            ):
                if value is not None:
                    resources[name][key] = value
            transaction.put("nodes", node)
        self._scheduler.capacity_changed()


def node_stub(node: Doc, *, resources: bool) -> Doc:
    """Show a node as lists do."""
    keys: tuple[str, ...] = ("ID", "Datacenter", "Name", "NodePool", "NodeClass", "SchedulingEligibility", "Status")
    keys += ("StatusDescription", "Drivers", "HostVolumes", "LastDrain", "CreateIndex", "ModifyIndex")
    keys += ("NodeResources", "ReservedResources") if resources else ()
    stub = {key: node[key] for key in keys}
    stub["Address"] = node["HTTPAddr"].rpartition(":")[0]
    return stub | {"Version": node["Attributes"]["nomad.version"], "Drain": node["DrainStrategy"] is not None}
