"""Real models, end to end: each keeps its accuracy in int8, and what is saved scores what its trial did, to the bit.

A residual network, a transformer, a pretrained pitch tracker and an LSTM; the first three static, the last dynamic.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.real_models import REAL_MODELS, RealModel
from quantuner import options
from quantuner.api.journal import Finished
from quantuner.config import AccuracyCriterion, PostTrainingQuantConfig, TuningCriterion
from quantuner.distributed.journal import read_history
from quantuner.engine.engine import use_threads
from quantuner.quantization import fit

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    name: str
    default_loss: float
    """Share of its accuracy that the default configuration may lose."""
    searched_loss: float
    """Less than it does lose: the strategy has to search."""
    ops: int
    """That the default configuration quantizes, at least: every convolution and every linear."""


CASES = [
    Case("digits", default_loss=0.01, searched_loss=0.0, ops=9),
    Case("minilm", default_loss=0.1, searched_loss=0.05, ops=36),
    Case("crepe", default_loss=0.01, searched_loss=0.0, ops=7),
    Case("lstm", default_loss=0.01, searched_loss=0.0, ops=2),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_int8_keeps_the_accuracy_and_the_saved_model_has_it(case: Case, tmp_path: Path) -> None:
    use_threads(1)
    real = REAL_MODELS[case.name]()
    default = _tuned(real, tmp_path / "default", "auto", case.default_loss)
    searched = _tuned(real, tmp_path / "searched", "sensitivity", case.searched_loss)
    assert default.trials == 1
    assert default.quantized >= case.ops
    assert searched.quantized > case.ops // 2
    saved = [tmp_path / name / "model" for name in ("default", "searched")]
    assert _reloaded(case.name, *saved) == [default.accuracy.hex(), searched.accuracy.hex()]


@dataclass(frozen=True)
class Tuned:
    trials: int
    accuracy: float
    """Of the trial that won."""
    quantized: int
    """Its quantized ops."""


def _tuned(real: RealModel, workspace: Path, strategy: str, loss: float) -> Tuned:
    options.set_workspace(workspace)
    conf = PostTrainingQuantConfig(
        approach=real.approach,
        tuning_criterion=TuningCriterion(strategy=strategy, max_trials=12),
        accuracy_criterion=AccuracyCriterion(tolerable_loss=loss),
    )
    found = fit(real.model, conf, calib_dataloader=real.calibration, eval_func=real.accuracy)
    assert found is not None
    history = read_history(workspace / "journal.jsonl")
    assert isinstance(history.end, Finished)
    assert history.end.best is not None
    fp32, won = (history.trials[index].accuracy for index in (0, history.end.best))
    assert fp32 is not None
    assert won is not None
    assert won >= (1 - loss) * fp32
    quantized = [op for op in found.q_config["ops"].values() if op["mode"] != "fp32"]
    return Tuned(len(history.tried), won, len(quantized))


def _reloaded(name: str, *folders: Path) -> list[str]:
    command = [sys.executable, "-m", "tests.models.reloaded", name, *map(str, folders)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
