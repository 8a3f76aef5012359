"""Accuracy of the default int8 configuration on real models, here and by Neural Compressor 2.6, on the same data.

Each side runs in a process of its own. What is trained is trained by ours, and the peer is given its weights: training
magnifies the last bits in which two versions of torch differ. Differences are in points, hundredths of the accuracy;
the default should lose no more than 0.2 to the peer's. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.real_models import JUDGED, RealModel

HERE = Path(__file__).parents[1]
PEER = HERE / ".venv-peer" / "bin" / "python"
ALLOWED = 0.2  # points below the peer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--ours", choices=list(JUDGED), help="run this side alone, on this model")
    parser.add_argument("--weights", type=Path, help="file to which that side writes the model's weights")
    arguments = parser.parse_args()
    if arguments.ours:
        real = JUDGED[arguments.ours]()
        torch.save(real.model.state_dict(), arguments.weights)
        print(json.dumps(ours(real)))
        return
    print(json.dumps({"bench": "accuracy", **summary({name: _compared(name) for name in JUDGED})}))


def ours(real: RealModel) -> dict[str, float]:
    """The first trial of a search is the default configuration; the target is impossible, as it is for the peer."""
    from quantuner.config import AccuracyCriterion, PostTrainingQuantConfig, TuningCriterion
    from quantuner.distributed.journal import JOURNAL_FILE, read_history
    from quantuner.engine.engine import use_threads
    from quantuner.options import set_workspace
    from quantuner.quantization import fit

    use_threads(1)
    conf = PostTrainingQuantConfig(
        approach=real.approach,
        quant_level=1,
        tuning_criterion=TuningCriterion(strategy="basic", max_trials=1),
        accuracy_criterion=AccuracyCriterion(tolerable_loss=-0.5),
    )
    with tempfile.TemporaryDirectory() as folder:
        set_workspace(folder)
        fit(real.model, conf, calib_dataloader=real.loader, eval_func=real.accuracy)
        fp32, default = (trial.accuracy for trial in read_history(Path(folder) / JOURNAL_FILE).trials)
    if fp32 is None or default is None:
        raise RuntimeError("the default configuration failed; the log above says why")
    return {"fp32": fp32, "int8": default}


def summary(found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The bench's line: accuracies of each model, and by how many points the worst is above the peer."""
    worst = min(100 * (one["int8"] - one["peer_int8"]) for one in found.values())
    values = {f"{key}_{name}": round(value, 5) for name, one in found.items() for key, value in one.items()}
    return {"worst_points": round(worst, 3), "meets": worst >= -ALLOWED, **values}


def _compared(name: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        weights = f"{folder}/weights.pt"
        mine = _run([sys.executable, "-m", "benchmarks.accuracy", "--ours", name, "--weights", weights])
        peer = _run([str(PEER), "-m", "benchmarks.accuracy_peer", name, weights])
    for side, found in (("quantuner", mine), ("neural-compressor 2.6", peer)):
        print(f"{name}: {side}: fp32 {found['fp32']:.5f}, int8 {found['int8']:.5f}", flush=True)
    return {"fp32": mine["fp32"], "int8": mine["int8"], "peer_int8": peer["int8"]}


def _run(command: list[str]) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(HERE / "operator")}  # examples import quantuner.Task, which is light
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
