"""The same search here and by Neural Compressor 2.6: one model, one data set, one impossible target, 30 trials.

Each side runs in a process of its own, one after the other, on as many threads. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.search_problems import PROBLEMS, result

TRIALS = 30
THREADS = 2
HERE = Path(__file__).parents[1]
PEER = HERE / ".venv-peer" / "bin" / "python"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--ours", choices=list(PROBLEMS), help="run this side alone, on this problem")
    arguments = parser.parse_args()
    if arguments.ours:
        print(json.dumps(ours(arguments.ours)))
        return
    compared = {name: _compared(name) for name in PROBLEMS}
    first, *others = compared
    more = {f"{key}_{name}": value for name in others for key, value in compared[name].items()}
    print(json.dumps({"bench": "search", **compared[first], **more}))


def ours(name: str) -> dict[str, Any]:
    from quantuner.config import AccuracyCriterion, PostTrainingQuantConfig, TuningCriterion
    from quantuner.distributed.journal import JOURNAL_FILE, read_history
    from quantuner.engine.engine import use_threads
    from quantuner.options import set_workspace
    from quantuner.quantization import fit

    use_threads(THREADS)
    problem = PROBLEMS[name]()
    conf = PostTrainingQuantConfig(
        approach=problem.approach,
        quant_level=1,
        calibration_sampling_size=problem.samples,
        tuning_criterion=TuningCriterion(strategy="basic", max_trials=TRIALS),
        accuracy_criterion=AccuracyCriterion(tolerable_loss=-0.5),
    )
    with tempfile.TemporaryDirectory() as folder:
        set_workspace(folder)
        started = time.monotonic()
        fit(problem.model, conf, calib_dataloader=problem.calibration, eval_func=problem.evaluate)
        wall = time.monotonic() - started
        tried = read_history(Path(folder) / JOURNAL_FILE).tried
    return result(problem, wall, distinct=len({trial.digest for trial in tried}))


def _compared(name: str) -> dict[str, Any]:
    mine = _run([sys.executable, "-m", "benchmarks.search", "--ours", name])
    peer = _run([str(PEER), "-m", "benchmarks.search_peer", name, str(TRIALS), str(THREADS)])
    for side, found in (("quantuner", mine), ("neural-compressor 2.6", peer)):
        print(f"{name}: {side}: {found}", flush=True)
    return {
        "ratio": round(peer["seconds"] / mine["seconds"], 2),
        "eval_share": round(mine["evaluation_seconds"] / mine["seconds"], 3),
        "distinct": mine["distinct"],
        "seconds": mine["seconds"],
        "peer_seconds": peer["seconds"],
        "accuracy_default": round(mine["accuracy_default"], 5),
        "peer_accuracy_default": round(peer["accuracy_default"], 5),
    }


def _run(command: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(HERE / "operator")}  # examples import quantuner.Task, which is light
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
