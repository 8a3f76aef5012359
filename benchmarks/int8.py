"""The saved int8 model in int8 kernels against the fp32 model, both compiled by inductor and warm.

A CNN and a transformer, batches of 1 and 32; calls alternate, and the ratio is that of the fastest ones. The last line
is one JSON object; a ratio above 1 means that int8 is faster.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import quantuner
from benchmarks.search_problems import PROBLEMS, Problem
from quantuner.api.spec import Quantization
from quantuner.api.task import Task
from quantuner.engine.devices import sums_overflow
from quantuner.engine.engine import Engine, cpu_kind, use_threads
from quantuner.space.samplers import initial

THREADS = 2
CALLS = 40
OVERFLOWS = sums_overflow(torch.cpu.get_capabilities())
"""Without VNNI inputs have 7 bits; at least 2 is asked for where the CPU has it."""
MODELS = {"cnn": "resnet", "transformer": "minilm"}


def main() -> None:
    use_threads(THREADS)
    ratios = {}
    for kind, name in MODELS.items():
        problem = PROBLEMS[name]()
        batches = [_first(inputs) for inputs, _ in problem.calibration]
        whole = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
        with tempfile.TemporaryDirectory() as folder:
            int8 = _saved(problem, Path(folder) / "model").compiled(max_autotune=True)
            for count in (1, 32):
                inputs = tuple(_repeated(part, count) for part in whole)
                ratios[f"ratio_{kind}_{count}"] = _ratio(f"{kind} {count}", problem, int8, inputs)
    print(json.dumps({"bench": "int8", **ratios, "cpu": cpu_kind(), "vnni": not OVERFLOWS}))


def _first(inputs: Any) -> tuple[torch.Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _repeated(part: torch.Tensor, count: int) -> torch.Tensor:
    return part.repeat(count // len(part) + 1, *[1] * (part.dim() - 1))[:count]


def _saved(problem: Problem, folder: Path) -> Any:
    task = Task(model=problem.model, calib_dataloader=problem.calibration, eval_func=problem.accuracy)
    quantization = Quantization(calibration_sampling_sizes=(problem.samples,), reduce_range=OVERFLOWS)
    engine = Engine(task, quantization, ("performance",))
    engine.calibrate()
    engine.save(initial(engine.space), folder)
    return quantuner.load(folder)


def _ratio(label: str, problem: Problem, int8: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> float:
    images = inputs[0].dim() == 4
    model = problem.model.to(memory_format=torch.channels_last) if images else problem.model  # type: ignore[call-overload]  # torch has it, its stub not
    inputs = tuple(v.contiguous(memory_format=torch.channels_last) for v in inputs) if images else inputs
    with torch.no_grad(), torch._inductor.config.patch(freezing=True):
        fp32 = torch.compile(model, dynamic=False)
        for _ in range(3):
            fp32(*inputs)
            int8(*inputs)
        pairs = [(_seconds(fp32, inputs), _seconds(int8, inputs)) for _ in range(CALLS)]
    sides = [list(side) for side in zip(*pairs, strict=True)]
    fast: list[float] = [min(side) for side in sides]
    middle = [statistics.median(side) for side in sides]
    print(f"{label}: fp32 {fast[0] * 1e3:.2f} ms, int8 {fast[1] * 1e3:.2f} ms; medians {middle[0] * 1e3:.2f}, "
          f"{middle[1] * 1e3:.2f}", flush=True)  # fmt: skip
    return round(fast[0] / fast[1], 2)


def _seconds(model: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> float:
    started = time.perf_counter()
    model(*inputs)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
