"""Checks the parameters of requests, and fills in what may be left out."""

from __future__ import annotations

from typing import Any, Callable

from hermes_sandboxd._protocol import DEFAULT_OUTPUT_CAP, Refusal

Params = dict[str, Any]
_Check = Callable[[object], bool]

_REQUIRED = object()
_LONGEST_S = 7 * 86400
_FILE_BYTES = 256 << 20
_SCRATCH_BYTES = 512 << 20
_ENTRIES = 100_000
_LONGEST_WAIT_S = 10.0


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_cap(value: object) -> bool:
    return type(value) is int and 0 <= value <= 64 << 20


def _is_command(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value)) and bool(value[0])


def _is_environment(value: object) -> bool:
    return isinstance(value, dict) and all(
        name and "=" not in name and _is_text(name) and _is_text(text) for name, text in value.items()
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_seconds(value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    return _is_number(value) and 0 < value <= _LONGEST_S


def _is_wait(value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    return _is_number(value) and 0 <= value <= _LONGEST_WAIT_S


def _is_screen_side(value: object) -> bool:
    return type(value) is int and 1 <= value <= 1000


def _is_screen(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"rows", "columns"} and all(map(_is_screen_side, value.values()))


def _is_body(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"size"} and _is_size(value["size"])


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 2**62


# Limit to (what it may be, default); None is no limit. docs/reference/protocol.md says what each one means.
_LIMITS: dict[str, tuple[_Check, Any]] = {
    "memory_bytes": (_is_count, 2 << 30),
    "processes": (_is_count, 512),
    "open_files": (_is_count, 4096),
    "file_bytes": (_is_count, 4 << 30),
    "workspace_bytes": (_is_count, 8 << 30),
    "workspace": (lambda value: value in ("disk", "tmpfs"), "disk"),
    "tmp_bytes": (_is_count, _SCRATCH_BYTES),
    "home_bytes": (_is_count, _SCRATCH_BYTES),
}
_ALWAYS_LIMITED = ("tmp_bytes", "home_bytes", "workspace")


def _is_limits(value: object) -> bool:
    # An unknown limit is refused: nobody should believe in it.
    return isinstance(value, dict) and all(
        name in _LIMITS and (_LIMITS[name][0](limit) or (limit is None and name not in _ALWAYS_LIMITED))
        for name, limit in value.items()
    )


def _optional(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


_Table = dict[str, "tuple[_Check, Any]"]

_SLOT: _Table = {"slot": (_is_size, _REQUIRED)}
_PATH: _Table = {**_SLOT, "path": (lambda value: _is_text(value) and bool(value), _REQUIRED)}
_JOB: _Table = {**_SLOT, "job": (_is_count, _REQUIRED)}
_PROGRAM: _Table = {
    **_SLOT,
    "argv": (_is_command, _REQUIRED),
    "cwd": (_optional(_is_text), None),
    "env": (_is_environment, {}),
}
_OPEN: _Table = {
    **_SLOT,
    "network": (lambda value: value in ("none", "host"), "none"),
    "env": (_is_environment, {}),
    "limits": (_is_limits, {}),
}
_METHODS: dict[str, _Table] = {
    "health": {},
    "session.end": {},
    "shutdown": {},
    "slot.open": _OPEN,
    "slot.grade": _OPEN,
    "slot.exec": {
        **_PROGRAM,
        "timeout_s": (_is_seconds, 30.0),
        "cpu_s": (_optional(_is_seconds), None),
        "stream": (_is_flag, False),
        "merge": (_is_flag, False),
        "report": (_is_flag, False),
        "output_cap": (_is_cap, DEFAULT_OUTPUT_CAP),
    },
    "slot.start": {
        **_PROGRAM,
        "pty": (_optional(_is_screen), None),
        "output_cap": (_is_cap, DEFAULT_OUTPUT_CAP),
    },
    "slot.poll": {
        **_JOB,
        "offset": (_is_size, 0),
        "max_bytes": (_is_cap, DEFAULT_OUTPUT_CAP),
        "wait_s": (_is_wait, 0.0),
    },
    "slot.input": {**_JOB, "end": (_is_flag, False)},
    "slot.resize": {**_JOB, "rows": (_is_screen_side, _REQUIRED), "columns": (_is_screen_side, _REQUIRED)},
    "slot.kill": {**_JOB, "signal": (lambda value: type(value) is int and 1 <= value <= 64, 9)},
    "slot.jobs": _SLOT,
    "slot.read": {
        **_PATH,
        "offset": (_is_size, 0),
        "length": (_optional(_is_size), None),
        "max_bytes": (_is_size, _FILE_BYTES),
        "sha256": (_is_flag, False),
    },
    "slot.write": {
        **_PATH,
        "mode": (lambda value: type(value) is int and 0 <= value <= 0o777, 0o644),
        "parents": (_is_flag, False),
        "max_bytes": (_is_size, _FILE_BYTES),
    },
    "slot.list": {**_PATH, "recursive": (_is_flag, True), "max_entries": (_is_size, _ENTRIES)},
    "slot.archive": {**_PATH, "max_bytes": (_is_size, _FILE_BYTES), "max_entries": (_is_size, _ENTRIES)},
    "slot.extract": {**_PATH, "max_bytes": (_is_size, _FILE_BYTES), "max_entries": (_is_size, _ENTRIES)},
    "slot.reset": _SLOT,
}
_WITH_BODY = ("slot.exec", "slot.write", "slot.input", "slot.extract", "slot.grade")


def checked(method: object, params: object) -> Params:
    """Return the complete parameters of a request.

    Raises:
        Refusal: The method is unknown, or a parameter is missing, unknown or wrong.
    """
    table = _METHODS.get(method) if isinstance(method, str) else None
    if table is None:
        raise Refusal("bad_method", f"unknown method {method!r}")
    if not isinstance(params, dict):
        raise Refusal("bad_request", "params must be an object")
    found: Params = {}
    for name, (check, default) in table.items():
        value = params.get(name, default)
        if value is _REQUIRED:
            raise Refusal("bad_request", f"{method}: {name} is missing")
        if value is not default and not check(value):
            raise Refusal("bad_request", f"{method}: wrong {name}: {str(value)[:200]}")
        found[name] = value
    if "body" in params and method in _WITH_BODY:
        if not _is_body(params["body"]):
            raise Refusal("bad_request", f"{method}: wrong body: {str(params['body'])[:200]}")
        found["body"] = params["body"]
    unknown = params.keys() - found.keys()
    if unknown:
        raise Refusal("bad_request", f"{method}: unknown {', '.join(sorted(unknown))}")
    return found


def complete_limits(limits: dict[str, Any]) -> dict[str, Any]:
    """Return the limits of a slot: those that were asked for over the defaults."""
    return {**{name: default for name, (_, default) in _LIMITS.items()}, **limits}
