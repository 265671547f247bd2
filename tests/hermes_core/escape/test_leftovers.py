"""What an agent plants for the next lease, or for whoever reads its files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core.exceptions import SlotFileError

if TYPE_CHECKING:
    from tests.hermes_core.escape.conftest import Attacker

# That nothing is left, and that the next lease works, is what leaving the fixture `attacker` looks at.
pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.mark.parametrize(
    "command",
    [
        "echo x > a; mkdir -p b/c; echo x > ~/a; echo x > /tmp/a; echo x > /var/tmp/b; echo x > /dev/shm/a",
        "for f in .bashrc .profile .bash_login .netrc .gitconfig; do echo 'touch /tmp/owned' > ~/$f; done",
        "mkdir -p ~/.local/lib/python3.11/site-packages ~/.config; "
        "echo 'import os' | tee ~/.local/lib/python3.11/site-packages/sitecustomize.py sitecustomize.py > /tmp/x.pth",
        "touch 'new\nline' -- '-rf' '*' ' ' '$(reboot)' \"$(printf '\\377\\376')\"",
        "mkdir -p locked/inner; echo x > locked/inner/f; chmod 000 locked/inner locked; mkdir bare; chmod 111 bare",
        "mkfifo fifo /tmp/fifo ~/fifo; python3 -c 'import socket; socket.socket(1).bind(\"socket\")'",
        "ln -s / root; ln -s .. up; ln -s loop loop; ln -s /proc/1/root proc; ln a b; echo x > a; ln a c",
        'setfattr -n user.x -v y . 2>/dev/null; python3 -c \'import os; os.setxattr(".", "user.x", b"y" * 1000)\'',
        "chattr +i . a; chattr +a ~; touch a; chattr +i a; true",
        'python3 -c \'import fcntl, time; f = open("a", "w"); fcntl.flock(f, 2); fcntl.lockf(f, 2); time.sleep(99)\' &',
        "(while :; do echo x > a$RANDOM; mkdir b; rmdir b; done) > /dev/null 2>&1 &",
        "touch a; exec 9< a; rm a; sleep 1000 > /dev/null 2>&1 &",
        "truncate -s 3G sparse; fallocate -l 10M real; touch -d 1901-01-01 old; touch -d 2400-01-01 young",
        "umask 777; mkdir a; touch b; umask 000; mkdir c; chmod 7777 c",
        "crontab -l; echo '* * * * * root true' > /etc/cron.d/x; echo x > /var/spool/cron/x; at now; true",
    ],
)
async def test_small_things(attacker: Attacker, command: str) -> None:
    await attacker.sh(command)


async def test_a_tree_of_ten_thousand_levels(attacker: Attacker) -> None:
    done = await attacker.python("for _ in range(10000):\n    os.mkdir('d'); os.chdir('d')\nprint('deep')")
    assert done.stdout == "deep\n"


async def test_a_hundred_thousand_files(attacker: Attacker) -> None:
    # Or as many as a busy disk makes in the time.
    done = await attacker.python(
        """
end = time.monotonic() + 15
for folder in range(100):
    os.mkdir(str(folder))
    for number in range(1000):
        os.close(os.open(f'{folder}/{number}', os.O_CREAT | os.O_WRONLY))
    if time.monotonic() > end:
        break
print('many')
""",
        timeout_s=60,
    )
    assert done.stdout == "many\n"


@pytest.mark.parametrize(
    "command",
    [
        "chmod 000 /workspace",
        "rmdir /workspace",
        "mv /workspace /tmp/w",
        "rm -rf /workspace; ln -s /etc /workspace",
        "rm -rf / --no-preserve-root 2> /dev/null",
        "cd /; mv /workspace /home/agent/w; ln -s /home/agent/w /workspace",
        "chmod 000 /tmp ~ /dev/shm; rm -rf ~ /tmp",
        'python3 -c \'import os; os.rename("/workspace", "/workspace2")\'; chmod 111 /workspace',
    ],
)
async def test_its_folders_are_spoiled(attacker: Attacker, command: str) -> None:
    await attacker.sh(command)


@pytest.mark.parametrize(
    "make",
    [
        "mkfifo planted",
        "mkfifo planted; (sleep 100 > planted) > /dev/null 2>&1 &",
        "mkfifo planted; (cat < planted) > /dev/null 2>&1 &",
        "mkdir planted",
        "python3 -c 'import socket; socket.socket(1).bind(\"planted\")'",
        "ln -s planted planted",
        "ln -s /dev/zero planted",
        "ln -s /dev/random planted",
        "ln -s /dev/ptmx planted",
        "ln -s /dev/tty planted",
        "ln -s /dev/stdin planted",
        "ln -s /proc/1/root/etc/shadow planted",
        "truncate -s 3G planted",
        "echo x > planted; chmod 000 planted",
        "for i in $(seq 1 60); do ln -s l$((i + 1)) l$i; done; ln -s l1 planted",
        "ln -s . l1; for i in $(seq 1 40); do ln -s l$i/l$i l$((i + 1)); done; ln -s l41/x planted",
    ],
)
async def test_reading_what_was_planted_never_hangs(attacker: Attacker, make: str) -> None:
    await attacker.sh(make)
    with anyio.fail_after(10), pytest.raises(SlotFileError):
        await attacker.slot.read_file("planted", max_bytes=1 << 20)


@pytest.mark.parametrize(
    "make",
    [
        "mkfifo planted; (cat < planted) > /dev/null 2>&1 &",
        "mkdir planted",
        "ln -s /dev/full planted",
        "ln -s /usr/x planted",
    ],
)
async def test_writing_to_what_was_planted_never_hangs(attacker: Attacker, make: str) -> None:
    await attacker.sh(make)
    with anyio.fail_after(10), pytest.raises(SlotFileError):
        await attacker.slot.write_file("planted", b"x" * 100_000)


async def test_a_file_that_changes_while_it_is_read(attacker: Attacker) -> None:
    await attacker.sh(
        "(while :; do truncate -s 0 f; head -c 3000000 /dev/zero > f; rm f; mkfifo f; rm f; ln -s /etc/passwd f; rm f;"
        " done) > /dev/null 2>&1 &"
    )
    for _ in range(30):
        with anyio.fail_after(10):
            try:
                data = await attacker.slot.read_file("f")
            except SlotFileError:
                continue
            assert not data.strip(b"\0") or data.startswith(b"root:")


async def test_a_held_pipe_holds_up_nobody(attacker: Attacker) -> None:
    with anyio.fail_after(10):
        done = await attacker.sh("(trap '' HUP TERM INT; while :; do echo x; sleep 0.01; done) & echo started", 5)
        assert done.stdout.startswith(("started", "x"))
        timed = await attacker.sh("(setsid sleep 1000 &) ; sleep 1000", 0.2)
        assert timed.timed_out
        assert (await attacker.sh("echo next")).stdout == "next\n"


async def test_nothing_outside_was_made(attacker: Attacker) -> None:
    before = set(os.listdir("/tmp")) | set(os.listdir("/dev/shm"))
    await attacker.sh("for i in 1 2 3; do echo x > /tmp/planted-outside$i; echo x > /dev/shm/planted-outside$i; done")
    after = set(os.listdir("/tmp")) | set(os.listdir("/dev/shm"))
    assert not [name for name in after - before if "planted-outside" in name]
