"""What distributing costs: efficiency over waiting trials, and trials a second over trials that do nothing.

Efficiency is ideal over wall seconds: the ideal is all trials' waiting shared evenly by the ranks that evaluate, rank 0
not being one of them. The peers: mpi4py.futures.MPICommExecutor on two ranks, and Neural Compressor 2.6's handlers on
three, since on two it searches serially. The last line is one JSON object.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.distributed_ranks import durations
from quantuner.distributed import mpirun

HERE = Path(__file__).parents[1]
PEER = HERE / ".venv-peer" / "bin" / "python"
RANKS = (2, 3, 5, 9)
TRIALS_A_SLAVE = 100
ZERO, PEERS_ZERO = 20_000, 1_000
RUNS = 3


def main() -> None:
    efficiency = {f"efficiency_{ranks}": round(_efficiency(ranks), 3) for ranks in RANKS}
    pairs = [(_rate(2, "zero", ZERO), _rate(2, "executor", PEERS_ZERO)) for _ in range(RUNS)]
    ours, executors = (max(rates) for rates in zip(*pairs, strict=True))
    ours_3, peers = _rate(3, "zero", ZERO), _peers_rate(3)
    figures = {
        "dispatch_ratio": round(ours / executors, 1),
        "peer_ratio": round(ours_3 / peers, 1),
        "trials_per_s_2": round(ours),
        "executor_trials_per_s_2": round(executors),
        "trials_per_s_3": round(ours_3),
        "peer_trials_per_s_3": round(peers, 1),
    }
    print(json.dumps({"bench": "distributed", **efficiency, **figures}))


def _efficiency(ranks: int) -> float:
    count = TRIALS_A_SLAVE * (ranks - 1)
    return (
        sum(durations(count))
        / (ranks - 1)
        / _seconds(ranks, ["-m", "benchmarks.distributed_ranks", "waiting", str(count)])
    )


def _rate(ranks: int, what: str, count: int) -> float:
    return count / _seconds(ranks, ["-m", "benchmarks.distributed_ranks", what, str(count)])


def _peers_rate(ranks: int) -> float:
    return PEERS_ZERO / _seconds(ranks, [str(HERE / "benchmarks" / "distributed_peer.py"), str(PEERS_ZERO)], PEER)


def _seconds(ranks: int, arguments: list[str], python: Path = Path(sys.executable)) -> float:
    launch = mpirun.local(ranks, [str(python), *arguments])
    environment = {**os.environ, **launch.environment}
    done = subprocess.run(launch.command, env=environment, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise SystemExit(f"{' '.join(launch.command)} ended with {done.returncode}")
    seconds = float(done.stdout.split()[-1])
    sys.stderr.write(f"{ranks} ranks, {' '.join(arguments[1:])}: {seconds:.3f} s\n")
    return seconds


if __name__ == "__main__":
    main()
