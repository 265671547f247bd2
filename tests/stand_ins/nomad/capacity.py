"""What a node has left: cpu, memory, disk and ports."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .documents import Doc

__all__ = ["Demand", "allocated", "assign_ports", "demand", "lacking", "node_resources", "used"]


@dataclass(frozen=True, slots=True)
class Demand:
    """MHz, MB and MB."""

    cpu: int = 0
    memory: int = 0
    disk: int = 0

    def __add__(self, other: Demand) -> Demand:
        """Sum two demands."""
        return Demand(self.cpu + other.cpu, self.memory + other.memory, self.disk + other.disk)


def demand(group: Doc) -> Demand:
    """Return what one allocation of a group takes."""
    resources = [task["Resources"] for task in group["Tasks"]]
    cpu = sum(item["CPU"] + 1000 * (item.get("Cores") or 0) for item in resources)
    return Demand(cpu, sum(item["MemoryMB"] for item in resources), group["EphemeralDisk"]["SizeMB"])


def used(allocations: Iterable[Doc]) -> Demand:
    """Sum what these allocations take."""
    cpu = memory = disk = 0
    for allocation in allocations:
        resources = allocation["AllocatedResources"]
        disk += resources["Shared"]["DiskMB"]
        for task in resources["Tasks"].values():
            cpu += task["Cpu"]["CpuShares"]
            memory += task["Memory"]["MemoryMB"]
    return Demand(cpu, memory, disk)


def lacking(node: Doc, taken: Demand, wanted: Demand) -> str | None:
    """Name the dimension that a node has too little of."""
    total, need = node["NodeResources"], taken + wanted
    if need.cpu > total["Cpu"]["CpuShares"]:
        return "cpu"
    if need.memory > total["Memory"]["MemoryMB"]:
        return "memory"
    return "disk" if need.disk > total["Disk"]["DiskMB"] else None


def free(host: str, port: int) -> bool:
    """Tell whether nobody on this machine, another stand-in for instance, listens at a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def assign_ports(group: Doc, node: Doc, taken: Iterable[Doc]) -> list[Doc] | str:
    """Give each label a port of the node; text is the dimension that is exhausted."""
    resources = node["NodeResources"]
    address = resources["Networks"][0]["IP"]
    busy = {
        port["Value"] for allocation in taken for port in allocation["AllocatedResources"]["Shared"].get("Ports", ())
    }
    ports: list[Doc] = []
    for network in group["Networks"] or ():
        for port in network["ReservedPorts"] or ():
            if port["Value"] in busy:
                return f"network: reserved port collision {port['Label']}={port['Value']}"
            busy.add(port["Value"])
            ports.append(mapping(port, port["Value"], address))
        low, high = resources["MinDynamicPort"], resources["MaxDynamicPort"]
        for port in network["DynamicPorts"] or ():
            count = high + 1 - low
            start = random.randrange(count)
            candidates = (low + (start + step) % count for step in range(count))
            value = next((one for one in candidates if one not in busy and free(address, one)), None)
            if value is None:
                return "network: dynamic port selection failed"
            busy.add(value)
            ports.append(mapping(port, value, address))
    return ports


def mapping(port: Doc, value: int, address: str) -> Doc:
    """Write one of `AllocatedResources.Shared.Ports`."""
    to = value if port.get("To") == -1 else port.get("To")
    return {"Label": port["Label"], "Value": value, **({"To": to} if to else {}), "HostIP": address}


def allocated(group: Doc, ports: list[Doc], address: str) -> Doc:
    """Write `AllocatedResources`."""
    values = {port["Label"]: port["Value"] for port in ports}
    networks = []
    for network in group["Networks"] or ():
        written: Doc = {"Mode": network["Mode"], "IP": address}
        for kind in ("ReservedPorts", "DynamicPorts"):
            if network[kind]:
                written[kind] = [{**port, "Value": values[port["Label"]]} for port in network[kind]]
        networks.append(written)
    tasks = {
        task["Name"]: {
            "Cpu": {"CpuShares": task["Resources"]["CPU"], "ReservedCores": None},
            "Memory": {"MemoryMB": task["Resources"]["MemoryMB"], "MemoryMaxMB": 0},
            "Networks": None,
            "Devices": None,
        }
        for task in group["Tasks"]
    }
    shared: Doc = {"DiskMB": group["EphemeralDisk"]["SizeMB"]}
    if networks:
        shared |= {"Networks": networks, "Ports": ports}
    return {"Tasks": tasks, "TaskLifecycles": dict.fromkeys(tasks), "Shared": shared}


def node_resources(cpu: int, memory: int, disk: int, address: str, ports: tuple[int, int]) -> Doc:
    """Write `NodeResources`; ports are the lowest and the highest dynamic one."""
    return {
        "Cpu": {"CpuShares": cpu, "TotalCpuCores": 4, "ReservableCpuCores": None},
        "Memory": {"MemoryMB": memory},
        "Disk": {"DiskMB": disk},
        "Networks": [{"Mode": "host", "Device": "lo", "IP": address, "CIDR": f"{address}/32", "MBits": 1000}],
        "NodeNetworks": [{"Mode": "host", "Device": "lo", "Addresses": [{"Alias": "default", "Address": address}]}],
        "Devices": None,
        "MinDynamicPort": ports[0],
        "MaxDynamicPort": ports[1],
    }
