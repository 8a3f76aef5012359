"""Runs algorithms one after the other, around quantization. Source: AlgorithmScheduler of Neural Compressor 2.x."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.fx import GraphModule

from quantuner.engine.quiet import quiet

Batches = Callable[[], Iterator[tuple[Any, ...]]]
"""A pass over the positional inputs of the calibration batches."""


class Algorithm(Protocol):
    """Makes one model of another. One with a `key` gives the same result for the same model and key."""

    def __call__(self, origin_model: GraphModule, q_model: GraphModule, batches: Batches) -> GraphModule:
        """A new model from `q_model`; neither argument may be changed. `origin_model` is the one it came from."""


class Algorithms(Protocol):
    """Fills a scheduler for a trial, on the rank that evaluates it."""

    @property
    def rewrites_models(self) -> bool:
        """Whether it changes quantized models otherwise than their configuration's recipes say."""

    def set_param_for_pre_quantization_algos(self, algo_scheduler: Any, tune_cfg: Any, fp32_model: Any) -> None: ...

    def set_param_for_post_quantization_algos(
        self, algo_scheduler: Any, tune_cfg: Any, pre_optimized_model: Any, q_model: Any
    ) -> None: ...


class AlgorithmScheduler:
    """The algorithms of one trial and what they work on."""

    def __init__(self) -> None:
        self.algorithms: list[Algorithm] = []
        self.origin_model: GraphModule | None = None
        self.q_model: GraphModule | None = None
        self.batches: Batches = lambda: iter(())

    def start(self, origin_model: GraphModule, q_model: GraphModule, batches: Batches) -> None:
        """Sets what the algorithms work on, and forgets those of the trial before."""
        self.origin_model, self.q_model, self.batches = origin_model, q_model, batches
        self.reset_exec_algorithms()

    def append_algorithm(self, algorithm: Algorithm) -> None:
        self.algorithms.append(algorithm)

    def reset_exec_algorithms(self) -> None:
        """Forgets all algorithms."""
        self.algorithms = []

    def __call__(self) -> GraphModule:
        """Runs the algorithms in order and returns the last one's model; without any, the model itself."""
        if self.origin_model is None or self.q_model is None:
            raise RuntimeError("start() gives the scheduler its models before it runs")
        model = self.q_model
        with quiet(), torch.no_grad():
            for algorithm in self.algorithms:
                model = algorithm(self.origin_model, model, self.batches)
        return model
