"""One agent of the cluster, and the ways to it: python-nomad's for calls, httpx's for the event stream."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx
import requests
from nomad.api.base import Requester
from requests.adapters import HTTPAdapter

from hermes_backend_nomad._trust import TrustingAdapter, tls_context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_backend_nomad._address import Address

__all__ = ["Agent", "Answer"]

CONNECTIONS = 16
CONNECT_S = 5.0
SILENCE_S = 35.0
"""The stream has a heartbeat every ten seconds; without one for so long it is cut."""


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


class Agent:
    """One agent's interface.

    Args:
        address: Where it is, and as whom it is asked.

    Raises:
        ConfigError: A certificate or a key is none.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._tls = tls_context(address) if address.url.startswith("https:") else None
        self._session = requests.Session()
        # Nobody has a proxy between this machine and itself.
        self._session.trust_env = not address.here
        self._session.auth = address.login
        if address.authorities is False:
            # Said once already, when the address was found, and not with every call.
            warnings.filterwarnings("ignore", f"Unverified HTTPS request .*'{re.escape(address.host)}'")
        if self._tls is not None:
            self._session.mount("https://", TrustingAdapter(self._tls, CONNECTIONS))
        self._session.mount("http://", HTTPAdapter(pool_maxsize=CONNECTIONS))
        self._requester = _AnyEndpoint(address=address.url, token=address.token, verify=True, session=self._session)

    def close(self) -> None:
        """Close the connections of calls."""
        self._session.close()

    def ask(
        self,
        method: str,
        path: tuple[str, ...],
        params: Mapping[str, object] | None,
        content: object,
        *,
        text: bool,
        timeout_s: float,
    ) -> Answer:
        """Make one call; for threads.

        Args:
            method: Of HTTP.
            path: Below `/v1`.
            params: Parameters of the query.
            content: What is sent, as JSON.
            text: Whether the answer is text, and no JSON.
            timeout_s: Seconds that the agent may be silent for.

        Raises:
            BaseNomadException, RequestException, ValueError: See `explain`.
        """
        # The endpoints of python-nomad leave the namespace out where it does not know that it belongs.
        where = {"namespace": self.address.namespace, "region": self.address.region}
        response = self._requester.request(
            *path,
            method=method,
            params={name: value for name, value in {**where, **(params or {})}.items() if value is not None},
            json=content,
            timeout=(min(CONNECT_S, timeout_s), timeout_s),
        )
        index = int(response.headers.get("X-Nomad-Index") or 0)
        if text:
            return Answer(response.text, index, math.nan)
        date = response.headers.get("Date")
        at = parsedate_to_datetime(date).timestamp() if date else math.nan
        return Answer(response.json() if response.content else None, index, at)

    def stream_client(self) -> httpx.AsyncClient:
        """Return a client for the event stream.

        python-nomad's stream is a thread that cannot be cancelled, and that a broken connection ends without a word.
        """
        address = self.address
        return httpx.AsyncClient(
            base_url=address.url,
            headers={"Accept-Encoding": "identity"} | ({"X-Nomad-Token": address.token} if address.token else {}),
            auth=address.login,
            verify=self._tls or True,
            trust_env=not address.here,
            timeout=httpx.Timeout(CONNECT_S, read=SILENCE_S),
        )


class _AnyEndpoint(Requester):  # type: ignore[misc]  # the SDK has no types
    """python-nomad's way to an agent, for whatever path."""

    def _endpoint_builder(self, *parts: str) -> str:
        return "/".join(("v1", *filter(None, parts)))
