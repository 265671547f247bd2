"""Which certificates of agents are trusted, and what is shown to them: one rule for whatever connects to them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter

from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket

    from requests import PreparedRequest

    from hermes_backend_nomad._address import Address

__all__ = ["TrustingAdapter", "tls_context"]


def tls_context(address: Address) -> ssl.SSLContext:
    """Return what connections to an agent are made with.

    The rule is that of Nomad's own command line: the authorities of this machine are trusted, as OpenSSL finds them
    (`SSL_CERT_FILE` and `SSL_CERT_DIR` count). Those that are named are trusted instead, not besides: of a folder every
    file below it. Each is the end of a chain, even if somebody else has signed it. A name that is given is the one that
    is asked for and must be in the certificate, and the address's own is not.

    Args:
        address: Of the agent.

    Raises:
        ConfigError: A file is not what it is said to be.
    """
    named = address.authorities if isinstance(address.authorities, str) else None
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)  # as strict with every version of Python
    context.server_name = address.server_name
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if named is None:
        context.load_default_certs()
    for file in _files(Path(named)) if named is not None else ():
        try:
            context.load_verify_locations(file)
        except OSError as error:  # those of ssl are among them
            raise ConfigError(
                f"{file} cannot be read as certificates: {_reason(error)}",
                hint="NOMAD_CACERT names a file of certificates in PEM, NOMAD_CAPATH a folder with nothing else in it",
            ) from None
    if address.authorities is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if address.certificate is not None:
        try:
            context.load_cert_chain(*address.certificate)
        except OSError as error:
            raise ConfigError(
                f"{' and '.join(address.certificate)} are no certificate and its key: {_reason(error)}",
                hint="NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY name files in PEM that belong together",
            ) from None
    return context


def _files(place: Path) -> Iterator[Path]:
    return (file for file in sorted(place.rglob("*")) if file.is_file()) if place.is_dir() else iter((place,))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


class _NamedContext(ssl.SSLContext):
    """Knows the name of the server, which httpx would forget where a proxy is between.

    Attributes:
        server_name: Name that the server's certificate must bear; that of its address if None.
    """

    server_name: str | None = None

    def wrap_socket(
        self,
        sock: socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """Speak TLS over a socket."""
        name = self.server_name or server_hostname
        return super().wrap_socket(sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, name, session)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Speak TLS over whatever carries bytes."""
        return super().wrap_bio(incoming, outgoing, server_side, self.server_name or server_hostname, session)


class TrustingAdapter(HTTPAdapter):
    """Connections of requests that trust what a context does, and not what requests brings along.

    Args:
        context: Of the connections.
        pool_maxsize: Connections that are kept.
    """

    def __init__(self, context: ssl.SSLContext, pool_maxsize: int) -> None:
        self._context = context
        super().__init__(pool_maxsize=pool_maxsize)

    def build_connection_pool_key_attributes(
        self,
        request: PreparedRequest,
        verify: Any,  # noqa: ANN401 - as requests has it
        cert: Any = None,  # noqa: ANN401 - as requests has it
    ) -> tuple[Any, Any]:
        """Return where a connection leads, with or without a proxy between, and what it is made with."""
        where, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return where, {"ssl_context": self._context, "cert_reqs": self._context.verify_mode}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ANN401 - as requests has it
        """Leave the context as it is: requests would have it trust certifi's authorities as well."""
