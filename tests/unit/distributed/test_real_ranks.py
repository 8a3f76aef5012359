"""The protocol on real MPI ranks that are killed, hang, or are stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quantuner.distributed import mpirun

PROGRAM = Path(__file__).with_name("losing_main.py")


def run(folder: Path, ranks: int, trials: int, *deeds: str) -> tuple[dict[str, Any], str]:
    """What rank 0 printed, and all that was written to stderr."""
    launch = mpirun.local(ranks, [sys.executable, str(PROGRAM), str(folder), str(trials), *deeds])
    environment = {**os.environ, **launch.environment}
    done = subprocess.run(
        launch.command, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr
    return json.loads(lines[-1]), done.stdout + done.stderr


def accuracies(found: dict[str, Any]) -> list[float | None]:
    return [one["accuracy"] for one in found["told"]]


def expected(trials: int) -> list[float]:
    return [index / 7 for index in range(1, trials + 1)]


def test_a_killed_ranks_trial_goes_to_another(tmp_path: Path) -> None:
    found, _ = run(tmp_path, 4, 30, "5:kill-once")
    assert accuracies(found) == expected(30)
    assert [one["index"] for one in found["told"]] == list(range(1, 31))
    assert sum(found["losses"].values()) == 1


def test_two_ranks_may_be_lost(tmp_path: Path) -> None:
    found, _ = run(tmp_path, 4, 30, "3:kill-once", "20:kill-once")
    assert accuracies(found) == expected(30)


def test_a_trial_that_kills_again_and_again_has_failed(tmp_path: Path) -> None:
    found, _ = run(tmp_path, 5, 30, "5:kill")
    told = found["told"]
    assert accuracies(found) == [None if index == 5 else index / 7 for index in range(1, 31)]
    assert "ranks were lost with this trial, the last one was lost; look for an out-of-memory kill" in told[4]["error"]


def test_a_trial_that_lost_two_ranks_while_a_host_did_not_answer_is_healthy_still(tmp_path: Path) -> None:
    """They may have been drained; where all hosts answered it has failed."""
    found, _ = run(tmp_path, 4, 6, "3:kill-twice", "0:silent")
    assert accuracies(found) == expected(6)
    assert found["losses"] == {"3": 1}
    (tmp_path / "answering").mkdir()
    found, _ = run(tmp_path / "answering", 4, 6, "3:kill-twice")
    assert accuracies(found)[2] is None


def test_a_rank_that_hangs_dumps_its_stack_and_ends_itself(tmp_path: Path) -> None:
    found, output = run(tmp_path, 3, 12, "4:hang")
    assert accuracies(found) == expected(12)
    assert found["given_up"] == []
    assert "losing_main.py" in output.partition("Alarm clock")[2] or 'File "' in output


def test_a_rank_that_is_stopped_is_given_up(tmp_path: Path) -> None:
    found, _ = run(tmp_path, 3, 12, "4:stop")
    assert accuracies(found) == expected(12)
    assert len(found["given_up"]) == 1


def test_a_rank_0_that_was_stopped_itself_gives_nobody_up(tmp_path: Path) -> None:
    found, _ = run(tmp_path, 4, 12, "4:hold")
    assert accuracies(found) == expected(12)
    assert (found["given_up"], found["losses"]) == ([], {})


def test_a_trial_that_no_longer_matters_is_left(tmp_path: Path) -> None:
    found, _ = run(tmp_path, 3, 30, "10:long")
    assert accuracies(found) == expected(9)
    assert found["given_up"] == []


AFTERWARDS = """
import threading, time
from mpi4py import MPI
from quantuner.api.trial import TrialResult
from quantuner.distributed.communicator import MpiWorld
from quantuner.distributed.master import Master
from quantuner.distributed.protocol import Known, Limits
from quantuner.distributed.slave import Slave

for _ in range(2):
    comm = MpiWorld()
    if comm.rank:
        Slave(comm, lambda accuracy: TrialResult(accuracy=accuracy)).run()
    else:
        master = Master(comm, limits=Limits(least=60.0), known=lambda: Known(0.01))
        master.run(1, [0.25, 0.5], lambda told: False)
        master.close()
        comm.receive(deadline=comm.now() + 0.01)
        comm._timer._ring()  # one that is late
    comm.close()
world = MPI.COMM_WORLD
if world.rank:
    world.send("the script's own", dest=0)
else:
    assert world.recv(source=MPI.ANY_SOURCE) == "the script's own"
    assert not world.iprobe(source=MPI.ANY_SOURCE)
    assert "receive-timer" not in [thread.name for thread in threading.enumerate()]
"""


def test_a_search_leaves_the_scripts_communicator_to_the_script() -> None:
    launch = mpirun.local(2, [sys.executable, "-c", AFTERWARDS])
    done = subprocess.run(
        launch.command, env={**os.environ, **launch.environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("ranks", [2, 3])
def test_rank_0_evaluates_too(tmp_path: Path, ranks: int) -> None:
    """No trial ends before every rank is in one; whose answers come first is chance."""
    found, _ = run(tmp_path, ranks, 40, "100:own")
    assert accuracies(found) == expected(40)
    assert {one["rank"] for one in found["told"]} <= set(range(ranks))
