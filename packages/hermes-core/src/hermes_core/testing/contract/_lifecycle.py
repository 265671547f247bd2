"""Promises about leases: who gets a slot, what is left of it, and what happens when something dies."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from hermes_core.exceptions import (
    LeaseStateError,
    LeaseTimeoutError,
    SandboxLostError,
    SlotDeadError,
)
from hermes_core.testing.contract._check import ALL_LEVELS, CONFINED, check
from hermes_core.testing.contract._expect import expect
from hermes_core.testing.contract._isolation import listen, reached

if TYPE_CHECKING:
    from hermes_core.testing.contract._rig import ContractRig

HOSTILE_TREE = """
mkdir -p locked/inner bare; echo x > locked/inner/file; chmod 000 locked/inner locked
echo x > bare/file; chmod 111 bare
ln -s .. up; ln -s loop loop; mkfifo pipe; touch 'new
line' -- '-rf' ' '
i=0; while [ $i -lt 100 ]; do mkdir dddddddddddddddddddddddddddddddddddddddddddddddd; cd ddd*; i=$((i+1)); done
"""
STATE = """
echo "[environment]"; env | grep -v '^_=' | sort
echo "[folder]"; pwd -P
echo "[umask]"; umask
echo "[user]"; id
echo "[host]"; uname -n
echo "[limits]"; cat /proc/self/limits
echo "[descriptors]"; for fd in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$fd && echo $fd; done
echo "[files]"; find . "$HOME" "${TMPDIR:-/tmp}" -exec stat -c '%A %u %g %n' {} +
# Of SigQ all processes of a user have a share.
echo "[status]"; grep -E '^(Cap|Sig[^Q]|NoNewPrivs|Seccomp|Groups|Cpus_allowed_list)' /proc/self/status
echo "[oom]"; cat /proc/self/oom_score_adj
"""
STATE_OF_NAMESPACES = """
echo "[mounts]"; sed 's/[ug]id=[0-9]*//g' /proc/self/mounts  # on the host, each lease has another user
echo "[system]"; ls -ld /* /etc/* /dev/* /home/* | tr -s ' ' | cut -d' ' -f1,3,4,9-
echo "[processes]"; cat /proc/[0-9]*/comm
"""


@check("The next lease finds an empty workspace.", levels=ALL_LEVELS)
async def reset_workspace(rig: ContractRig) -> None:
    slot = await rig.lease(pool=rig.single)
    await slot.exec("mkdir -p a/b; echo x > a/b/c; echo x > .hidden; ln -s /etc/passwd link")
    await slot.release()
    again = await rig.lease(pool=rig.single)
    assert (await again.exec("ls -A")).stdout == "", "the workspace of an earlier lease is still there"


@check("The next lease finds the home folder and the temporary folder as they were.", levels=CONFINED)
async def reset_home_and_temporary(rig: ContractRig) -> None:
    slot = await rig.lease(pool=rig.single)
    listing = 'ls -A "$HOME"; ls -A "${TMPDIR:-/tmp}"'
    before = (await slot.exec(listing)).stdout
    await slot.exec('echo evil > "$HOME/.profile"; mkdir -p "$HOME/.config/x" "${TMPDIR:-/tmp}/y"')
    await slot.release()
    again = await rig.lease(pool=rig.single)
    assert (await again.exec(listing)).stdout == before


@check("Nothing that a lease left in /tmp, /var/tmp or /dev/shm outlives it.", levels=CONFINED)
async def reset_shared_folders(rig: ContractRig) -> None:
    slot = await rig.lease(pool=rig.single)
    name = f"hermes-contract-{rig.marker()}"
    places = [f"{folder}/{name}" for folder in ("/tmp", "/var/tmp", "/dev/shm")]
    await slot.exec("".join(f"mkdir -m 700 {place}; echo x > {place}/file;" for place in places))
    await slot.release()
    again = await rig.lease(pool=rig.single)
    for place in places:
        assert (await again.exec(f"test -e {place}")).exit_code != 0, f"{place} is still there"


@check("Whatever a lease leaves in its workspace can be removed.", levels=ALL_LEVELS)
async def reset_hostile_trees(rig: ContractRig) -> None:
    slot = await rig.lease(pool=rig.single)
    name = slot.lease.id
    assert (await slot.exec(HOSTILE_TREE, timeout_s=60)).exit_code == 0
    await slot.exec("chmod 000 .")
    await slot.release()
    again = await rig.lease(pool=rig.single)
    assert again.lease.id == name, "the slot was given up instead of being cleaned"
    assert (await again.exec("ls -A; touch mine")).stdout == "", "something is still there"


@check("No process outlives the lease that it was started in.", levels=ALL_LEVELS)
async def reset_processes(rig: ContractRig) -> None:
    slot = await rig.lease(pool=rig.single)
    marker = rig.marker()
    done = await slot.exec(f"setsid sleep {marker} & (trap '' TERM; setsid sleep {marker}) & sleep {marker} & echo on")
    assert done.stdout == "on\n"
    await slot.release()
    again = await rig.lease(pool=rig.single)
    assert await rig.count(again, marker) == 0, "processes of an earlier lease still run"


@check(
    "Nothing that an earlier lease started still answers on the network.",
    levels=ALL_LEVELS,
    needs=("network host", "python3"),
)
async def reset_servers(rig: ContractRig) -> None:
    slot = await rig.lease(pool=rig.single, network="host")
    address = f"(1, '\\0{rig.marker()}')"  # a name on the host's network that nothing but its process keeps
    await listen(rig, slot, address)
    assert await reached(slot, address)
    await slot.release()
    again = await rig.lease(pool=rig.single, network="host")
    assert not await reached(again, address), "a server of an earlier lease still answers"


async def state(rig: ContractRig) -> str:
    """Return all that a fresh lease of the single slot can see of its initial state."""
    slot = await rig.lease(pool=rig.single)
    script = STATE + (STATE_OF_NAMESPACES if rig.level == "namespaces" else "")
    seen = (await slot.exec(script, timeout_s=60)).stdout
    user = (await slot.exec("id -u")).stdout.strip()
    await slot.exec("echo x > file; echo x > $HOME/file; umask 077; ulimit -n 10; cd /; sleep 1000 > /dev/null &")
    await slot.release()
    # Where there are no namespaces, each lease has a user and folders of its own.
    return re.sub(rf"\b{user}\b", "USER", seen).replace(slot.workspace, "WORKSPACE").replace(slot.home, "HOME")


@check(
    "Two leases of one slot begin alike: environment, files, limits, mounts, descriptors, folder, umask, names.",
    levels=ALL_LEVELS,
)
async def leases_begin_alike(rig: ContractRig) -> None:
    first, second = await state(rig), await state(rig)
    assert "[oom]" in first, "the slot cannot be looked at"
    differing = sorted(set(first.splitlines()) ^ set(second.splitlines()))
    assert not differing, f"two leases of one slot differ in: {differing}"


@check("No slot is leased twice at once, and none is lost, however many ask.", levels=ALL_LEVELS)
async def leases_are_exclusive(rig: ContractRig) -> None:
    held: set[str] = set()
    served = 0

    async def use() -> None:
        nonlocal served
        slot = await rig.lease()
        name = slot.lease.id
        assert name not in held, f"slot {name} is leased twice"
        held.add(name)
        assert (await slot.exec("ls -A; touch mine")).stdout == "", "a leased slot was not empty"
        held.remove(name)
        served += 1
        await slot.release()

    async with anyio.create_task_group() as tasks:
        for _ in range(12):
            tasks.start_soon(use)
    assert served == 12
    status = rig.pool.status()
    assert (status.leased, status.resetting, status.waiting) == (0, 0, 0), f"something is still held: {status}"


@check("Who waits longest is served first.", levels=ALL_LEVELS)
async def first_come_first_served(rig: ContractRig) -> None:
    held = await rig.lease(pool=rig.single)
    order: list[int] = []

    async def wait(number: int) -> None:
        slot = await rig.lease(pool=rig.single)
        order.append(number)
        await slot.release()

    def waiting(expected: int) -> bool:
        return rig.single.status().waiting == expected

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(wait, number)
            await rig.eventually(partial(waiting, number + 1), "a place in the queue")
        await held.release()
    assert order == list(range(5))


@check("Waiting for a slot has a deadline, with an error that says what to do.", levels=ALL_LEVELS)
async def waiting_has_a_deadline(rig: ContractRig) -> None:
    await rig.lease(pool=rig.single)
    request = rig.lease(pool=rig.single, wait_s=0.05)
    error = await expect(LeaseTimeoutError, request, "a second lease of the only slot was given")
    assert error.hint, "the error has no hint"
    assert rig.single.status().waiting == 0, "who gave up waiting is still in the queue"


@check("A trajectory has one slot at a time, and may have another after it gave that back.", levels=ALL_LEVELS)
async def one_slot_for_a_trajectory(rig: ContractRig) -> None:
    name = f"contract-{rig.marker()}"
    slot = await rig.lease(trajectory_id=name)
    assert slot.trajectory_id == name
    error = await expect(LeaseStateError, rig.lease(trajectory_id=name), "a trajectory got a second slot")
    assert name in str(error), f"{error} does not say whose"
    await slot.release()
    assert (await rig.lease(trajectory_id=name)).trajectory_id == name


@check("A slot that was given back cannot be used; giving it back again changes nothing.", levels=ALL_LEVELS)
async def released_slots(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.release()
    await slot.release()
    for use in (slot.exec("true"), slot.read_file("x"), slot.write_file("x", b"")):
        await expect(LeaseStateError, use, "a slot was used after it had been given back")


@check("Giving a slot back ends what runs in it and what waits for it.", levels=ALL_LEVELS)
async def release_ends_what_runs(rig: ContractRig) -> None:
    slot = await rig.lease()
    started = anyio.Event()
    ended: list[str] = []

    async def run(command: str) -> None:
        try:
            await slot.exec(command, on_output=lambda *_: started.set(), timeout_s=1000)
        except LeaseStateError:
            ended.append(command)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "echo started; sleep 1000")
        await started.wait()
        tasks.start_soon(run, "touch $HOME/ran")
        await anyio.lowlevel.checkpoint()
        await slot.release()
    assert len(ended) == 2, f"only {ended} learned that the lease had ended"


@check("A slot that dies says so, is replaced, and harms no other.", levels=ALL_LEVELS, needs=("kill_slots",))
async def dead_slots(rig: ContractRig) -> None:
    assert rig.kill_slots is not None
    async with rig.open_pool(slots=1) as private:
        slot = await rig.lease(pool=private.pool)
        await rig.kill_slots(private.sandboxes[0])
        await expect(SlotDeadError, slot.exec("true"), "the slot was killed")
        await slot.release()
        again = await rig.lease(pool=private.pool)
        assert (await again.exec("echo fine")).stdout == "fine\n"
        await rig.release_all()


@check("A sandbox that goes away is an error of its own, and the pool starts another.", levels=ALL_LEVELS)
async def lost_sandboxes(rig: ContractRig) -> None:
    async with rig.open_pool(slots=1) as private:
        slot = await rig.lease(pool=private.pool)
        started = anyio.Event()

        async def run() -> None:
            request = slot.exec("echo on; sleep 1000", on_output=lambda *_: started.set(), timeout_s=1000)
            await expect(SandboxLostError, request, "the sandbox was stopped while a command ran")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await started.wait()
            await private.sandboxes[0].stop()
        await expect(SandboxLostError, slot.exec("true"), "the sandbox was stopped")
        await slot.release()
        again = await rig.lease(pool=private.pool)
        assert (await again.exec("ls -A; echo fine")).stdout == "fine\n"
        assert len(private.sandboxes) == 2
        await rig.release_all()


@check("Sandboxes start when slots are needed and stop when nobody uses them.", levels=ALL_LEVELS)
async def sandboxes_on_demand(rig: ContractRig) -> None:
    async with rig.open_pool(slots=1, max_sandboxes=2, idle_s=0.1) as private:
        assert private.sandboxes == [], "a sandbox was started before anyone asked"
        first, second = await rig.lease(pool=private.pool), await rig.lease(pool=private.pool)
        assert len(private.sandboxes) == 2
        await first.release()
        await second.release()
        await rig.eventually(lambda: private.pool.status().sandboxes == 0, "idle sandboxes are stopped")


@check("A slot is leased again no more often than allowed, and then another takes its place.", levels=ALL_LEVELS)
async def reuses_are_counted(rig: ContractRig) -> None:
    async with rig.open_pool(slots=1, max_reuses=1) as private:
        names = []
        for _ in range(3):
            slot = await rig.lease(pool=private.pool)
            assert (await slot.exec("echo fine")).stdout == "fine\n"
            names.append(slot.lease.id)
            await slot.release()
        assert names[0] == names[1] != names[2], f"the slots {names} were leased, with one reuse allowed"
        assert len(private.sandboxes) == 2
