"""Commands that start ranks with the Open MPI that is installed beside this Python."""

import itertools
import socket
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quantuner.distributed.supervisor import Launch

SSH_PORT = 2222  # sshd_config of the tuner image
HOSTS_SECONDS = 120.0  # for a lost pod to be back before going on without it; mpi-operator took 4 s on a quiet cluster
CONNECT_SECONDS = 2.0
ASKED_AT_ONCE = 64  # hosts; one after the other, silent ones would take longer than a pod has to end

# A rank that waits gives its core away: rank 0 waits most of the time, often beside a rank that computes.
# ULFM lets the others outlive a rank that is killed.
_ALWAYS = ("--with-ft", "ulfm", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1")


@dataclass(frozen=True)
class Host:
    """One line of a hostfile."""

    name: str
    slots: int = 1
    """Ranks that it takes."""


def python(*arguments: str) -> list[str]:
    """This Python, its output unbuffered so that progress is seen as it happens."""
    return [sys.executable, "-u", *arguments]


def local(ranks: int, program: Sequence[str]) -> Launch:
    """`ranks` processes on this computer; 1 needs no MPI."""
    if ranks == 1:
        return Launch([*program, "--serial"], {})
    mpiexec = str(Path(sys.prefix) / "bin" / "mpiexec")
    # Containers and CI run as root, which Open MPI refuses without these two.
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return Launch([mpiexec, "-n", str(ranks), "--map-by", ":OVERSUBSCRIBE", *_ALWAYS, *program], root)


def on_hosts(hosts: Sequence[Host], hostfile: Path, program: Sequence[str], exported: Sequence[str] = ()) -> Launch:
    """A rank in each slot, host by host, rank 0 on the first. Writes `hostfile`.

    `exported` names variables of this process that every rank gets: sshd starts a rank without its pod's.
    """
    hostfile.write_text("".join(f"{host.name} slots={host.slots}\n" for host in hosts))
    command = [
        *(str(Path(sys.prefix) / "bin" / "mpirun"), "--prefix", sys.prefix),
        *("--hostfile", str(hostfile), "-n", str(sum(host.slots for host in hosts)), "--map-by", "slot"),
        *("--mca", "pml", "ob1", "--mca", "btl", "tcp,self"),  # pods share nothing but the network
        *_ALWAYS,
        *(word for name in exported for word in ("-x", name)),
        *program,
    ]
    return Launch(command, {"PRTE_MCA_prte_default_hostfile": str(hostfile)})


def read_hostfile(path: Path) -> list[Host]:
    """Hosts of an Open MPI hostfile, in order."""
    lines = (line.split("#")[0].split() for line in path.read_text().splitlines())
    return [_host(*words) for words in lines if words]


def _host(name: str, *settings: str) -> Host:
    slots = dict(setting.partition("=")[::2] for setting in settings).get("slots", "1")
    return Host(name, int(slots))


def answering(hosts: Sequence[Host], stop: threading.Event) -> list[Host]:
    """The hosts whose sshd answers, in order; waits for all of them, but no longer than HOSTS_SECONDS or `stop`.

    The first host is this one and needs no sshd.
    """
    deadline = time.monotonic() + HOSTS_SECONDS
    names = [host.name for host in hosts[1:]]
    with ThreadPoolExecutor(max(1, min(len(names), ASKED_AT_ONCE))) as pool:
        while True:
            there = [True, *pool.map(_answers, names)]
            if all(there) or time.monotonic() > deadline or stop.wait(0.5):
                return list(itertools.compress(hosts, there))


def _answers(host: str) -> bool:
    try:
        with socket.create_connection((host, SSH_PORT), CONNECT_SECONDS) as connection:
            connection.settimeout(CONNECT_SECONDS)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
