"""Calls to the cluster: in threads, by whichever agent answers, patient while there is no leader."""

from __future__ import annotations

import logging
import math
import random
from functools import partial
from typing import TYPE_CHECKING, Self

import anyio
import requests
from anyio import CapacityLimiter, to_thread
from nomad.api.exceptions import BaseNomadException

from hermes_backend_nomad._agent import CONNECTIONS, Agent
from hermes_backend_nomad._errors import ElsewhereError, NotFoundError, PassingError, explain, none_answers
from hermes_core.exceptions import BackendUnavailableError, HermesError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from hermes_backend_nomad._address import Address
    from hermes_backend_nomad._agent import Answer

__all__ = ["Cluster"]

TIMEOUT_S = 10.0
LAST_BYTES = 4096
PATIENCE_S = 30.0
"""How long a call is tried again while no agent answers or no server leads: one that is started anew takes 8 seconds,
an election three."""
ENTER_S = 3.0
"""The same for the first one, which more likely has a wrong address."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
OLDEST = (1, 7)
"""Older ones are not known to have everything that is used: variables in templates, node pools."""

_logger = logging.getLogger(__name__)


class Cluster:
    """The interface of a cluster, as its agents have it: they are equal, and one of them is in use.

    When that one does not answer, the next is asked, and is in use from then on. So a call whose answer was lost is
    made twice, and everything that is put or deleted here is such that this does no harm:

    - A job is registered by an ID that nobody else has, with one allocation and no second attempt: registered again it
      is the same job, and the further evaluation finds nothing to do. `place` awaits whichever is answered. One that
      arrives after its job was removed waits for a variable that is not there any more, and is swept.
    - A sandbox's variable is written by check-and-set: the second time it is refused, and then `SandboxSecrets.write`
      looks whether it was its own.
    - A lease is renewed under its own name, with the same content.
    - A job or variable that is not there any more was deleted; a lease that ran out is deleted by check-and-set.
    - Reading a job specification changes nothing.

    Args:
        address: Where the agents are, and as whom they are asked.
        patience_s: Seconds to try for when it is entered.

    Raises:
        ConfigError: A certificate or a key is none.
    """

    def __init__(self, address: Address, *, patience_s: float = ENTER_S) -> None:
        self.address = address
        self._patience_s = patience_s
        self._agents = tuple(Agent(each) for each in address.agents)
        self._named = self.agent
        self.moved: Callable[[], None] = lambda: None
        """Called when another one is in use than before, since that one did not answer a call."""
        self.version: str | None = None
        """Of the agent that was in use when this was entered; None if it did not tell."""

    @property
    def agent(self) -> Agent:
        """The one that is in use."""
        return self._agents[0]

    async def __aenter__(self) -> Self:
        """See that an agent answers, and that it is new enough.

        Raises:
            BackendUnavailableError: None does, or it is not.
        """
        self._limiter = CapacityLimiter(CONNECTIONS)
        try:
            await self._look()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._close()

    def _close(self) -> None:
        for agent in self._agents:
            agent.close()

    def pass_over(self, agent: Agent) -> None:
        """Have the next one in use, if it is still this one."""
        if agent is self.agent:
            self._agents = (*self._agents[1:], agent)

    async def get(
        self,
        *path: str,
        what: str,
        params: Mapping[str, object] | None = None,
        patience_s: float = PATIENCE_S,
        until: float = math.inf,
    ) -> Answer:
        """Ask for something; see `_call`."""
        return await self._call("get", path, what, params, patience_s=patience_s, until=until)

    async def put(
        self,
        *path: str,
        what: str,
        content: object = None,
        params: Mapping[str, object] | None = None,
        until: float = math.inf,
    ) -> Answer:
        """Make or change something; see `_call`."""
        return await self._call("put", path, what, params, content, until=until)

    async def delete(
        self, *path: str, what: str, params: Mapping[str, object] | None = None, until: float = math.inf
    ) -> None:
        """Remove something; what is not there is no error; see `_call`."""
        try:
            await self._call("delete", path, what, params, until=until)
        except NotFoundError:
            return

    async def standard_error(self, allocation: str, task: str) -> str:
        """Return the end of what a task wrote to standard error; nothing if that cannot be had."""
        path = ("client", "fs", "logs", allocation)
        params = {"task": task, "type": "stderr", "plain": "true", "origin": "end", "offset": LAST_BYTES}
        try:
            answer = await self._call("get", path, "read a log", params, patience_s=0, text=True)
        except HermesError as error:
            _logger.debug("the log of allocation %s cannot be read: %s", allocation, error)
            return ""
        return str(answer.content)

    async def _look(self) -> None:
        await self.get("status", "leader", what="say who leads", patience_s=self._patience_s)
        if len(self._agents) > 1:
            _logger.info("Nomad is asked at %s", self.agent.address)
        try:
            seen = await self.get("agent", "self", what="say its version", patience_s=self._patience_s)
            version = str(seen.content["config"]["Version"]["Version"])
            numbers = tuple(int(number) for number in version.split("-")[0].split(".")[:2])
        except (BackendUnavailableError, LookupError, TypeError, ValueError) as error:
            # A token need not be allowed to ask for that.
            _logger.debug("the version of Nomad is not known: %s", error)
            return
        self.version = version
        if numbers < OLDEST:
            raise BackendUnavailableError(
                f"the Nomad agent at {self.agent.address} is version {version}, and too old",
                hint=f"Hermes needs Nomad {'.'.join(map(str, OLDEST))} or newer",
            )

    async def _call(
        self,
        method: str,
        path: tuple[str, ...],
        what: str,
        params: Mapping[str, object] | None,
        content: object = None,
        *,
        patience_s: float = PATIENCE_S,
        until: float = math.inf,
        text: bool = False,
    ) -> Answer:
        """Call one agent after the other, again and again while none is to be reached or there is no leader.

        A call that changes something is finished even if whoever made it is cancelled.

        Args:
            method: Of HTTP.
            path: Below `/v1`.
            what: What is to be done, for errors.
            params: Parameters of the query.
            content: What is sent, as JSON.
            patience_s: Seconds to try for; the last try may take longer.
            until: Time on the event loop's clock when it is over in any case; an answer that comes later is lost.
            text: Whether the answer is text, and no JSON.

        Raises:
            NotFoundError: There is no such thing.
            ConflictError: Somebody else has changed it.
            BackendUnavailableError: It cannot be done.
        """
        deadline, pause_s = min(anyio.current_time() + patience_s, until), FIRST_PAUSE_S
        call = partial(Agent.ask, method=method, path=path, params=params, content=content, text=text)
        while True:
            failures: list[ElsewhereError] = []
            agents = self._agents
            for number, agent in enumerate(agents):
                share_s = (until - anyio.current_time()) / (len(agents) - number)
                limited = partial(call, agent, timeout_s=min(TIMEOUT_S, max(share_s, FIRST_PAUSE_S)))
                try:
                    answer = await self._in_thread(limited, shield=method != "get", until=until)
                except (BaseNomadException, requests.RequestException, ValueError) as error:
                    failure = explain(error, agent.address, what)
                    if not isinstance(failure, ElsewhereError):
                        self._use(agent, failures)
                        raise failure from error
                    failure.__cause__ = error
                    failures.append(failure)
                else:
                    self._use(agent, failures)
                    return answer
            failed = none_answers(failures)
            if not isinstance(failed, PassingError) or anyio.current_time() + pause_s > deadline:
                raise failed
            _logger.debug("trying again: %s", failed)
            await anyio.sleep(pause_s * random.uniform(0.8, 1.2))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _in_thread(self, call: Callable[[], Answer], *, shield: bool, until: float) -> Answer:
        with anyio.CancelScope(shield=shield, deadline=until):
            return await to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)
        raise requests.Timeout("it did not answer in time")

    def _use(self, agent: Agent, failures: Sequence[ElsewhereError]) -> None:
        """Have the agent in use that answered when others did not, and say so, once."""
        if failures and agent is not self.agent:
            number = self._agents.index(agent)
            self._agents = self._agents[number:] + self._agents[:number]
            self.moved()
        if agent is self.agent and agent is not self._named:
            self._named = agent
            why = none_answers(failures).message if failures else "another has no event stream for us"
            _logger.warning("Nomad is asked at %s from now on: %s", agent.address, why)
