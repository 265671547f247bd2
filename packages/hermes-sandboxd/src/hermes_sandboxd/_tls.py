"""TLS of the TCP socket, by a key that is never on a disk."""

from __future__ import annotations

import base64
import os
import re
import ssl

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class TlsError(Exception):
    """The material cannot be used; the message says why."""


def server_context(variable: str, value: str | None) -> ssl.SSLContext:
    """Return what a server speaks by that clients must show a certificate to.

    Args:
        variable: Name of the variable that holds the material.
        value: The material: PEM in base64. The first certificate is the server's own, and those after it are what the
            clients' must be signed by.

    Raises:
        TlsError: It is missing or wrong.
    """
    if not value:
        raise TlsError(f"--tls-env needs key and certificates in the environment variable {variable}")
    try:
        material = base64.b64decode(value, validate=False).decode("ascii")
    except ValueError as error:
        raise TlsError(f"the environment variable {variable} is not PEM in base64: {error}") from None
    certificates = _CERTIFICATE.findall(material)
    if len(certificates) < 2 or "PRIVATE KEY-----" not in material:
        raise TlsError(
            f"the environment variable {variable} must hold a key, its certificate, and that of who signs the clients'"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        _load(context, material)
        context.load_verify_locations(cadata="\n".join(certificates[1:]))
    except (ValueError, OSError) as error:
        raise TlsError(f"the key and certificates in the environment variable {variable}: {error}") from None
    return context


def _load(context: ssl.SSLContext, material: str) -> None:
    # The library reads keys from files alone: this one is nowhere but in memory.
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, material.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
    finally:
        os.close(descriptor)


def _no_password() -> str:
    # Otherwise the library asks for it at the terminal.
    raise ValueError("the key is encrypted")
