"""What goes wrong between this machine and an agent, in Hermes's words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

import httpx
import requests
from nomad.api import exceptions

from hermes_core.exceptions import BackendUnavailableError, HermesError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_backend_nomad._address import Address

__all__ = [
    "ConflictError",
    "ElsewhereError",
    "NotFoundError",
    "PassingError",
    "explain",
    "none_answers",
    "stream_error",
]

LONGEST = 500
NO_LEADER = ("no cluster leader", "rpc error", "eof", "connection reset", "leadership", "not ready to serve", "raft")
"""What servers say while they choose a leader, or an agent starts: it passes."""
ASKED = re.compile(r"with url: \S+")
FORBIDDEN_HINT = "set NOMAD_TOKEN to a token that may do this; docs/how-to/run-on-nomad.md has the policy"
HINTS = (
    ("nonexistent namespace", "nomad namespace list shows them all: -B namespace=NAME, or NOMAD_NAMESPACE"),
    ("nonexistent node pool", "nomad node pool list shows them all: -B node_pool=NAME"),
    ("no path to region", "name another region: -B region=NAME, or NOMAD_REGION"),
)

Failure: TypeAlias = exceptions.BaseNomadException | requests.RequestException | ValueError


class ElsewhereError(BackendUnavailableError):
    """An agent gave no answer that counts: another one may."""


class PassingError(ElsewhereError):
    """An agent did not answer, or had no leader: trying again may help too."""


class NotFoundError(HermesError):
    """There is no such thing on the cluster."""


class ConflictError(HermesError):
    """A variable has been changed by somebody else meanwhile."""


def explain(error: Failure, address: Address, what: str) -> HermesError:
    """Return the error for a call that failed.

    Args:
        error: As python-nomad raised it.
        address: Of the agent that was called.
        what: What was to be done, as `register the job x`.
    """
    response = getattr(error, "nomad_resp", error)
    if isinstance(response, requests.Response):
        return _answered(response.status_code, response.text, address, what)
    if isinstance(response, ValueError):  # no JSON, which requests has a class of its own for
        return ElsewhereError(
            f"what answers at {address.url} is no Nomad agent: {' '.join(str(response).split())[:LONGEST]}",
            hint="give the address of an agent's HTTP interface: -B nomad_address=URL, or NOMAD_ADDR",
        )
    return _unreachable(str(response), address)


def none_answers(failures: Sequence[ElsewhereError]) -> ElsewhereError:
    """Return the error for a call that no agent answered, which names each of them.

    Args:
        failures: What became of it with each.
    """
    first, *others = failures
    if not others:
        return first
    error = PassingError if any(isinstance(failure, PassingError) for failure in failures) else ElsewhereError
    return error("; ".join(failure.message for failure in failures), hint=first.hint)


def stream_error(error: httpx.HTTPError | OSError, address: Address) -> HermesError:
    """Return the error for the event stream."""
    if isinstance(error, httpx.HTTPStatusError):
        return _answered(error.response.status_code, error.response.text, address, "follow the cluster's events")
    return _unreachable(_said(error), address)


def _said(error: BaseException) -> str:
    """What is said of an error by itself, or by what brought it about: under trio only that knows of TLS."""
    found: BaseException | None = error
    while found is not None:
        if str(found):
            return str(found)
        found = found.__cause__ or found.__context__
    return type(error).__name__


def _answered(status: int, text: str, address: Address, what: str) -> HermesError:
    said = " ".join(text.split())[:LONGEST] or f"status {status}"
    low = said.lower()
    if status == 403:
        return BackendUnavailableError(f"Nomad at {address.url} does not let us {what}: {said}", hint=FORBIDDEN_HINT)
    if status == 404:
        return NotFoundError(f"Nomad cannot {what}: {said}")
    if status == 409:
        return ConflictError(f"Nomad cannot {what}: somebody else was quicker")
    if "http request to an https server" in low:
        return ElsewhereError(
            f"the Nomad agent at {address.url} speaks TLS",
            hint=f"give its address as https{address.url.removeprefix('http')}, and its authority in NOMAD_CACERT",
        )
    if status in (429, 502, 503, 504) or (status >= 500 and any(reason in low for reason in NO_LEADER)):
        return PassingError(f"Nomad at {address.url} cannot {what} now: {said}")
    hint = next((hint for known, hint in HINTS if known in low), None)
    return BackendUnavailableError(f"Nomad at {address.url} cannot {what}: {said}", hint=hint)


def _unreachable(said: str, address: Address) -> ElsewhereError:
    # Not what was asked of whom, whose names may be any.
    low = ASKED.sub("", said.lower()).replace(address.host, "")
    if "certificate_verify_failed" in low or "certificate verify failed" in low or "doesn't match" in low:
        return ElsewhereError(
            f"the certificate of Nomad at {address.url} is not trusted: {_reason(said)}",
            hint="name its authority in NOMAD_CACERT, and its name in NOMAD_TLS_SERVER_NAME if it is another",
        )
    if "certificate_required" in low or "certificate required" in low or "bad_certificate" in low:
        return ElsewhereError(
            f"Nomad at {address.url} asks for a client certificate",
            hint="name its files in NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY",
        )
    if "ssl" in low or "tls" in low:
        return ElsewhereError(
            f"TLS with Nomad at {address.url} failed: {_reason(said)}",
            hint="see that the agent speaks TLS (else its address is http://…), and which NOMAD_* files are named",
        )
    if address.url.startswith("https:") and address.certificate is None and "remote end closed" in low:
        return PassingError(
            f"the Nomad agent at {address.url} ends connections without an answer",
            hint="if it asks for client certificates, name the files of one in NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY",
        )
    return PassingError(
        f"no Nomad agent answers at {address.url}: {_reason(said)}",
        hint="name another with -B nomad_address=URL or NOMAD_ADDR, or start one: hermes sandbox nomad-dev",
    )


def _reason(said: str) -> str:
    """The heart of what requests, urllib3 and Python say around each other."""
    low = said.lower()
    for reason in ("connection refused", "no route to host", "network is unreachable", "name or service not known"):
        if reason in low:
            return reason
    if "timed out" in low or "timeout" in low:
        return "it did not answer in time"
    found = re.search(r"\[SSL[^\]]*\] ([^(]+?)(?: \(_ssl| \(_ssl\.c|\(|$)", said)
    return " ".join((found[1] if found else said).split())[:LONGEST]
