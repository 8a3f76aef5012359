"""The peer's side of the search bench, run in its own environment: Neural Compressor 2.6, basic strategy."""

import json
import sys
import time
import warnings

import torch
from neural_compressor import PostTrainingQuantConfig, quantization
from neural_compressor.config import AccuracyCriterion, TuningCriterion

from benchmarks.search_problems import PROBLEMS, result


def main(name: str, trials: int, threads: int) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    problem = PROBLEMS[name]()
    conf = PostTrainingQuantConfig(
        approach=problem.approach,
        quant_level=1,
        calibration_sampling_size=[problem.samples],
        tuning_criterion=TuningCriterion(strategy="basic", max_trials=trials, timeout=0),
        accuracy_criterion=AccuracyCriterion(tolerable_loss=-0.5),
    )
    started = time.monotonic()
    quantization.fit(problem.model, conf, calib_dataloader=problem.calibration, eval_func=problem.evaluate)
    print(json.dumps(result(problem, time.monotonic() - started)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
