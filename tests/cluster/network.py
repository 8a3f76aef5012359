"""The cluster's traces in the machine's network: an address, a bridge, packet filter rules."""

import json
from itertools import pairwise
from pathlib import Path

from tests.cluster.layout import BRIDGE, NODE_ADDRESS, Layout
from tests.cluster.system import find, run

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_OURS = "KUBE-"


def prepare(layout: Layout) -> None:
    """Give the machine the node's address and let it forward between pods."""
    # On the loopback device, since not every kernel has dummy devices.
    run(["ip", "address", "replace", f"{NODE_ADDRESS}/32", "dev", "lo"])
    (layout.state / "ip_forward").write_text(_FORWARDING.read_text())
    _FORWARDING.write_text("1")


def clear(layout: Layout) -> None:
    """Take away what this cluster, or a killed earlier one, left in the machine's network."""
    links = {link["ifname"] for link in json.loads(run(["ip", "-json", "link"]))}
    if BRIDGE in links:
        for port in json.loads(run(["ip", "-json", "link", "show", "master", BRIDGE])):
            run(["ip", "link", "delete", port["ifname"]])
        run(["ip", "link", "delete", BRIDGE])
    loopback = json.loads(run(["ip", "-json", "address", "show", "dev", "lo"]))
    if any(a.get("local") == NODE_ADDRESS for a in loopback[0]["addr_info"]):
        run(["ip", "address", "delete", f"{NODE_ADDRESS}/32", "dev", "lo"])
    for family in ("iptables", "ip6tables"):
        if find(f"{family}-save") is not None:
            removal = kubernetes_removal(run([f"{family}-save"]))
            if removal:
                run([f"{family}-restore", "--noflush"], stdin=removal)
    former = layout.state / "ip_forward"
    if former.exists():
        _FORWARDING.write_text(former.read_text())


def kubernetes_removal(rules: str) -> str:
    """The input for `iptables-restore --noflush` that removes Kubernetes' chains from the rules.

    Empty when there are none. It names only what it removes: the rest of the tables, which other
    programs may be changing at this moment, is neither read back nor written.
    """
    removal: list[str] = []
    table, chains, jumps = "", [""], [""]
    for line in rules.splitlines():
        words = line.split()
        if line.startswith("*"):
            table, chains, jumps = line, [], []
        elif line.startswith(f":{_OURS}"):
            chains.append(words[0][1:])
        elif words[:1] == ["-A"] and not words[1].startswith(_OURS) and _jumps_to_ours(words):
            jumps.append("-D" + line.removeprefix("-A"))
        elif line == "COMMIT" and chains:
            # Naming a chain flushes it, so that none refers to another when they are deleted.
            flushed = [f":{chain} - [0:0]" for chain in chains]
            removal += [table, *flushed, *jumps, *(f"-X {chain}" for chain in chains), line]
    return "".join(f"{line}\n" for line in removal)


def _jumps_to_ours(words: list[str]) -> bool:
    return any(flag in ("-j", "-g") and target.startswith(_OURS) for flag, target in pairwise(words))
