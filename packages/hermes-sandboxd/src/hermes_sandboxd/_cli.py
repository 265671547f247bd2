"""The command line of `hermes-sandboxd`."""

from __future__ import annotations

import argparse
import json
import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "serve":
        from hermes_sandboxd._serve import serve

        return serve(arguments)
    if arguments.command == "relay":
        from hermes_sandboxd._relay import relay

        return relay(arguments.socket)
    if arguments.command == "check":
        from hermes_sandboxd._check import check_namespaces

        report = check_namespaces(arguments.bwrap)
        sys.stdout.write(json.dumps(report.as_json()) + "\n")
        return 0 if report.available else 1
    from hermes_sandboxd._zipapp import build_zipapp

    sys.stdout.write(build_zipapp(arguments.out) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hermes-sandboxd", description="Many isolated slots inside one sandbox.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="own the slots of this sandbox and serve clients")
    serve.add_argument("--state", required=True, help="folder for everything on disk; removed at the end")
    serve.add_argument("--capacity", type=_positive, required=True, help="number of slots")
    _add_ways_in(serve.add_argument_group("ways in"))
    _add_endings(serve.add_argument_group("when it ends"))
    _add_isolation(serve.add_argument_group("isolation"))
    _add_surroundings(serve.add_argument_group("what slots see"))
    _add_rights(serve.add_argument_group("the daemon's own rights"))
    relay = commands.add_parser("relay", help="carry standard input and output to the socket of a daemon")
    relay.add_argument("--socket", required=True, help="path of the unix socket")
    check = commands.add_parser("check", help="tell as JSON whether slots can have namespaces here")
    check.add_argument("--bwrap", help="path of bubblewrap")
    zipapp = commands.add_parser("zipapp", help="build the daemon as one file")
    zipapp.add_argument("out", help="path of the file")
    return parser


def _add_ways_in(serve: argparse._ArgumentGroup) -> None:
    serve.add_argument("--socket", required=True, help="path of the unix socket")
    serve.add_argument("--socket-user", type=int, metavar="UID", help="who owns the socket; needs root")
    serve.add_argument("--tcp", metavar="HOST:PORT", help="listen here too; needs a token; port 0 takes any")
    serve.add_argument("--token-env", default="HERMES_SANDBOX_TOKEN", help="variable that holds the token")
    serve.add_argument(
        "--tls-env",
        metavar="NAME",
        help="serve TCP by TLS alone, to clients with a certificate; this variable holds, as base64 of PEM, the key, "
        "its certificate, and that of who signs the clients'",
    )


def _add_endings(serve: argparse._ArgumentGroup) -> None:
    serve.add_argument("--lifeline-fd", type=int, help="end when this descriptor reaches its end")
    serve.add_argument("--lifeline-silence", type=float, help="end too when nothing came over it for so many seconds")
    serve.add_argument("--idle-end", type=float, metavar="SECONDS", help="end when no client was there for so long")
    serve.add_argument("--orphan-grace", type=float, default=60.0, help="seconds that slots outlive their client")


def _add_isolation(serve: argparse._ArgumentGroup) -> None:
    serve.add_argument(
        "--isolation",
        choices=("auto", "namespaces", "user", "none"),
        default="auto",
        help="level of the slots; auto takes the best that works here, and never none for more than one slot",
    )
    serve.add_argument("--bwrap", help="path of bubblewrap")
    serve.add_argument("--uid-range", default="60000:65000", help="users for the slots of a daemon that is root")


def _add_surroundings(serve: argparse._ArgumentGroup) -> None:
    serve.add_argument(
        "--root",
        choices=("host", "image"),
        default="host",
        help="what slots see read-only: a machine's programs, or the whole image of the container around the daemon",
    )
    serve.add_argument("--image-env", action="store_true", help="slots have the variables of the image as well")
    for option, metavar, what in (
        ("--slot-env", "NAME=VALUE", "a variable of every slot"),
        ("--writable", "FOLDER", "a folder of the image of which every slot gets a copy that it may change"),
        ("--writable-if-there", "FOLDER", "likewise, unless the image does not have it"),
        ("--device", "PATTERN", "devices below /dev for every slot"),
        ("--hide", "FOLDER", "a folder of the container that is closed to everyone else, and that no slot sees"),
        ("--guard", "FOLDER", "a folder of the container that nobody but its owner may change from now on"),
    ):
        serve.add_argument(option, action="append", default=[], metavar=metavar, help=f"{what}; repeatable")


def _add_rights(serve: argparse._ArgumentGroup) -> None:
    serve.add_argument(
        "--fresh-proc",
        action="store_true",
        help="mount a /proc of the daemon's own first, in a container whose /proc is masked; needs CAP_SYS_ADMIN",
    )
    serve.add_argument(
        "--drop-to",
        metavar="UID[:GID]",
        help="give up root and every capability for good, and be this user, who gets the folders of state and socket",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
