"""Who starts a daemon and its command line know the same options."""

from __future__ import annotations

import inspect

from hermes_sandboxd import daemon_arguments
from hermes_sandboxd._cli import _parser

GIVEN = {
    "socket": "/s/socket",
    "state": "/s/state",
    "capacity": 3,
    "lifeline_fd": 0,
    "lifeline_silence_s": 7.5,
    "orphan_grace_s": 8.0,
    "idle_end_s": 9.0,
    "bwrap": "/b",
    "tcp": "127.0.0.1:0",
    "tls_env": "TLS",
    "isolation": "user",
    "root": "image",
    "slot_env": {"A": "-1", "B": "x=y"},
    "image_env": True,
    "uid_range": "1:2",
    "devices": ["/dev/a*", "/dev/b"],
    "writable": ["/w"],
    "writable_if_there": ["/v"],
    "hide": ["/h"],
    "guard": ["/g"],
    "socket_user": 5,
    "fresh_proc": True,
    "drop_to": "6:7",
}
RENAMED = {"devices": "device"}


def test_all_that_can_be_asked_for_is_understood() -> None:
    assert GIVEN.keys() == inspect.signature(daemon_arguments).parameters.keys() - {"command", "python"}
    command = daemon_arguments(**GIVEN, command=["hermes-sandboxd"])  # type: ignore[arg-type]
    assert command[:2] == ["hermes-sandboxd", "serve"]
    parsed = vars(_parser().parse_args(command[1:]))
    expected = {RENAMED.get(name, name.removesuffix("_s")): value for name, value in GIVEN.items()}
    assert {name: parsed[name] for name in expected} == {**expected, "slot_env": ["A=-1", "B=x=y"]}
    assert parsed.keys() - expected.keys() == {"command", "token_env"}


def test_what_is_not_asked_for_is_not_said() -> None:
    command = daemon_arguments(socket="s", state="t", capacity=1, command=["d"])
    assert command == ["d", "serve", "--socket", "s", "--state", "t", "--capacity", "1"]
