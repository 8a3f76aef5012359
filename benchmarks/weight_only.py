"""Accuracy and size of MiniLM with all Linears' weights in few bits, under each option.

`python -m benchmarks.weight_only` prints a table; accuracy is the agreement of retrieval with the fp32 model, Kendall's
tau. The last line is JSON with the same.
"""

from __future__ import annotations

import itertools
import json

from examples.minilm.minilm import task
from quantuner.api.spec import Quantization
from quantuner.engine.engine import Engine
from quantuner.space.capability import WEIGHT_ONLY
from quantuner.space.config import OpConfig
from quantuner.space.samplers import initial

SAMPLES = 24
ITEMS = [item for item in WEIGHT_ONLY if item[1] != "dtype"]


def main() -> None:
    engine = Engine(task(), Quantization("weight_only", calibration_sampling_sizes=(SAMPLES,)), ("modelsize",))
    engine.calibrate()
    base = initial(engine.space)
    first = next(iter(base.values()))
    found: dict[str, tuple[float, float]] = {}
    print(f"fp32 1.000 {engine.baseline().objectives['modelsize']:.1f} MiB")
    for picked in itertools.product(*(WEIGHT_ONLY[item] for item in ITEMS)):
        chosen = dict(zip(ITEMS, picked, strict=True))
        option = OpConfig(first.mode, tuple((item, chosen.get(item, value)) for item, value in first.options))
        config = base.having(dict.fromkeys(base, option))
        trial = engine.trial(config)
        assert trial.accuracy is not None, trial.error
        found[option.short()] = (trial.accuracy, engine.size(config))
        print(f"{option.short():32} {trial.accuracy:.3f} {engine.size(config):.1f} MiB", flush=True)
    print(json.dumps({"bench": "weight_only", "accuracy_and_mib": found}))


if __name__ == "__main__":
    main()
