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


def _is_timeout(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _LONGEST_S


def _is_body(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"size"} and _is_size(value["size"])


_LIMITS: dict[str, int] = {"tmp_bytes": _SCRATCH_BYTES, "home_bytes": _SCRATCH_BYTES}


def _is_limits(value: object) -> bool:
    # A limit that would not be enforced is refused: nobody should believe in it.
    return isinstance(value, dict) and all(name in _LIMITS and _is_size(size) and size for name, size in value.items())


def _optional(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


_Table = dict[str, "tuple[_Check, Any]"]

_SLOT: _Table = {"slot": (_is_size, _REQUIRED)}
_PATH: _Table = {**_SLOT, "path": (lambda value: _is_text(value) and bool(value), _REQUIRED)}
_METHODS: dict[str, _Table] = {
    "health": {},
    "shutdown": {},
    "slot.open": {
        **_SLOT,
        "network": (lambda value: value in ("none", "host"), "none"),
        "env": (_is_environment, {}),
        "limits": (_is_limits, {}),
    },
    "slot.exec": {
        **_SLOT,
        "argv": (_is_command, _REQUIRED),
        "timeout_s": (_is_timeout, 30.0),
        "cwd": (_optional(_is_text), None),
        "env": (_is_environment, {}),
        "stream": (_is_flag, False),
        "output_cap": (_is_cap, DEFAULT_OUTPUT_CAP),
    },
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
    "slot.reset": _SLOT,
}
_WITH_BODY = ("slot.exec", "slot.write")


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


def scratch_sizes(limits: dict[str, int]) -> dict[str, int]:
    """Return the sizes of a slot's private file systems."""
    return {**_LIMITS, **limits}
