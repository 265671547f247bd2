"""Which certificates the connection trusts that follows the cluster's events."""

from __future__ import annotations

import base64
import ssl
from typing import TYPE_CHECKING

from hermes_backend_nomad._address import Address
from hermes_backend_nomad._certificates import make_certificates
from hermes_backend_nomad._changes import _trust

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://nomad.example:4646"


def test_authorities_that_are_named_are_trusted_instead_of_this_machines(tmp_path: Path) -> None:
    file = tmp_path / "authority.pem"
    begin = b"-----BEGIN CERTIFICATE-----"
    file.write_bytes(begin + base64.b64decode(make_certificates().client).rpartition(begin)[2])
    context = _trust(Address(URL, authorities=str(file)))
    assert isinstance(context, ssl.SSLContext)
    assert [authority["subject"] for authority in context.get_ca_certs()] == [((("commonName", "hermes run"),),)]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_without_any_this_machines_are() -> None:
    context = _trust(Address(URL))
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats() == ssl.create_default_context().cert_store_stats()
