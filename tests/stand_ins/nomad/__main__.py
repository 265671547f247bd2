"""Start a stand-in: `python -m tests.stand_ins.nomad --data-dir D`; it prints one JSON line when it is ready."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import ssl
import sys
from typing import TYPE_CHECKING

import uvicorn

from .app import build
from .options import Options, parse

if TYPE_CHECKING:
    from .agent import Agent


def listen(options: Options) -> socket.socket:
    """Open the port, so that nobody else can have it between choosing and serving."""
    listener = socket.socket(socket.AF_INET6 if ":" in options.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it: no answer waits for an ACK
    listener.bind((options.host, options.port))
    listener.listen(2048)
    listener.set_inheritable(False)
    return listener


class Server(uvicorn.Server):
    """Ends the event streams when it is asked to end, since they would hold it up."""

    def __init__(self, config: uvicorn.Config, agent: Agent) -> None:
        super().__init__(config)
        self._agent = agent

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        self._agent.events.cut_streams()
        await super().shutdown(sockets)


def main() -> None:
    """Serve until a signal; tasks stay, and the next process of the agent takes them over."""
    options = parse()
    listener = listen(options)
    options = dataclasses.replace(options, port=listener.getsockname()[1])
    scheme = "https" if options.tls_cert else "http"

    def ready() -> None:
        address = f"{scheme}://{options.host}:{options.port}"
        said = {"ready": True, "stand_in": True, "address": address, "pid": os.getpid(), "version": options.version}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    app, agent = build(options, ready)
    config = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=1,
        ws="none",
        server_header=False,
        timeout_keep_alive=75,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        ssl_ca_certs=str(options.tls_ca) if options.tls_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if options.tls_ca else ssl.CERT_NONE,
    )
    Server(config, agent).run(sockets=[listener])


if __name__ == "__main__":
    main()
