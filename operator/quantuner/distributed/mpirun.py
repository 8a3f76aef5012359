"""Commands that start ranks with the Open MPI that is installed beside this Python."""

import sys
from collections.abc import Sequence
from pathlib import Path

from quantuner.distributed.hosts import Host
from quantuner.distributed.processes import Launch

# A rank that waits gives its core away: rank 0 waits most of the time, often beside a rank that computes.
# ULFM lets the others outlive a rank that is killed.
_ALWAYS = ("--with-ft", "ulfm", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1")


def python(*arguments: str) -> list[str]:
    """This Python, its output unbuffered so that progress is seen as it happens."""
    return [sys.executable, "-u", *arguments]


def local(ranks: int, program: Sequence[str]) -> Launch:
    """`ranks` processes on this computer; 1 needs no MPI."""
    if ranks == 1:
        return Launch([*program, "--serial"], {}, is_rank=True)
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
