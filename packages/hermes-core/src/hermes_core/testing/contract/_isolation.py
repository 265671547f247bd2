"""Promises about what a slot keeps away from its neighbours, from its supervisor and from the host.

A backend that breaks one of them runs these checks outside of any slot, perhaps as root of somebody's machine. So each
of them looks before it acts, and does nothing that would do harm where it should have been impossible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.exceptions import BackendUnavailableError, ConfigError
from hermes_core.testing.contract._check import ALL_LEVELS, CONFINED, NAMESPACES, check

if TYPE_CHECKING:
    from hermes_core.execution import Slot
    from hermes_core.testing.contract._rig import ContractRig

LISTEN = """
import socket, sys
family, address = eval(sys.argv[1])
with socket.socket(family) as server:
    server.bind(address)
    server.listen()
    print(server.getsockname()[1] if family == socket.AF_INET else 'listening', flush=True)
    while True:
        server.accept()[0].sendall(b'reached')
"""
CONNECT = """
import socket, sys
family, address = eval(sys.argv[1])
with socket.socket(family) as client:
    client.settimeout(5)
    client.connect(address)
    print(client.recv(100))
"""

WHO_CAN_BE_SIGNALLED = """
for folder in /proc/[0-9]*; do
    pid=${folder#/proc/}
    if [ "$pid" != 1 ] && [ "$pid" != $$ ] && kill -0 "$pid" 2>/dev/null; then
        echo "$pid $(tr '\\0' ' ' < /proc/$pid/cmdline)"
    fi
done
"""


async def status(rig: ContractRig) -> dict[str, str]:
    """Return what /proc says of a command."""
    slot = await rig.lease()
    lines = (await slot.exec("cat /proc/self/status")).stdout.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@check("Commands have no capability, nor can they get one.", levels=CONFINED)
async def no_capabilities(rig: ContractRig) -> None:
    seen = await status(rig)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(seen[name], 16) == 0, f"{name} is {seen[name]}"


@check("Programs that set the user id give no privileges.", levels=CONFINED)
async def no_new_privileges(rig: ContractRig) -> None:
    assert (await status(rig))["NoNewPrivs"] == "1"
    slot = await rig.lease()
    done = await slot.exec("su -c 'id -u' 2>/dev/null; sudo -n id -u 2>/dev/null; true", timeout_s=20)
    assert "0" not in done.stdout.split(), "a command became root"


@check("System calls that no agent needs are filtered.", levels=CONFINED, needs=("limit system_calls",))
async def system_calls_filtered(rig: ContractRig) -> None:
    seen = await status(rig)
    assert seen["Seccomp"] == "2", f"Seccomp is {seen['Seccomp']}: no filter"


@check("Nested user namespaces are refused.", levels=CONFINED)
async def no_nested_namespaces(rig: ContractRig) -> None:
    slot = await rig.lease()
    assert (await slot.exec("command -v unshare")).exit_code == 0, "unshare is not installed in the slot"
    for flags in ("-U", "-r", "-Ur", "-Urm", "-n", "-p -f", "-m"):
        done = await slot.exec(f"unshare {flags} true")
        assert done.exit_code != 0, f"unshare {flags} works"


@check("Nothing can be mounted, unmounted or made the root.", levels=CONFINED)
async def no_mounts(rig: ContractRig) -> None:
    slot = await rig.lease()
    for command in (
        "mkdir a && mount -t tmpfs none a && umount a",
        "mkdir b c && mount --bind b c && umount c",
        "chroot / true",
        'hostname "$(uname -n)"',
        "mknod null c 1 3",
    ):
        assert (await slot.exec(command)).exit_code != 0, f"`{command}` works"


@check("The first process and whoever started a command cannot be signalled.", levels=CONFINED)
async def supervisor_out_of_reach(rig: ContractRig) -> None:
    slot = await rig.lease()
    if (await slot.exec('echo "$PPID"')).stdout == "0\n":
        # Processes of its own: the first one is the slot's, and must bear what it is sent.
        for number in ("9", "TERM", "STOP", "SEGV"):
            done = await slot.exec(f"kill -{number} 1; sleep 0.05; echo alive", timeout_s=20)
            assert done.stdout == "alive\n", f"after `kill -{number} 1`: {done}"
    else:
        for process in ("1", "$PPID"):
            done = await slot.exec(f'kill -0 "{process}"')
            assert done.exit_code != 0, f"process {process} can be signalled"
    assert (await slot.exec("echo fine")).stdout == "fine\n"


@check("The first process and whoever started a command cannot be read, traced or followed.", levels=CONFINED)
async def supervisor_unreadable(rig: ContractRig) -> None:
    slot = await rig.lease()
    for name in ("environ", "mem", "maps", "stack"):
        done = await slot.exec(f'head -c 1 /proc/1/{name}; [ "$PPID" = 0 ] || head -c 1 "/proc/$PPID/{name}"')
        assert done.stdout == "", f"/proc/…/{name} of the first process, or of the parent, can be read"
    for name in ("cwd", "root", "exe", "fd/0"):
        done = await slot.exec(f'readlink /proc/1/{name}; [ "$PPID" = 0 ] || readlink "/proc/$PPID/{name}"')
        assert done.stdout == "", f"/proc/…/{name} can be followed to {done.stdout}"


@check("Signals to everybody reach the slot's own processes only.", levels=CONFINED, needs=("a neighbour",))
async def signals_stay_inside(rig: ContractRig) -> None:
    slot, other = await rig.lease(), await rig.lease()
    mine, theirs = rig.marker(), rig.marker()
    await other.exec(f"sleep {theirs} > /dev/null &")
    await slot.exec(f"sleep {mine} > /dev/null &")
    assert await rig.count(other, theirs) == 1, "the process of the other slot does not run"
    for line in (await slot.exec(WHO_CAN_BE_SIGNALLED)).stdout.splitlines():
        assert mine in line, f"a process that is not the slot's can be signalled: {line}"
    # Now it is known that this hits nobody else.
    await slot.exec("trap '' TERM; kill -TERM -1; kill -9 -1", timeout_s=20)
    await rig.gone(slot, mine)
    assert await rig.count(other, theirs) == 1, "a process of another slot was killed"
    assert (await slot.exec("echo fine")).stdout == "fine\n", "killing all it can killed the slot itself"


@check("Processes of other slots are not visible.", levels=NAMESPACES, needs=("a neighbour",))
async def processes_unseen(rig: ContractRig) -> None:
    slot, other = await rig.lease(), await rig.lease()
    marker = rig.marker()
    await other.exec(f"sleep {marker} &")
    assert await rig.count(other, marker) == 1, "the process does not run"
    assert await rig.count(slot, marker) == 0, "a process of another slot is visible"


@check("Memory and environment of other slots' processes cannot be read.", levels=CONFINED, needs=("a neighbour",))
async def processes_unreadable(rig: ContractRig) -> None:
    slot, other = await rig.lease(), await rig.lease()
    secret = rig.marker()
    await other.exec("sleep 1000 > /dev/null &", env={"SECRET": secret})
    shown = await other.exec("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert f"SECRET={secret}" in shown.stdout, "the process does not run"
    shown = await slot.exec("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert secret not in shown.stdout, "the environment of another slot's process can be read"


@check(
    "Files of other slots cannot be read, listed or changed, even if they were opened to all.",
    levels=CONFINED,
    needs=("a neighbour",),
)
async def files_of_others(rig: ContractRig) -> None:
    slot, other = await rig.lease(), await rig.lease()
    secret = rig.marker()
    temporary = (await other.exec('echo "${TMPDIR:-/tmp}"')).stdout.strip()
    places = [f"{folder}/secret" for folder in (other.workspace, other.home, temporary)]
    for place in places:
        await other.write_file(place, secret, mode=0o666)
    await other.exec("chmod a+rwx . $HOME ${TMPDIR:-/tmp}; sleep 1000 > /dev/null &")
    await slot.write_file("search", f"grep -rs {secret} $HOME . ${{TMPDIR:-/tmp}} | grep -v search:")
    done = await slot.exec(f"cat {' '.join(places)} /proc/[0-9]*/cwd/secret; sh ./search")
    assert secret not in done.stdout, "a file of another slot can be read"
    await slot.exec("".join(f"test -e {place} && echo forged > {place} && rm -f {place};" for place in places))
    for place in places:
        assert await other.read_file(place) == secret.encode(), f"another slot changed {place}"


@check("/tmp, /var/tmp and /dev/shm are the slot's own.", levels=NAMESPACES, needs=("a neighbour",))
async def shared_folders_private(rig: ContractRig) -> None:
    slot, other = await rig.lease(), await rig.lease()
    name = f"hermes-contract-{rig.marker()}"
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        await other.exec(f"echo x > {folder}/{name}")
        assert (await slot.exec(f"test -e {folder}/{name}")).exit_code != 0, f"{folder} is shared"


@check(
    "Without a network there is none: no interface but the loopback, no way out.",
    levels=CONFINED,
    needs=("network none",),
)
async def no_network(rig: ContractRig) -> None:
    slot = await rig.lease(network="none")
    assert slot.network == "none"
    devices = (await slot.exec("tail -n +3 /proc/net/dev | cut -d: -f1")).stdout.split()
    assert set(devices) <= {"lo"}, f"there are the interfaces {devices}"
    routes = (await slot.exec("tail -n +2 /proc/net/route; cat /proc/net/fib_trie 2>/dev/null")).stdout
    assert "/0 universe" not in routes, f"there is a way out: {routes}"


@check(
    "Sockets of a slot without a network are reached from that slot alone, abstract ones and those of the loopback.",
    levels=CONFINED,
    needs=("network none", "python3", "a neighbour"),
)
async def sockets_of_others(rig: ContractRig) -> None:
    slot, other = await rig.lease(network="none"), await rig.lease(network="none")
    for address in (f"(1, '\\0{rig.marker()}')", "(2, ('127.0.0.1', 18753))"):
        await listen(rig, other, address)
        assert await reached(other, address), "the socket cannot be reached at all"
        assert not await reached(slot, address), f"the socket {address} of another slot can be reached"


@check("With the network of the host, slots have it and share it.", levels=ALL_LEVELS, needs=("network host",))
async def host_network(rig: ContractRig) -> None:
    slot, other = await rig.lease(network="host"), await rig.lease(network="host")
    assert slot.network == "host"
    spaces = {(await each.exec("readlink /proc/self/ns/net")).stdout for each in (slot, other)}
    assert len(spaces) == 1, f"two slots with the network of the host have {spaces}"
    assert "" not in spaces, "there is no network namespace to be seen"
    if rig.missing("network none") is None:
        apart = await rig.lease(network="none")
        assert (await apart.exec("readlink /proc/self/ns/net")).stdout not in spaces, "network none is that of the host"


@check("A network policy that cannot be had is refused, not ignored.", levels=ALL_LEVELS)
async def impossible_network(rig: ContractRig) -> None:
    for network in ("none", "host", "no-such-policy"):
        try:
            slot = await rig.lease(network=network)  # type: ignore[arg-type]
        except (BackendUnavailableError, ConfigError):
            continue
        assert network in rig.backend.capabilities.network, f"{network!r} is none of its capabilities"
        assert slot.network == network
        devices = (await slot.exec("tail -n +3 /proc/net/dev | cut -d: -f1")).stdout.split()
        if network == "none":
            assert set(devices) <= {"lo"}, f"asked for no network, and got {devices}"
        await slot.release()


async def listen(rig: ContractRig, slot: Slot, address: str) -> None:
    """Have something listen in a slot until the lease ends."""
    await slot.write_file("listen.py", LISTEN)
    command = (
        'rm -f said; python3 -B listen.py "$ADDRESS" > said 2>&1 & while [ ! -s said ]; do sleep 0.01; done; cat said'
    )
    done = await slot.exec(command, env={"ADDRESS": address}, timeout_s=20)
    assert "Error" not in done.stdout, done.stdout


async def reached(slot: Slot, address: str) -> bool:
    """Whether something that listens can be reached from a slot."""
    done = await slot.exec(["python3", "-B", "-c", CONNECT, address], timeout_s=20)
    return "reached" in done.stdout
