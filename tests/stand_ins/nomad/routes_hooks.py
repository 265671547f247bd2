"""Routes that only a stand-in has, below `/stand-in/`: what tests do to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.responses import Response

from .web import Asked, answer

if TYPE_CHECKING:
    from .agent import Agent
    from .mock import Mock
    from .web import Gate

__all__ = ["Hook", "hooks"]

Hook = tuple[str, str, Callable[[Asked], Awaitable[Response]]]


def hooks(agent: Agent, gate: Gate, mock: Mock) -> tuple[Hook, ...]:
    """Return the routes; all take and answer JSON."""
    return (*of_answers(agent, gate), *of_machines(agent), *of_mocks(agent, mock))


def of_answers(agent: Agent, gate: Gate) -> tuple[Hook, ...]:
    """Requests that fail or take long, streams that end, and the end of all."""

    async def cut_streams(asked: Asked) -> Response:
        return answer(asked, {"cut": agent.events.cut_streams()})

    async def fail(asked: Asked) -> Response:
        """`{"count": 3, "status": 500, "text": "No cluster leader"}`, or `seconds` instead of `count`."""
        body = await asked.body()
        one = (int(body.get("status", 500)), str(body.get("text", "No cluster leader")))
        if "seconds" in body:
            gate.fail_for(float(body["seconds"]), one)
        else:
            gate.failures += [one] * int(body.get("count", 1))
        return answer(asked, {"count": len(gate.failures)})

    async def delay(asked: Asked) -> Response:
        """`{"seconds": 0.2}`."""
        gate.delay = float((await asked.body()).get("seconds", 0.0))
        return answer(asked, {"seconds": gate.delay})

    async def end(asked: Asked) -> Response:
        """End every task, and then the stand-in."""
        await agent.client.end_everything()
        agent.events.cut_streams()
        os.kill(os.getpid(), signal.SIGTERM)
        return answer(asked, {"ended": True})

    return (
        ("/stand-in/cut-streams", "POST", cut_streams),
        ("/stand-in/fail", "POST", fail),
        ("/stand-in/delay", "POST", delay),
        ("/stand-in/end", "POST", end),
    )


def of_machines(agent: Agent) -> tuple[Hook, ...]:
    """Machines that are lost and found, and what they have."""

    async def lose(asked: Asked) -> Response:
        """`{"keep_tasks": true}`: only the agent of the machine is gone."""
        node = agent.nodes.get(asked.request.path_params["node_id"])
        await agent.nodes.lose(node, keep_tasks=bool((await asked.body()).get("keep_tasks")))
        return answer(asked, {"lost": node["ID"]})

    async def find(asked: Asked) -> Response:
        node = agent.nodes.get(asked.request.path_params["node_id"])
        agent.nodes.find(node)
        return answer(asked, {"found": node["ID"]})

    async def capacity(asked: Asked) -> Response:
        """`{"cpu": MHz, "memory": MB, "disk": MB}`, each optional."""
        node, body = agent.nodes.get(asked.request.path_params["node_id"]), await asked.body()
        agent.nodes.set_capacity(node, cpu=body.get("cpu"), memory=body.get("memory"), disk=body.get("disk"))
        return answer(asked, node["NodeResources"])

    return (
        ("/stand-in/node/{node_id}/lose", "POST", lose),
        ("/stand-in/node/{node_id}/find", "POST", find),
        ("/stand-in/node/{node_id}/capacity", "POST", capacity),
    )


def of_mocks(agent: Agent, mock: Mock) -> tuple[Hook, ...]:
    """Allocations that only change, and tasks that only end."""

    async def make_mock(asked: Asked) -> Response:
        """`{"count": 1000, "rate": 50}`: allocations that only change their state, changes a second."""
        body = await asked.body()
        mock.make(int(body.get("count", 0)))
        mock.rate = float(body.get("rate", mock.rate))
        return answer(asked, {"count": mock.count, "rate": mock.rate, "changes": mock.changes})

    async def end_mock(asked: Asked) -> Response:
        """`{"allocation": ID, "code": 1}`: a task of the driver mock ends."""
        body = await asked.body()
        agent.mock.end(str(body["allocation"]), int(body.get("code", 0)))
        return answer(asked, body)

    return (
        ("/stand-in/mock", "POST", make_mock),
        ("/stand-in/mock/end", "POST", end_mock),
    )
