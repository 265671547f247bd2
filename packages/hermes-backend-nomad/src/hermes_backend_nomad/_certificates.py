"""Certificates for the connections to one sandbox, made for it alone."""

from __future__ import annotations

import base64
import os
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder

__all__ = ["SERVER_NAME", "Material", "client_context", "make_certificates"]

SERVER_NAME = "sandbox.hermes"
LIFE = timedelta(days=30)
EARLY = timedelta(hours=1)
"""Clocks of nodes may be slow."""


class Material(NamedTuple):
    """What both ends need, as base64 of PEM: key, certificate, and the authority that signed the other's."""

    server: str
    client: str


def make_certificates() -> Material:
    """Make an authority, have it sign a certificate for each end, and forget its key.

    Raises:
        BackendUnavailableError: The library that makes them is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise BackendUnavailableError(
            "certificates for sandboxes need the library cryptography", hint="pip install 'hermes-backend-nomad[tls]'"
        ) from None

    def signed(name: str, authority: str, by: EllipticCurvePrivateKey, *, ca: bool) -> tuple[bytes, bytes]:
        key = by if ca else ec.generate_private_key(ec.SECP256R1())
        builder: CertificateBuilder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, authority)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLY)
            .not_valid_after(now + LIFE)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        )
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        certificate: Certificate = builder.sign(by, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return private, certificate.public_bytes(serialization.Encoding.PEM)

    now = datetime.now(UTC)
    root = ec.generate_private_key(ec.SECP256R1())
    _, authority = signed("hermes run", "hermes run", root, ca=True)
    server = signed(SERVER_NAME, "hermes run", root, ca=False)
    client = signed("client.hermes", "hermes run", root, ca=False)
    return Material(*(base64.b64encode(b"".join((*pair, authority))).decode() for pair in (server, client)))


def client_context(client: str) -> ssl.SSLContext:
    """Return what this end of the connections uses; the key is never on disk.

    Args:
        client: The client's part of the material.
    """
    pem = base64.b64decode(client)
    begin = b"-----BEGIN CERTIFICATE-----"
    authority = (begin + pem.rpartition(begin)[2]).decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    descriptor = os.memfd_create("hermes-key")
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
