"""Ranks of a real mpirun that a real server forks: MPI among them, and the loss of one."""

import os
import subprocess
from pathlib import Path

from quantuner.distributed import forking, mpirun
from quantuner.distributed.processes import Launch
from tests.unit.distributed.forks import Forks
from tests.unit.distributed.test_two_hosts import commands_on_two_hosts

SECONDS = 60
"""Never reached by a test that passes."""
PROGRAM = """
import os, signal, sys
from quantuner.distributed.communicator import MpiWorld, RanksLostError

def main():
    assert "mpi4py.MPI" not in sys.modules
    print("rank", os.environ["OMPI_COMM_WORLD_RANK"], "below", os.getppid(), flush=True)
    if sys.argv[1] == "start":
        return 0
    comm = MpiWorld()
    message = comm.broadcast("from rank 0" if comm.rank == 0 else None)
    said = comm.gather((comm.rank, message))
    if sys.argv[1] == "finish":
        if comm.rank == 0:
            print("heard", said)
        return 0
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if comm.rank == 2:
        assert comm.receive(0) == (0, "rank 1 is lost")
        comm.send("I live", to=0)
        signal.pause()
    try:
        comm.receive()
    except RanksLostError as error:
        print("lost", error.ranks)
    comm.send("rank 1 is lost", to=2)
    print("heard", comm.receive(2), flush=True)
    comm.abort(1)
"""


def run(forks: Forks, launch: Launch) -> tuple[int, list[str], str]:
    environment = {**os.environ, **launch.environment, **forks.environment}
    done = subprocess.run(launch.command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_forked_ranks_exchange_messages_and_finish(tmp_path: Path) -> None:
    forks = Forks(tmp_path, PROGRAM)
    server = forks.serve()
    code, said, errors = run(forks, mpirun.local(3, forking.client(tmp_path, "program", "finish")))
    assert code == 0, errors
    assert {f"rank {rank} below {server.pid}" for rank in range(3)} < set(said)
    assert "heard [(0, 'from rank 0'), (1, 'from rank 0'), (2, 'from rank 0')]" in said
    forks.close()


def test_others_outlive_a_forked_rank_that_is_killed(tmp_path: Path) -> None:
    forks = Forks(tmp_path, PROGRAM)
    forks.serve()
    code, said, _ = run(forks, mpirun.local(3, forking.client(tmp_path, "program", "lose")))
    assert code != 0
    assert said[-2:] == ["lost (1,)", "heard (2, 'I live')"]
    forks.close()


def test_ranks_of_two_hosts_are_forked_though_mpirun_puts_its_libraries_into_their_paths(tmp_path: Path) -> None:
    """Both hosts have one folder here, and so one server; no messages, which do not pass between such hosts."""
    forks = Forks(tmp_path, PROGRAM)
    server = forks.serve()
    code, said, errors = run(forks, commands_on_two_hosts(tmp_path, forking.client(tmp_path, "program", "start")))
    assert code == 0, errors
    assert set(said) == {f"rank {rank} below {server.pid}" for rank in range(3)}
    forks.close()
