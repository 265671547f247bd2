"""`hermes sandbox shell`, in a real terminal."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.hermes_core.cli.conftest import Cli

pytestmark = pytest.mark.namespaces

PROGRAM = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from hermes_core.cli import main; main()"
PATIENCE_S = 90


class Terminal:
    """A terminal with `hermes sandbox shell` in it."""

    def __init__(self, home: Path) -> None:
        self.keyboard, self.screen = os.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self.screen)
        self.shown = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "sandbox", "shell"],
            stdin=self.screen,
            stdout=self.screen,
            stderr=self.screen,
            start_new_session=True,
            cwd=home,
            env={**os.environ, "HOME": str(home), "TERM": "xterm"},
        )
        self.wait(lambda: self.settings() != self.before)

    def settings(self) -> list[object]:
        return termios.tcgetattr(self.screen)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode())

    def read(self) -> None:
        if select.select([self.keyboard], [], [], 0.05)[0]:
            self.shown += os.read(self.keyboard, 1 << 16)

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.shown
            self.read()

    def see(self, text: str) -> None:
        self.wait(lambda: text.encode() in self.shown)
        self.shown = self.shown.partition(text.encode())[2]

    def end(self) -> int:
        self.wait(lambda: self.process.poll() is not None)
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.keyboard)
        os.close(self.screen)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


def test_a_shell_like_any_other(terminal: Terminal) -> None:
    terminal.type("echo $((6*7))\r")
    terminal.see("42\r\n")
    terminal.type("stty size; tty; echo $TERM; pwd\r")
    terminal.see("24 80\r\n/dev/pts/")
    terminal.see("xterm\r\n/workspace\r\n")
    # Said by what is interrupted: the shell itself may be, between two commands, and goes on with the second.
    terminal.type("sh -c 'echo a$((1+1))sleep; exec sleep 1000'\r")
    terminal.see("a2sleep")
    terminal.type("\x03")
    terminal.type("echo st$((1+1))ill\r")
    terminal.see("st2ill")
    terminal.type("exit 3\r")
    assert terminal.end() == 3
    assert terminal.settings() == terminal.before


def test_the_window_may_change_its_size(terminal: Terminal) -> None:
    terminal.type("trap 'stty size' WINCH; echo re$((1+1))ady\r")
    terminal.see("re2ady")
    terminal.resize(33, 99)
    terminal.type("while ! stty size | grep -x '33 99'; do sleep 0.1; done\r")
    terminal.see("33 99\r\n")
    terminal.type("exit\r")
    assert terminal.end() == 0


def test_much_output_comes_whole(terminal: Terminal) -> None:
    terminal.type("stty -echo; seq 100000 199999; echo en$((1+1))d\r")
    terminal.see("100000\r\n")
    terminal.wait(lambda: b"en2d" in terminal.shown)
    lines = terminal.shown.partition(b"en2d")[0].split()
    assert lines == [str(number).encode() for number in range(100001, 200000)]
    terminal.type("\x04")
    assert terminal.end() == 0


def test_a_shell_that_a_signal_ends(terminal: Terminal) -> None:
    terminal.type("kill -9 $$\r")
    assert terminal.end() == 128 + signal.SIGKILL
    assert terminal.settings() == terminal.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_terminal_is_given_back_when_it_is_interrupted_from_outside(terminal: Terminal, number: int) -> None:
    terminal.process.send_signal(number)
    assert terminal.end() == 130
    assert terminal.settings() == terminal.before


def test_without_a_terminal_it_points_to_exec(hermes: Cli) -> None:
    done = hermes("sandbox", "shell")
    assert done.returncode == 2
    assert done.stderr == (
        "error: a shell needs a terminal, and standard input is none\nhint: hermes sandbox exec -- COMMAND\n"
    )
