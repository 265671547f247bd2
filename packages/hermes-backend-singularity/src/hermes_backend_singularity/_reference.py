"""The reference image: what agents usually need."""

from __future__ import annotations

import re

__all__ = ["definition"]

_SOURCE = re.compile(r"([a-z][a-z0-9-]*):(?://)?(.+)")
_PACKAGES = "ca-certificates curl git jq procps python3 python3-pip python3-venv util-linux wget"


def definition(base: str) -> str:
    """Return its definition, as the engine builds it.

    Args:
        base: The image that it is built on, with apt in it: a `.sif` file, a folder, or a source such as
            `docker://debian:bookworm-slim`.
    """
    match = _SOURCE.fullmatch(base)
    bootstrap, source = match.groups() if match is not None else ("localimage", base)
    return f"""\
Bootstrap: {bootstrap}
From: {source}

%post
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {_PACKAGES}
    rm -rf /var/lib/apt/lists/*
"""
