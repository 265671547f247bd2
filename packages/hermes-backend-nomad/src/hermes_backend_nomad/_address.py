"""Where the cluster is, and as whom it is asked: the settings, and Nomad's own variables."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hermes_core.config import first_variable
from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from hermes_backend_nomad._config import ClusterSettings

__all__ = ["Address", "find_address"]

DEFAULT = "http://127.0.0.1:4646"
PORT = 4646
TRUE = ("1", "t", "true")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """An agent of the cluster, or several, and as whom they are asked.

    Attributes:
        url: `http://HOST:PORT` or `https://HOST:PORT`; without a port it is that of the scheme.
        namespace: Namespace of everything.
        region: Region, or None for the agent's own.
        token: ACL token.
        authorities: File or folder of certificates that are trusted; True for this machine's, False for any
            (`tls_context`).
        certificate: Files of the client's own certificate and key.
        server_name: Name that the agent's certificate must bear; that of `url` if None.
        login: User and password, where a proxy asks for them.
        others: Further agents of the same cluster, as `url`.
    """

    url: str
    namespace: str = "default"
    region: str | None = None
    token: str | None = None
    authorities: str | bool = True
    certificate: tuple[str, str] | None = None
    server_name: str | None = None
    login: tuple[str, str] | None = None
    others: tuple[str, ...] = ()

    @property
    def agents(self) -> tuple[Address, ...]:
        """One for each agent."""
        return tuple(replace(self, url=url, others=()) for url in (self.url, *self.others))

    @property
    def host(self) -> str:
        """Name or number of the first agent's machine."""
        return urlsplit(self.url).hostname or ""

    @property
    def here(self) -> bool:
        """Whether all agents are on this machine."""
        return all(_is_here(agent.host) for agent in self.agents)

    def __str__(self) -> str:
        return ", ".join((self.url, *self.others))


def find_address(config: ClusterSettings) -> Address:
    """Return where the cluster is, by the settings, else by `NOMAD_ADDR` and the other variables of Nomad's own.

    Raises:
        ConfigError: One of them makes no sense.
    """
    skip = (first_variable(("NOMAD_SKIP_VERIFY",)) or "").lower() in TRUE
    if skip:
        _logger.warning("the certificate of Nomad is not verified, since NOMAD_SKIP_VERIFY is set")
    key = _file("NOMAD_CLIENT_KEY")
    certificate = _file("NOMAD_CLIENT_CERT")
    if (key is None) != (certificate is None):
        raise ConfigError("NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY belong together, and one of them is not set")
    login = first_variable(("NOMAD_HTTP_AUTH",))
    given = config.nomad_address or ()
    listed = given.split(",") if isinstance(given, str) else given
    urls = [_url(text.strip()) for text in listed if text.strip()] or [_url(first_variable(("NOMAD_ADDR",)) or DEFAULT)]
    return Address(
        urls[0],
        config.namespace or first_variable(("NOMAD_NAMESPACE",)) or "default",
        config.region or first_variable(("NOMAD_REGION",)),
        first_variable(("NOMAD_TOKEN",)),
        False if skip else _file("NOMAD_CACERT") or _file("NOMAD_CAPATH") or True,
        (certificate, key) if certificate and key else None,
        first_variable(("NOMAD_TLS_SERVER_NAME",)),
        (login.partition(":")[0], login.partition(":")[2]) if login else None,
        tuple(dict.fromkeys(url for url in urls if url != urls[0])),
    )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(text: str) -> str:
    hint = "write it as http://HOST:4646: -B nomad_address=URL (or URL,URL), or NOMAD_ADDR"
    if text.startswith("unix:"):
        raise ConfigError(f"the address of Nomad {text!r} is a socket, and not one of HTTP", hint=hint)
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        # As Nomad itself reads it: an address that is written out has its scheme's port, as that of a proxy.
        port = parts.port or (None if "://" in text else PORT)
    except ValueError as error:
        raise ConfigError(f"the address of Nomad {text!r} is none: {error}", hint=hint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise ConfigError(f"the address of Nomad {text!r} is none", hint=hint)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" if port is None else f"{parts.scheme}://{host}:{port}"


def _file(variable: str) -> str | None:
    path = first_variable((variable,))
    if path is not None and not Path(path).exists():
        raise ConfigError(f"{variable} names {path}, and there is no such file")
    return path
