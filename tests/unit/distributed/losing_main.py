"""A rank's program for test_real_ranks.py: the protocol on real MPI, with trials that do what its arguments say.

`losing_main.py FOLDER TRIALS INDEX:DEED…`. Deeds, of the rank that is given the trial: `kill` ends the process,
`kill-once` only the first one, `kill-twice` the first two, `hang` holds the interpreter's lock for ever, `stop` stops
the process, `long` is evaluated until it is abandoned. Of whatever trial: `own` lets rank 0 evaluate, and no trial ends
before every rank is in one; `silent` has a host not answer. `hold` stops rank 0 for a while when the trial is told.
Rank 0 prints what it was told as JSON.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from quantuner.api.trial import TrialResult
from quantuner.distributed.communicator import Messages, MpiWorld
from quantuner.distributed.executors import Told
from quantuner.distributed.losses import Losses
from quantuner.distributed.master import Master
from quantuner.distributed.own_slave import WithOwnSlave
from quantuner.distributed.protocol import Known, Limits, Work
from quantuner.distributed.slave import Slave
from quantuner.distributed.watchdog import Alarm

LONG = 60.0
"""Seconds; not reached where nobody is to be given up, however busy the machine is."""
LEAST = {"hang": 1.0, "stop": 3.0, "hold": 3.0}
"""Seconds for a trial."""
GRACE = {"stop": 5.0, "hold": 5.0}
HOLD = 10.0
"""Seconds; more than those for a trial and grace."""


class Armed(Alarm):
    """Runs where a rank says that it gets stuck; a healthy one may have to wait for a processor for longer."""

    def start(self, seconds: float) -> None:
        self._seconds = seconds

    def arm(self) -> None:
        super().start(self._seconds)


def meet(folder: Path, rank: int, size: int) -> None:
    """Returns when every rank has called it."""
    (folder / f"rank{rank}").touch()
    while not all((folder / f"rank{other}").exists() for other in range(size)):
        time.sleep(0.001)


def first(folder: Path, index: int) -> bool:
    try:
        (folder / f"trial{index}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main(folder: Path, trials: int, deeds: dict[int, str]) -> None:
    world, alarm = MpiWorld(), Armed()
    slaves: list[Slave] = []

    def evaluate(payload: dict[str, Any]) -> TrialResult:
        index = payload["index"]
        deed = deeds.get(index, "")
        if deed == "kill" or (deed == "kill-once" and first(folder, index)):
            os.kill(os.getpid(), signal.SIGKILL)
        if deed == "kill-twice" and (first(folder, index) or first(folder, -index)):
            os.kill(os.getpid(), signal.SIGKILL)
        if deed == "stop" and first(folder, index):
            os.kill(os.getpid(), signal.SIGSTOP)
        if deed == "hang" and first(folder, index):
            alarm.arm()
            ctypes.PyDLL(None).sleep(1000)  # a call that keeps the lock
        while deed == "long":
            slaves[0].check()
        if "own" in deeds.values():
            meet(folder, world.rank, world.size)
        time.sleep(0.3 if "hold" in deeds.values() else 0.005)
        return TrialResult(accuracy=index / 7, seconds=0.005)

    if world.rank:
        slaves.append(Slave(world, evaluate, alarm))
        slaves[0].run()
        return
    comm: Messages = WithOwnSlave(world, evaluate) if "own" in deeds.values() else world
    least, grace = (min((of[d] for d in deeds.values() if d in of), default=LONG) for of in (LEAST, GRACE))
    stops = "stop" in deeds.values()  # that trial alone is to be short
    work = Work(evaluate, kind=lambda payload: "stop" if deeds.get(payload["index"]) == "stop" else "")
    known = Known(trials={"": [LONG if stops else 0.01], "stop": [0.01]})
    limits = Limits(patience=1.0, least=least, grace=grace)
    answer = "silent" not in deeds.values()
    master = Master(comm, work, limits, Losses(folder), known=lambda: known, hosts_answer=lambda: answer)
    told: list[Told] = []

    def tell(one: Told) -> bool:
        told.append(one)
        if deeds.get(one.index) == "hold":
            subprocess.Popen(["sh", "-c", f"sleep {HOLD}; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
        return deeds.get(one.index + 1) == "long"

    payloads = [{"index": index} for index in range(1, trials + 1)]
    try:
        master.run(1, payloads, tell)
    finally:
        master.close()
    lines = [{"index": t.index, "accuracy": t.result.accuracy, "error": t.result.error, "rank": t.rank} for t in told]
    sys.stdout.write(
        json.dumps({"told": lines, "given_up": sorted(world.given_up), "losses": master._losses.known}) + "\n"
    )
    sys.stdout.flush()
    if world.is_damaged:
        world.abort(1)


if __name__ == "__main__":
    pairs = [one.split(":") for one in sys.argv[3:] if ":" in one]
    main(Path(sys.argv[1]), int(sys.argv[2]), {int(index): deed for index, deed in pairs})
