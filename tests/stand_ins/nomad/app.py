"""The HTTP application."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from . import routes_allocations, routes_cluster, routes_jobs
from .agent import Agent
from .mock import Mock
from .routes_hooks import Hook, hooks
from .web import Gate, guarded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import ASGIApp

    from .options import Options

__all__ = ["build"]


def look_at_stdin(agent: Agent) -> None:
    """End everything if standard input has ended."""
    if not os.read(0, 1024):
        asyncio.get_running_loop().remove_reader(0)
        agent.client.spawn(end(agent))


async def end(agent: Agent) -> None:
    """End all tasks, and then the stand-in."""
    await agent.client.end_everything()
    agent.events.cut_streams()
    os.kill(os.getpid(), signal.SIGTERM)


def build(options: Options, ready: Callable[[], None]) -> tuple[ASGIApp, Agent]:
    """Build the application; the agent starts and ends with it."""
    agent = Agent(options)
    mock = Mock(agent)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await agent.start()
        agent.client.spawn(mock.run())
        mock.make(options.mock)
        mock.rate = options.mock_rate
        if options.end_with_stdin:
            asyncio.get_running_loop().add_reader(0, look_at_stdin, agent)
        ready()
        yield

    app = Starlette(lifespan=lifespan)
    gate = Gate(app)
    every: tuple[Hook, ...] = (
        *routes_jobs.ROUTES,
        *routes_allocations.ROUTES,
        *routes_cluster.ROUTES,
        *hooks(agent, gate, mock),
    )
    for path, methods, handler in (*every, *hooks(agent, gate, mock)):
        app.router.routes.append(Route(path, guarded(agent, handler), methods=methods.split()))
    return gate, agent
