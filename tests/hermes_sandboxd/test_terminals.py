from __future__ import annotations

import hashlib
import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from sandboxd_client import processes_with, wait_until

if TYPE_CHECKING:
    from sandboxd_client import Answer, Client

pytestmark = pytest.mark.namespaces


@pytest.fixture
def marker() -> str:
    """The end of a number of seconds to sleep, by which the processes of one test are found."""
    return f".{random.getrandbits(48)}"


class Terminal:
    """A program in a terminal of its own."""

    def __init__(
        self, client: Client, *argv: str, rows: int = 24, columns: int = 80, env: dict[str, str] | None = None
    ) -> None:
        self._client = client
        pty = {"rows": rows, "columns": columns}
        self.job = client.call("slot.start", slot=0, argv=list(argv), pty=pty, env=env or {})["job"]
        self.seen = b""
        self._mark = 0

    def call(self, method: str, _body: bytes | None = None, **params: Any) -> Answer:  # noqa: ANN401
        return self._client.call(f"slot.{method}", _body, slot=0, job=self.job, **params)

    def poll(self) -> Answer:
        answer = self.call("poll", offset=len(self.seen))
        self.seen += answer.bodies["output"]
        return answer

    def type(self, text: bytes) -> None:
        assert self.call("input", text)["size"] == len(text)

    def expect(self, pattern: bytes) -> re.Match[bytes]:
        """Wait for output, which is then taken as read."""
        mark = self._mark

        def found() -> bool:
            self.poll()
            return re.search(pattern, self.seen[mark:]) is not None

        wait_until(found)
        match = re.search(pattern, self.seen[mark:])
        assert match is not None
        self._mark = mark + match.end()
        return match

    def ended(self) -> Answer:
        wait_until(lambda: not self.poll()["running"])
        return self.poll()


def shell(client: Client, **options: Any) -> Terminal:  # noqa: ANN401
    """A shell at its prompt."""
    terminal = Terminal(client, "/bin/bash", "--norc", "--noprofile", "-i", env={"PS1": "READY> "}, **options)
    terminal.expect(rb"READY> ")
    return terminal


def test_a_shell_at_its_prompt(client: Client) -> None:
    terminal = shell(client)
    terminal.type(b"tty; echo $TERM; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all three\r")
    assert terminal.expect(rb"[\r\n]/dev/pts/(\d+)\r\nxterm-256color\r\nall three\r\n").group(1) == b"0"
    terminal.type(b"exit 7\r")
    ended = terminal.ended()
    assert (ended["exit_code"], ended["signal"], ended["foreground"]) == (7, None, None)


def test_the_window_and_its_changes(client: Client) -> None:
    terminal = shell(client, rows=31, columns=97)
    terminal.type(b"stty size\r")
    terminal.expect(rb"[\r\n]31 97\r\n")
    script = 'trap "echo changed to \\$(stty size)" WINCH; echo rea""dy; while :; do sleep 0.05; done'
    terminal.type(f"sh -c '{script}'\r".encode())
    terminal.expect(rb"ready\r\n")
    assert terminal.call("resize", rows=50, columns=120).error is None
    terminal.expect(rb"changed to 50 120\r\n")
    assert terminal.call("resize", rows=0, columns=80).kind == "bad_request"


def test_interrupting_a_program_from_the_keyboard(client: Client, marker: str) -> None:
    terminal = shell(client)
    assert terminal.poll()["foreground"] is True
    terminal.type(f"sleep 1{marker}\r".encode())
    wait_until(lambda: bool(processes_with(f"sleep\x001{marker}")))
    assert terminal.poll()["foreground"] is False
    terminal.type(b"\x03")
    terminal.expect(rb"READY> ")
    wait_until(lambda: terminal.poll()["foreground"] is True)
    terminal.type(b"echo $?\r")
    terminal.expect(rb"[\r\n]130\r\n")


def test_job_control(client: Client, marker: str) -> None:
    terminal = shell(client)
    terminal.type(f"sleep 1{marker}\r".encode())
    wait_until(lambda: bool(processes_with(f"sleep\x001{marker}")))
    terminal.type(b"\x1a")
    terminal.expect(rb"Stopped .*sleep [\d.]+\r\n")
    terminal.expect(rb"READY> ")
    terminal.type(b"bg; jobs\r")
    terminal.expect(rb"Running .*sleep [\d.]+ &\r\n")
    terminal.type(b"fg\r")
    wait_until(lambda: terminal.poll()["foreground"] is False)
    # Signals go to the foreground, so that the shell lives on.
    assert terminal.call("kill", signal=15).error is None
    terminal.expect(rb"Terminated")
    terminal.expect(rb"READY> ")
    assert terminal.poll()["running"] is True


def test_the_end_of_the_input_is_typed(client: Client) -> None:
    terminal = Terminal(client, "/bin/cat")
    terminal.type(b"line\r")
    terminal.expect(rb"line\r\nline\r\n")
    assert terminal.call("input", b"last\r", end=True)["size"] == 5
    assert terminal.ended()["exit_code"] == 0
    assert terminal.seen == b"line\r\nline\r\nlast\r\nlast\r\n"
    assert terminal.call("input", b"more").kind == "input_closed"


def test_a_character_is_erased_as_a_whole(client: Client) -> None:
    terminal = Terminal(client, "/bin/cat")
    terminal.type("aé\x7fb\r".encode())
    terminal.expect(rb"\r\nab\r\n")


def test_a_large_text_passes_a_raw_terminal_whole(client: Client) -> None:
    terminal = Terminal(client, "/bin/sh", "-c", "stty raw -echo; echo ready; head -c 1000000 | sha256sum")
    terminal.expect(rb"ready\n")
    client.upload("slot.input", bytes(1_000_000), slot=0, job=terminal.job)
    assert terminal.expect(rb"([0-9a-f]{64})  -").group(1).decode() == hashlib.sha256(bytes(1_000_000)).hexdigest()
    assert terminal.ended()["exit_code"] == 0


def test_all_that_was_shown_before_the_end_arrives(client: Client) -> None:
    for _ in range(20):
        terminal = Terminal(client, "/bin/sh", "-c", "stty -onlcr; seq 1 5000")
        terminal.ended()
        assert terminal.seen == b"".join(b"%d\n" % number for number in range(1, 5001))


def test_a_program_that_draws(client: Client) -> None:
    terminal = Terminal(client, "/usr/bin/top", "-d", "0.2", rows=20, columns=70)
    terminal.expect(rb"load average")
    terminal.expect(rb"PID")
    assert b"\x1b[" in terminal.seen
    assert terminal.poll()["foreground"] is True
    terminal.type(b"q")
    assert terminal.ended()["exit_code"] == 0


def test_kill_takes_everything_that_was_started_at_the_prompt(client: Client, marker: str) -> None:
    terminal = shell(client)
    terminal.type(f"sleep 1{marker} & nohup sleep 2{marker} &\r".encode())
    terminal.type(f"sh -c 'setsid sleep 3{marker}; true' &\r".encode())
    terminal.type(f"sleep 4{marker}\r".encode())
    wait_until(lambda: len(processes_with(marker)) == 5)
    assert terminal.call("kill").error is None
    assert processes_with(marker) == []
    assert terminal.poll()["signal"] == 9


def test_a_terminal_that_its_program_closes_for_a_moment(client: Client) -> None:
    script = "exec </dev/null >/dev/null 2>&1; sleep 0.3; exec </dev/tty >/dev/tty; echo back; read line; echo $line"
    terminal = Terminal(client, "/bin/sh", "-c", script)
    terminal.expect(rb"back\r\n")
    terminal.type(b"heard\r")
    terminal.expect(rb"heard\r\nheard\r\n")
    assert terminal.ended()["exit_code"] == 0


def test_many_terminals_at_once(client: Client) -> None:
    terminals = [shell(client) for _ in range(10)]
    for number, terminal in enumerate(terminals):
        terminal.type(f"echo $(({number} * 7))\r".encode())
    for number, terminal in enumerate(terminals):
        terminal.expect(rf"[\r\n]{number * 7}\r\n".encode())


def test_no_slot_can_take_all_terminals_of_the_machine(client: Client) -> None:
    script = "import os\ntry:\n for n in range(1000): os.open('/dev/ptmx', os.O_RDWR)\nexcept OSError: print(n)"
    assert client.call("slot.exec", slot=0, argv=["python3", "-c", script]).stdout == b"128\n"
    shell(client)
