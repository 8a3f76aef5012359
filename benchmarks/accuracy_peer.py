"""The peer's side of the accuracy bench, run in its own environment: Neural Compressor 2.6's default configuration."""

import json
import os
import sys
import tempfile
import warnings
from typing import Any

import torch
from neural_compressor import PostTrainingQuantConfig, quantization
from neural_compressor.config import AccuracyCriterion, TuningCriterion

from benchmarks.real_models import JUDGED


def main(name: str, weights: str) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    real = JUDGED[name]()
    real.model.load_state_dict(torch.load(weights, weights_only=True))
    seen: list[float] = []

    def judged(model: Any) -> float:
        with torch.no_grad():
            seen.append(real.accuracy(model))
        return seen[-1]

    conf = PostTrainingQuantConfig(
        approach=real.approach,
        quant_level=1,
        tuning_criterion=TuningCriterion(strategy="basic", max_trials=1, timeout=0),
        accuracy_criterion=AccuracyCriterion(tolerable_loss=-0.5),
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it writes its workspace where it is
        quantization.fit(real.model, conf, calib_dataloader=real.loader, eval_func=judged)
    fp32, default = seen
    print(json.dumps({"fp32": fp32, "int8": default}))


if __name__ == "__main__":
    main(*sys.argv[1:])
