"""What the machine must have before a cluster is built on it, and getting what it lacks."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.layout import PORTS
from tests.cluster.system import find, run

# A program that must be there, and the Debian package that brings it. Asked for by program and
# not by package: a machine with Docker's containerd must not have it replaced by Debian's.
PROGRAMS: Mapping[str, str] = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables-save": "iptables",
    "ip": "iproute2",
    "mount": "mount",
    "openssl": "openssl",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}


def missing_packages() -> list[str]:
    """The Debian packages whose programs this machine lacks."""
    return sorted({package for program, package in PROGRAMS.items() if find(program) is None})


def expect_able_machine() -> None:
    """Raise unless this process may build a cluster here."""
    instead = "or name an existing cluster's kubeconfig in QUANTUNER_TEST_KUBECONFIG"
    if not sys.platform.startswith("linux"):
        raise ClusterError(f"the test cluster needs Linux, and this is {sys.platform}: use a Linux machine, {instead}")
    if os.geteuid() != 0:
        raise ClusterError(
            f"the test cluster needs root, and this is user id {os.geteuid()}: run it with sudo, {instead}"
        )


def install_missing(say: Callable[[str], None]) -> None:
    """Install the Debian packages that the machine lacks."""
    packages = missing_packages()
    if not packages:
        return
    command = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if find("apt-get") is None:
        raise ClusterError(
            f"the test cluster needs the Debian packages {packages}, and this machine has no "
            "apt-get: install what corresponds to them"
        )
    say(command)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    words = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    try:
        run(words, environment=quiet)
    except ClusterError:
        # Package lists that are absent or stale are the usual reason.
        run(["apt-get", "update", "--quiet"], environment=quiet)
        run(words, environment=quiet)
    if still := missing_packages():
        raise ClusterError(f"after `{command}` the programs of {still} are still missing")


def listening_ports(table: str) -> dict[int, str]:
    """The listening TCP ports of a table in the form of /proc/net/tcp, with their socket's inode."""
    rows = [line.split() for line in table.splitlines()[1:]]
    listening = "0A"
    return {int(row[1].rpartition(":")[2], 16): row[9] for row in rows if row[3] == listening}


def expect_free_ports() -> None:
    """Raise when a port of the cluster is taken; all of the cluster's own processes are down."""
    taken: dict[int, str] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            taken |= listening_ports(Path(table).read_text())
    for part, ports in PORTS.items():
        for port in ports:
            if port in taken:
                raise ClusterError(f"{part} needs port {port}, and {_owner(taken[port])} has it: end that process")


def _owner(inode: str) -> str:
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) == f"socket:[{inode}]":
                pid = link.parts[2]
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                return f"process {pid} ({name})"
        except OSError:
            continue
    return "another process"
