"""Calls to the cluster: python-nomad in threads, patient while there is no leader."""

from __future__ import annotations

import logging
import math
import random
import re
import warnings
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import requests
from anyio import CapacityLimiter, to_thread
from nomad.api.base import Requester
from nomad.api.exceptions import BaseNomadException
from requests.adapters import HTTPAdapter

from hermes_backend_nomad._errors import NotFoundError, PassingError, explain
from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from hermes_backend_nomad._address import Address

__all__ = ["Answer", "Cluster"]

TIMEOUT_S = 10.0
LAST_BYTES = 4096
THREADS = 16
PATIENCE_S = 30.0
"""How long a call is tried again while no agent answers or no server leads: one that is started anew takes 8 seconds,
an election three."""
ENTER_S = 3.0
"""The same for the first one, which more likely has a wrong address."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
OLDEST = (1, 7)
"""Older ones are not known to have everything that is used: variables in templates, node pools."""

T = TypeVar("T")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent answered.

    Attributes:
        content: The JSON.
        index: Of the state of the cluster that it shows.
        at: The agent's clock, in seconds since 1970; NaN if it did not say.
    """

    content: Any
    index: int
    at: float


class Cluster:
    """One agent's interface, asked from threads.

    Args:
        address: Where it is, and as whom it is asked.
        patience_s: Seconds to try for when it is entered.
    """

    def __init__(self, address: Address, *, patience_s: float = ENTER_S) -> None:
        self.address = address
        self._patience_s = patience_s
        self._session = requests.Session()
        # Nobody has a proxy between this machine and itself.
        self._session.trust_env = not address.here
        self._session.auth = address.login
        if address.authorities is False:
            # Said once already, when the address was found, and not with every call.
            warnings.filterwarnings("ignore", f"Unverified HTTPS request .*'{re.escape(address.host)}'")
        self._session.mount("https://", _NamedAdapter(address.server_name, pool_maxsize=THREADS))
        self._session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))
        self._requester = _AnyEndpoint(
            address=address.url,
            token=address.token,
            verify=address.authorities,
            cert=address.certificate or (),
            session=self._session,
        )

    async def __aenter__(self) -> Self:
        """See that an agent answers, and that it is new enough.

        Raises:
            BackendUnavailableError: It does not, or is not.
        """
        self._limiter = CapacityLimiter(THREADS)
        try:
            await self._look()
        except BaseException:
            self._session.close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._session.close()

    async def get(
        self, *path: str, what: str, params: Mapping[str, object] | None = None, patience_s: float = PATIENCE_S
    ) -> Answer:
        """Ask for something; see `_call`."""
        return await self._call("get", path, what, params, None, patience_s)

    async def put(
        self, *path: str, what: str, content: object = None, params: Mapping[str, object] | None = None
    ) -> Answer:
        """Make or change something; see `_call`."""
        return await self._call("put", path, what, params, content, PATIENCE_S)

    async def delete(
        self, *path: str, what: str, params: Mapping[str, object] | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        """Remove something; what is not there is no error; see `_call`."""
        try:
            await self._call("delete", path, what, params, None, patience_s)
        except NotFoundError:
            return

    async def standard_error(self, allocation: str, task: str) -> str:
        """Return the end of what a task wrote to standard error; nothing if that cannot be had."""
        params = {"task": task, "type": "stderr", "plain": "true", "origin": "end", "offset": LAST_BYTES}
        try:
            call = partial(self._once, "get", ("client", "fs", "logs", allocation), params, None, text=True)
            answer = await self._in_thread(call)
        except (BaseNomadException, requests.RequestException) as error:
            _logger.debug("the log of allocation %s cannot be read: %s", allocation, error)
            return ""
        return str(answer.content)

    async def _look(self) -> None:
        await self.get("status", "leader", what="say who leads", patience_s=self._patience_s)
        try:
            seen = await self.get("agent", "self", what="say its version", patience_s=self._patience_s)
            version = str(seen.content["config"]["Version"]["Version"])
            numbers = tuple(int(number) for number in version.split("-")[0].split(".")[:2])
        except (BackendUnavailableError, LookupError, TypeError, ValueError) as error:
            # A token need not be allowed to ask for that.
            _logger.debug("the version of Nomad is not known: %s", error)
            return
        if numbers < OLDEST:
            raise BackendUnavailableError(
                f"the Nomad agent at {self.address.url} is version {version}, and too old",
                hint=f"Hermes needs Nomad {'.'.join(map(str, OLDEST))} or newer",
            )

    async def _call(
        self,
        method: str,
        path: tuple[str, ...],
        what: str,
        params: Mapping[str, object] | None,
        content: object,
        patience_s: float,
    ) -> Answer:
        """Call the agent, again and again while it is not to be reached or has no leader.

        A call that changes something is finished even if whoever made it is cancelled.

        Args:
            method: Of HTTP.
            path: Below `/v1`.
            what: What is to be done, for errors.
            params: Parameters of the query.
            content: What is sent, as JSON.
            patience_s: Seconds to try for.

        Raises:
            NotFoundError: There is no such thing.
            ConflictError: Somebody else has changed it.
            BackendUnavailableError: It cannot be done.
        """
        deadline, pause_s = anyio.current_time() + patience_s, FIRST_PAUSE_S
        call = partial(self._once, method, path, params, content)
        while True:
            try:
                with anyio.CancelScope(shield=method != "get"):
                    return await self._in_thread(call)
            except (BaseNomadException, requests.RequestException, ValueError) as error:
                failure = explain(error, self.address, what)
                if not isinstance(failure, PassingError) or anyio.current_time() + pause_s > deadline:
                    raise failure from error
                _logger.debug("trying again: %s", failure)
            await anyio.sleep(pause_s * random.uniform(0.8, 1.2))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)

    def _once(
        self,
        method: str,
        path: tuple[str, ...],
        params: Mapping[str, object] | None,
        content: object,
        *,
        text: bool = False,
    ) -> Answer:
        # The endpoints of python-nomad leave the namespace out where it does not know that it belongs.
        where = {"namespace": self.address.namespace, "region": self.address.region}
        response = self._requester.request(
            *path,
            method=method,
            params={name: value for name, value in {**where, **(params or {})}.items() if value is not None},
            json=content,
            timeout=TIMEOUT_S,
        )
        index = int(response.headers.get("X-Nomad-Index") or 0)
        if text:
            return Answer(response.text, index, math.nan)
        date = response.headers.get("Date")
        at = parsedate_to_datetime(date).timestamp() if date else math.nan
        return Answer(response.json() if response.content else None, index, at)


class _AnyEndpoint(Requester):  # type: ignore[misc]  # the SDK has no types
    """python-nomad's way to an agent, for whatever path."""

    def _endpoint_builder(self, *parts: str) -> str:
        return "/".join(("v1", *filter(None, parts)))


class _NamedAdapter(HTTPAdapter):
    """Connections to a server whose certificate bears another name than its address.

    Args:
        server_name: That name; None if it is the address's own.
        pool_maxsize: Connections that are kept.
    """

    def __init__(self, server_name: str | None, pool_maxsize: int) -> None:
        self._server_name = server_name
        super().__init__(pool_maxsize=pool_maxsize)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as requests has it
        """Make the pool of connections, which know the name."""
        if self._server_name is not None:
            kwargs |= {"server_hostname": self._server_name, "assert_hostname": self._server_name}
        super().init_poolmanager(*args, **kwargs)
