"""A rank's program for the distributed bench. `waiting N`: N trials that wait; `zero N`: N that do nothing;
`executor N`: the same by mpi4py.futures.MPICommExecutor. Rank 0 prints the seconds from the first trial to the last.
"""

import random
import sys
import time
from typing import Any

from quantuner.api.trial import TrialResult
from quantuner.distributed.communicator import MpiWorld
from quantuner.distributed.executors import Told
from quantuner.distributed.master import Master
from quantuner.distributed.slave import Slave
from quantuner.distributed.watchdog import Alarm

OPS = 20


def durations(count: int) -> list[float]:
    """Seconds between 0.02 and 0.2, 0.05 in the mean, the same at each run."""
    draw = random.Random(0)
    return [0.02 + 0.18 * draw.random() ** 5 for _ in range(count)]


def payload(index: int, seconds: float) -> dict[str, Any]:
    """As a search's: a few ops differ from trial to trial."""
    ops = {f"block{i}.conv": {"mode": "fp32" if i == index % OPS else "static"} for i in range(OPS)}
    return {"index": index, "seconds": seconds, "ops": ops}


def evaluate(configuration: dict[str, Any]) -> TrialResult:
    seconds = configuration["seconds"]
    if seconds:
        time.sleep(seconds)
    return TrialResult(accuracy=configuration["index"] / 7, seconds=seconds)


def ours(seconds: list[float]) -> None:
    world = MpiWorld()
    if world.rank:
        Slave(world, evaluate, Alarm()).run()
        return
    payloads = [payload(index, one) for index, one in enumerate(seconds, 1)]
    told: list[Told] = []
    master = Master(world)

    def tell(one: Told) -> bool:
        told.append(one)
        return False

    started = time.monotonic()
    master.run(1, payloads, tell)
    wall = time.monotonic() - started
    master.close()
    assert [one.index for one in told] == list(range(1, len(seconds) + 1))
    sys.stdout.write(f"{wall}\n")


def executor(seconds: list[float]) -> None:
    from mpi4py import MPI
    from mpi4py.futures import MPICommExecutor

    payloads = [payload(index, one) for index, one in enumerate(seconds, 1)]
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as pool:
        if pool is not None:
            started = time.monotonic()
            results = list(pool.map(evaluate, payloads))  # type: ignore[attr-defined]
            wall = time.monotonic() - started
            assert [one.accuracy for one in results] == [index / 7 for index in range(1, len(seconds) + 1)]
            sys.stdout.write(f"{wall}\n")


def main(what: str, count: int) -> None:
    seconds = durations(count) if what == "waiting" else [0.0] * count
    (executor if what == "executor" else ours)(seconds)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
