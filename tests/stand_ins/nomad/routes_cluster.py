"""Routes of the agent, the nodes, the variables and the event stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response, StreamingResponse

from . import variables
from .events import read_topics
from .nodes import node_stub
from .web import Asked, answer, listed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .documents import Doc

__all__ = ["ROUTES"]


async def show_agent(asked: Asked) -> Response:
    """`GET /v1/agent/self`."""
    options = asked.agent.options
    version, _, release = options.version.partition("-")
    tags = {"region": options.region, "dc": options.datacenter, "build": options.version, "role": "nomad"}
    shown = {
        "config": {
            **{"Region": options.region, "Datacenter": options.datacenter, "NodeName": "stand-in"},
            "Version": {
                "Version": version,
                "VersionPrerelease": release,
                "VersionMetadata": "",
                "Revision": "stand-in",
            },
            **{"BindAddr": options.host, "Ports": {"HTTP": options.port}, "DataDir": str(options.data_dir)},
            "ACL": {"Enabled": options.acl_token is not None},
        },
        "member": {"Name": f"stand-in.{options.region}", "Addr": options.host, "Status": "alive", "Tags": tags},
        "stats": {"nomad": {"server": "true", "leader": "true", "known_regions": "1"}},
        "stand_in": True,
    }
    return answer(asked, shown)


async def health(asked: Asked) -> Response:
    """`GET /v1/agent/health`."""
    good = {"ok": True, "message": "ok"}
    return answer(asked, {"client": good, "server": good})


async def leader(asked: Asked) -> Response:
    """`GET /v1/status/leader`."""
    return answer(asked, f"{asked.agent.options.host}:4647")


async def peers(asked: Asked) -> Response:
    """`GET /v1/status/peers`."""
    return answer(asked, [f"{asked.agent.options.host}:4647"])


async def regions(asked: Asked) -> Response:
    """`GET /v1/regions`."""
    return answer(asked, [asked.agent.options.region])


async def namespaces(asked: Asked) -> Response:
    """`GET /v1/namespaces`."""
    return answer(asked, [{"Name": name, "Description": ""} for name in asked.agent.namespaces])


async def collect(asked: Asked) -> Response:
    """`PUT /v1/system/gc`."""
    asked.agent.collect_garbage()
    return Response()


async def list_nodes(asked: Asked) -> Response:
    """`GET /v1/nodes`."""
    await asked.wait("nodes")
    found = listed(asked, asked.agent.state.tables["nodes"].values())
    return answer(asked, [node_stub(node, resources=asked.flag("resources")) for node in found], "nodes")


def node_of(asked: Asked) -> Doc:
    return asked.agent.nodes.get(asked.request.path_params["node_id"])


async def show_node(asked: Asked) -> Response:
    """`GET /v1/node/ID`."""
    await asked.wait("nodes")
    return answer(asked, node_of(asked), "nodes")


async def allocations_of_node(asked: Asked) -> Response:
    """`GET /v1/node/ID/allocations`."""
    node = node_of(asked)
    own = [one for one in asked.agent.state.tables["allocations"].values() if one["NodeID"] == node["ID"]]
    return answer(asked, own, "allocations")


async def drain(asked: Asked) -> Response:
    """`PUT /v1/node/ID/drain`."""
    body = await asked.body()
    node = node_of(asked)
    asked.agent.nodes.set_drain(node, body.get("DrainSpec"), eligible=bool(body.get("MarkEligible")))
    index = asked.agent.state.index
    return answer(asked, {"NodeModifyIndex": index, "EvalIDs": None, "EvalCreateIndex": 0, "Index": index})


async def eligibility(asked: Asked) -> Response:
    """`PUT /v1/node/ID/eligibility`."""
    body = await asked.body()
    asked.agent.nodes.set_eligibility(node_of(asked), str(body.get("Eligibility")))
    index = asked.agent.state.index
    return answer(asked, {"NodeModifyIndex": index, "EvalIDs": None, "EvalCreateIndex": 0, "Index": index})


async def list_variables(asked: Asked) -> Response:
    """`GET /v1/vars`."""
    await asked.wait("variables")
    found = variables.list_metadata(asked.agent.state, asked.namespace, asked.query.get("prefix", ""))
    return answer(asked, listed(asked, found, key="Path"), "variables")


async def read_variable(asked: Asked) -> Response:
    """`GET /v1/var/PATH`."""
    await asked.wait("variables")
    path = asked.request.path_params["variable"]
    return answer(asked, variables.read(asked.agent.state, asked.namespace, path), "variables")


async def write_variable(asked: Asked) -> Response:
    """`PUT /v1/var/PATH`."""
    body = await asked.body()
    path, namespace = asked.request.path_params["variable"], body.get("Namespace") or asked.namespace
    items = {key: str(value) for key, value in (body.get("Items") or {}).items()}
    written = variables.write(asked.agent.state, namespace, path, items, asked.number("cas"))
    asked.agent.client.variables_changed()
    return answer(asked, written)


async def delete_variable(asked: Asked) -> Response:
    """`DELETE /v1/var/PATH`."""
    variables.delete(asked.agent.state, asked.namespace, asked.request.path_params["variable"], asked.number("cas"))
    return Response(status_code=204)


async def stream(asked: Asked) -> Response:
    """`GET /v1/event/stream`."""
    topics = read_topics(asked.query.getlist("topic"))
    agent = asked.agent
    lines = agent.events.follow(topics, asked.namespace, asked.number("index") or 0, agent.options.stream_heartbeat)
    return StreamingResponse(lines, media_type="application/json", headers={"Cache-Control": "no-cache"})


VARIABLE = "/v1/var/{variable:path}"
ROUTES: tuple[tuple[str, str, Callable[[Asked], Awaitable[Response]]], ...] = (
    ("/v1/agent/self", "GET", show_agent),
    ("/v1/agent/health", "GET", health),
    ("/v1/status/leader", "GET", leader),
    ("/v1/status/peers", "GET", peers),
    ("/v1/regions", "GET", regions),
    ("/v1/namespaces", "GET", namespaces),
    ("/v1/system/gc", "PUT POST", collect),
    ("/v1/nodes", "GET", list_nodes),
    ("/v1/node/{node_id}", "GET", show_node),
    ("/v1/node/{node_id}/allocations", "GET", allocations_of_node),
    ("/v1/node/{node_id}/drain", "PUT POST", drain),
    ("/v1/node/{node_id}/eligibility", "PUT POST", eligibility),
    ("/v1/vars", "GET", list_variables),
    (VARIABLE, "GET", read_variable),
    (VARIABLE, "PUT POST", write_variable),
    (VARIABLE, "DELETE", delete_variable),
    ("/v1/event/stream", "GET", stream),
)
