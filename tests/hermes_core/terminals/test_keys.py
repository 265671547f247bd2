from __future__ import annotations

import pytest

from hermes_core.exceptions import UsageError
from hermes_core.terminals import encode_keys


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("Enter", b"\r"),
        ("Escape", b"\x1b"),
        ("Tab", b"\t"),
        ("BTab", b"\x1b[Z"),
        ("Space", b" "),
        ("BSpace", b"\x7f"),
        ("Up", b"\x1b[A"),
        ("Down", b"\x1b[B"),
        ("Right", b"\x1b[C"),
        ("Left", b"\x1b[D"),
        ("Home", b"\x1b[H"),
        ("End", b"\x1b[F"),
        ("PageUp", b"\x1b[5~"),
        ("PPage", b"\x1b[5~"),
        ("PgUp", b"\x1b[5~"),
        ("PageDown", b"\x1b[6~"),
        ("NPage", b"\x1b[6~"),
        ("PgDn", b"\x1b[6~"),
        ("IC", b"\x1b[2~"),
        ("Insert", b"\x1b[2~"),
        ("DC", b"\x1b[3~"),
        ("Delete", b"\x1b[3~"),
        ("F1", b"\x1bOP"),
        ("F4", b"\x1bOS"),
        ("F5", b"\x1b[15~"),
        ("F12", b"\x1b[24~"),
        ("C-c", b"\x03"),
        ("C-C", b"\x03"),
        ("^x", b"\x18"),
        ("C-Space", b"\0"),
        ("C-@", b"\0"),
        ("C-[", b"\x1b"),
        ("C-?", b"\x7f"),
        ("M-x", b"\x1bx"),
        ("M-ü", "\x1bü".encode()),
        ("C-M-a", b"\x1b\x01"),
        ("M-C-a", b"\x1b\x01"),
        ("M-Enter", b"\x1b\r"),
        ("S-a", b"A"),
        ("S-Tab", b"\x1b[Z"),
        ("S-Up", b"\x1b[1;2A"),
        ("M-Up", b"\x1b[1;3A"),
        ("C-Left", b"\x1b[1;5D"),
        ("C-S-M-End", b"\x1b[1;8F"),
        ("S-F1", b"\x1b[1;2P"),
        ("C-F5", b"\x1b[15;5~"),
        ("C-PageUp", b"\x1b[5;5~"),
        ("enter", b"\r"),
        ("ls -la", b"ls -la"),
        ("^", b"^"),
        ("-", b"-"),
        ("C-", b"C-"),
        ("C-3 is no key", b"C-3 is no key"),
        ("s-expression", b"s-expression"),
        ("grüße\n", "grüße\n".encode()),
        ("", b""),
    ],
)
def test_what_a_key_sends(key: str, sent: bytes) -> None:
    assert encode_keys(key) == sent


def test_several_keys_follow_each_other() -> None:
    assert encode_keys(["i", "text", "Escape", ":wq", "Enter"]) == b"itext\x1b:wq\r"


def test_application_mode_changes_plain_cursor_keys() -> None:
    assert encode_keys(["Up", "S-Up", "End"], application=True) == b"\x1bOA\x1b[1;2A\x1bOF"


def test_literal_text_is_never_a_key() -> None:
    assert encode_keys(["Enter", "C-c", "C-foo"], literal=True) == b"EnterC-cC-foo"


@pytest.mark.parametrize("key", ["C-foo", "M-S-nothing", "C-ü", "C-Enter", "S-1", "C-Escape", "S-BTab", "C-M-F13"])
def test_what_begins_as_a_key_and_is_none_is_an_error(key: str) -> None:
    with pytest.raises(UsageError, match="unknown key") as caught:
        encode_keys(["a", key])
    assert "literal" in str(caught.value.hint)
