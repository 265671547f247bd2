"""Grading: what a scorer learns is true, whatever the agent did before."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.process_tree import supervisors_of

from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.exceptions import LeaseStateError, SlotDeadError, SlotFileError, UsageError

if TYPE_CHECKING:
    from tests.hermes_core.conftest import OpenRig

    from hermes_core.execution import Slot

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

CHECK = """
import json, os, subprocess, sys
# The program of the agent gets nothing but its own output: not the descriptor of the verdict.
done = subprocess.run([sys.executable, "-I", sys.argv[1] + "/solution.py"], capture_output=True, timeout=10)
verdict = {"passed": done.returncode == 0 and done.stdout == b"42\\n", "said": done.stdout.decode(errors="replace")}
with os.fdopen(3, "w") as report:
    json.dump(verdict, report)
"""

HOSTILITIES = {
    "nothing": "true",
    "background processes": "for i in 1 2 3 4 5; do (while :; do echo forged; sleep 0.01; done) & done",
    "a flood": "yes forged > flood & yes > /dev/null & true",
    "processes that cannot be told to end": "(trap '' TERM HUP INT; while :; do :; done) & setsid sleep 900 &",
    "a planted interpreter": "printf '#!/bin/sh\\nexit 0\\n' > python3; chmod +x python3; ln -s python3 sh",
    "planted modules": "for m in json os subprocess sitecustomize usercustomize conftest; do "
    "echo 'import os; os._exit(0)' > $m.py; done; mkdir -p ~/.local/lib; cp *.py ~/.local/lib",
    "planted settings": "echo 'exit 0' > ~/.profile; echo 'exit 0' > ~/.bashrc; echo '[pytest]' > pytest.ini",
    "files in the way": "mkdir -p /tmp/x; echo x > /tmp/verdict; mkfifo fifo; ln -s /proc/self/fd/3 three",
    "its end": "kill -9 -1",
    "signals to PID 1": "kill -9 1; kill -STOP 1",
    "a workspace closed to itself": "chmod 000 /workspace",
    "all processes": "python3 -c 'import os\nwhile True:\n try: os.fork()\n except OSError: pass' & sleep 0.5",
}


async def verdict(slot: Slot) -> dict[str, object]:
    grading = await slot.grade({"check.py": CHECK})
    done = await grading.exec([grading.python, "-I", "check.py", grading.workspace], timeout_s=30)
    assert done.exit_code == 0, done
    assert done.report is not None
    found: dict[str, object] = json.loads(done.report)
    return found


@pytest.mark.parametrize("hostility", HOSTILITIES.values(), ids=HOSTILITIES.keys())
async def test_a_scorer_sees_the_truth(rig: OpenRig, hostility: str) -> None:
    async with rig(slots=2) as opened:
        for solution, expected in (("print(42)", True), ("print(41)", False)):
            slot = await opened.lease()
            await slot.write_file("solution.py", solution)
            try:
                await slot.exec(hostility, timeout_s=2)
            except SlotDeadError:
                pass
            assert (await verdict(slot))["passed"] is expected
            await slot.release()


async def test_a_dead_slot_can_be_graded(rig: OpenRig) -> None:
    async with rig(slots=2) as opened:
        slot = await opened.lease()
        await slot.write_file("solution.py", "print(42)")
        assert isinstance(opened.backend, LocalBackend)
        (sandbox,) = opened.backend.sandboxes
        assert sandbox.pid is not None
        (supervisor,) = supervisors_of(sandbox.pid)
        os.kill(supervisor, 9)
        with pytest.raises(SlotDeadError):
            await slot.exec("sleep 5")
        assert (await verdict(slot))["passed"] is True
        await slot.release()


async def test_what_the_grader_brings_is_its_own(rig: OpenRig) -> None:
    async with rig() as opened:
        slot = await opened.lease(env={"AGENT": "1"})
        await slot.exec("echo secret > ~/.netrc; echo x > /tmp/x; echo kept > kept; sleep 900 &")
        grading = await slot.grade({"a/b.txt": "hello", "run.sh": "#!/bin/sh\necho ran"}, env={"GRADER": "1"})
        seen = await grading.exec("pwd; cat a/b.txt; ./run.sh; env; ls -A ~ /tmp; pgrep sleep; id -u")
        assert seen.stdout.splitlines()[:3] == [grading.files, "helloran", "GRADER=1"] or "GRADER=1" in seen.stdout
        assert "AGENT" not in seen.stdout
        assert ".netrc" not in seen.stdout
        assert (await grading.exec("ls -A ~ /tmp | grep -c . ; pgrep -c sleep")).stdout.split() == ["2", "0"]
        for attempt in ("echo x > a/b.txt", "rm run.sh", "chmod +w .", "touch new", "mv a c"):
            assert (await grading.exec(attempt)).exit_code != 0, attempt
        assert await grading.read_file("kept") == b"kept\n"
        assert (await grading.exec("cat kept", cwd=grading.workspace)).stdout == "kept\n"
        await slot.release()


async def test_reports_are_apart_from_output(rig: OpenRig) -> None:
    async with rig() as opened:
        slot = await opened.lease()
        assert (await slot.exec("echo x >&3")).exit_code != 0
        grading = await slot.grade()
        done = await grading.exec("echo out; echo err >&2; echo verdict >&3; exit 5")
        assert (done.stdout, done.stderr, done.report, done.exit_code) == ("out\n", "err\n", b"verdict\n", 5)
        assert (await grading.exec("true")).report == b""
        large = await grading.exec("head -c 300000 /dev/zero >&3; head -c 300000 /dev/zero")
        assert (len(large.report or b""), large.stdout_bytes) == (300_000, 300_000)
        await slot.release()


async def test_graded_slots_are_the_scorers(rig: OpenRig) -> None:
    async with rig() as opened:
        slot = await opened.lease()
        first = await slot.grade({"a": "1"})
        with pytest.raises(LeaseStateError, match="being graded"):
            await slot.exec("true")
        second = await slot.grade({"b": "2"})
        assert (await second.exec("ls")).stdout == "b\n"
        assert (await first.exec("ls")).stdout == "b\n"
        await slot.release()
        again = await opened.lease()
        assert (await again.exec("ls -A /grading /workspace")).stdout.strip() in ("", "/workspace:")
        await again.release()


async def test_bad_files_are_refused_at_once(rig: OpenRig) -> None:
    async with rig() as opened:
        slot = await opened.lease()
        for path in ("/etc/passwd", "../x", "a/../../x", "", "."):
            with pytest.raises(UsageError):
                await slot.grade({path: "x"})
        assert (await slot.exec("echo the agent has it still")).exit_code == 0
        with pytest.raises(SlotFileError) as raised:
            await slot.grade({"big": bytes(65 << 20)})
        assert raised.value.kind == "too_large"
        with pytest.raises(UsageError):
            await slot.grade(limits={"gravity": 1})
        await slot.release()


async def test_many_files_travel(rig: OpenRig) -> None:
    async with rig() as opened:
        slot = await opened.lease()
        files = {f"d{index % 7}/f{index}": bytes([index % 256]) * 5000 for index in range(600)}
        grading = await slot.grade(files)
        done = await grading.exec("find . -type f | wc -l; cat d3/f3 | wc -c")
        assert done.stdout.split() == ["600", "5000"]
        await slot.release()
