from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sandboxd_client import Answer, Client

pytestmark = pytest.mark.namespaces


def _entries(answer: Answer) -> list[tuple[Any, ...]]:
    lines = answer.bodies["entries"].splitlines()
    assert len(lines) == answer["entries"]
    return [tuple(json.loads(line)) for line in lines]


def _paths(answer: Answer) -> list[str]:
    return [entry[0] for entry in _entries(answer)]


def test_a_folder_is_listed_with_everything_below_it_and_no_link_is_followed(client: Client) -> None:
    client.sh(
        "mkdir -p d/sub/empty; echo hello > d/b; echo > d/sub/f; mkfifo d/pipe; ln -s /etc d/link; touch -d @5 d/b"
    )
    answer = client.call("slot.list", slot=0, path="d")
    assert [entry[:3] for entry in _entries(answer)] == [
        ("b", "file", 6),
        ("link", "link", 0),
        ("pipe", "other", 0),
        ("sub", "folder", 0),
        ("sub/empty", "folder", 0),
        ("sub/f", "file", 1),
    ]
    assert _entries(answer)[0][3] == 5
    assert (answer["truncated"], answer["unreadable"]) == (False, 0)
    assert _paths(client.call("slot.list", slot=0, path="/workspace/d/", recursive=False)) == [
        "b",
        "link",
        "pipe",
        "sub",
    ]


def test_what_is_no_folder_is_listed_alone(client: Client) -> None:
    client.sh("mkdir d; echo hello > d/f; ln -s d link")
    assert [entry[:3] for entry in _entries(client.call("slot.list", slot=0, path="d/f"))] == [("f", "file", 6)]
    assert [entry[:3] for entry in _entries(client.call("slot.list", slot=0, path="link"))] == [("link", "link", 0)]
    assert client.call("slot.list", slot=0, path="missing").kind == "not_found"
    assert client.call("slot.list", slot=0, path="d/f/x").kind == "not_found"


def test_the_number_of_entries_is_limited_and_that_is_said(client: Client) -> None:
    client.sh("mkdir -p d/a; cd d; for i in 1 2 3 4 5 6 7 8 9; do touch $i a/$i; done")
    everything = _paths(client.call("slot.list", slot=0, path="d"))
    assert len(everything) == 19
    for most in (0, 1, 10, 18):
        answer = client.call("slot.list", slot=0, path="d", max_entries=most)
        assert (_paths(answer), answer["truncated"]) == (everything[:most], True)
    answer = client.call("slot.list", slot=0, path="d", max_entries=19)
    assert (_paths(answer), answer["truncated"]) == (everything, False)
    assert client.call("slot.list", slot=0, path="d", recursive=False, max_entries=10)["truncated"] is False


def test_a_folder_of_very_many_files_arrives_in_pieces(client: Client) -> None:
    client.sh("mkdir d; cd d; seq -f %05g 20000 | xargs touch", timeout_s=60)
    answer = client.call("slot.list", slot=0, path="d")
    assert _paths(answer) == [f"{number:05d}" for number in range(1, 20001)]
    assert len(answer.bodies["entries"]) > 65536


def test_odd_names_are_listed(client: Client) -> None:
    client.sh(r"""mkdir d; cd d; touch "$(printf 'a\377b')" 'line
break' '"' 'ü' ' ' '\' ./-""")
    assert _paths(client.call("slot.list", slot=0, path="d")) == [" ", '"', "-", "\\", "a\ufffdb", "line\nbreak", "ü"]


def test_a_tree_deeper_than_any_path_is_listed_as_far_as_paths_go(client: Client) -> None:
    program = "import os; os.mkdir('deep'); os.chdir('deep')\nfor _ in range(2500): os.mkdir('d'); os.chdir('d')"
    assert client.call("slot.exec", slot=0, argv=["python3", "-c", program])["exit_code"] == 0
    answer = client.call("slot.list", slot=0, path="deep")
    assert answer["truncated"] is True
    assert answer["entries"] == 2048
    assert max(map(len, _paths(answer))) == 4095


def test_folders_that_cannot_be_read_are_counted(client: Client) -> None:
    client.sh("mkdir -p d/closed d/open; touch d/closed/x d/open/x; chmod 0 d/closed")
    answer = client.call("slot.list", slot=0, path="d")
    assert (_paths(answer), answer["unreadable"]) == (["closed", "open", "open/x"], 1)
    client.sh("chmod 700 d/closed")
