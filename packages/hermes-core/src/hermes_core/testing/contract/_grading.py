"""Promises about grading: the scorer looks at the workspace, and nothing of the agent is in its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.exceptions import LeaseStateError, SlotDeadError, UsageError
from hermes_core.testing.contract._check import ALL_LEVELS, CONFINED, check
from hermes_core.testing.contract._expect import expect

if TYPE_CHECKING:
    from hermes_core.testing.contract._rig import ContractRig


@check(
    "Grading sees the workspace as the agent left it, and nothing that the agent started still runs.", levels=ALL_LEVELS
)
async def grading_ends_the_agent(rig: ContractRig) -> None:
    slot = await rig.lease()
    marker = rig.marker()
    await slot.exec(f"echo answer > answer; setsid sleep {marker} & (trap '' TERM; sleep {marker}) & true")
    await slot.start(f"sleep {marker}")
    grading = await slot.grade(network=rig.network)
    seen = await grading.exec(f"cat {grading.workspace}/answer; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
    assert seen.stdout.startswith("answer\n"), seen
    assert marker not in seen.stdout, "a process of the agent still runs"
    assert await grading.read_file(f"{grading.workspace}/answer") == b"answer\n"


@check(
    "What the agent left outside the workspace is not there for the grader: home, temporary folder, variables.",
    levels=CONFINED,
)
async def grading_begins_afresh(rig: ContractRig) -> None:
    slot = await rig.lease(env={"OF_THE_AGENT": "yes"})
    name = f"hermes-contract-{rig.marker()}"
    places = f'"$HOME/.profile" "${{TMPDIR:-/tmp}}/{name}" /tmp/{name} /dev/shm/{name}'
    await slot.exec(f"for place in {places}; do echo evil > $place; done")
    grading = await slot.grade(network=rig.network)
    seen = await grading.exec(f"cat {places}; env")
    assert "evil" not in seen.stdout.splitlines(), "something of the agent is in the way of the grader"
    assert "OF_THE_AGENT" not in seen.stdout, "variables of the lease reach the grader"
    assert rig.secret not in seen.stdout


@check(
    "The grader's files are outside the workspace, and cannot be changed by anything that runs in the slot.",
    levels=CONFINED,
)
async def grading_files(rig: ContractRig) -> None:
    slot = await rig.lease()
    grading = await slot.grade({"tests/one.txt": "expected", "run": "#!/bin/sh\necho ran\n"}, network=rig.network)
    assert not grading.files.startswith(f"{grading.workspace}/")
    seen = await grading.exec("pwd -P; cat tests/one.txt; ./run")
    assert seen.stdout == f"{grading.files}\nexpectedran\n", seen
    for attempt in ("echo forged > tests/one.txt", "rm tests/one.txt", "touch new", "mv tests old", "chmod 777 run"):
        assert (await grading.exec(attempt)).exit_code != 0, f"`{attempt}` works in the folder of the grader's files"
    assert (await grading.exec("cat tests/one.txt")).stdout == "expected"
    for path in ("/absolute", "../up"):
        await expect(UsageError, (await rig.lease()).grade({path: ""}, network=rig.network), path)


@check("The report of a grader's command is apart from all that it prints.", levels=ALL_LEVELS)
async def grading_reports(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.write_file("solution", "#!/bin/sh\necho PASSED\necho PASSED >&2\n(echo forged >&3) 2>/dev/null\n", 0o755)
    grading = await slot.grade(network=rig.network)
    done = await grading.exec(f"{grading.workspace}/solution 3>&-; echo failed >&3")
    assert (done.stdout, done.stderr) == ("PASSED\n", "PASSED\n")
    assert done.report == b"failed\n", f"the report is {done.report!r}"


@check("The grader's interpreter is none that the agent could have changed.", levels=CONFINED)
async def grading_interpreter(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.exec(
        "mkdir -p bin; for n in python3 sh cat; do printf '#!/bin/sh\\necho forged\\n' > bin/$n; done; chmod +x bin/*"
    )
    grading = await slot.grade(network=rig.network)
    try:
        python = grading.python
    except UsageError:
        return  # the sandbox has none, and says so
    assert not python.startswith((grading.workspace, slot.home)), f"{python} is the agent's"
    assert (await grading.exec([python, "-I", "-c", "print(6 * 7)"])).stdout == "42\n"
    assert (await grading.exec(f"test -w {python}")).exit_code != 0, f"{python} can be written"


@check("Once it is graded a slot is the scorer's, until it is given back clean.", levels=ALL_LEVELS)
async def grading_ends_with_the_lease(rig: ContractRig) -> None:
    slot = await rig.lease(pool=rig.single)
    await slot.grade({"hidden": "expected"}, network=rig.network)
    await expect(LeaseStateError, slot.exec("true"), "the agent's handle works while the slot is graded")
    await slot.release()
    again = await rig.lease(pool=rig.single)
    assert (await again.exec("ls -A")).stdout == ""
    assert (await again.exec("echo fine")).stdout == "fine\n"


@check("A dead slot can be graded.", levels=ALL_LEVELS, needs=("kill_slots",))
async def grading_dead_slots(rig: ContractRig) -> None:
    assert rig.kill_slots is not None
    async with rig.open_pool(slots=1) as private:
        slot = await rig.lease(pool=private.pool)
        await slot.write_file("answer", "42")
        await rig.kill_slots(private.sandboxes[0])
        await expect(SlotDeadError, slot.exec("true"), "the slot was killed")
        grading = await slot.grade(network=rig.network)
        assert await grading.read_file(f"{grading.workspace}/answer") == b"42"
        await rig.release_all()
