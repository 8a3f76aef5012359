"""Quantization-aware training: the user trains a model that computes as the quantized one will."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import GraphModule

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.capture import Captured
from quantuner.engine.entrypoint import users_code
from quantuner.engine.pt2e import convert_pt2e, prepare_qat_pt2e
from quantuner.engine.quantize import Activations, ConfigQuantizer, callable_like_a_module
from quantuner.engine.quiet import quiet
from quantuner.space.config import TuneConfig

HOOKS = ("on_train_begin", "on_train_end")
SEED = 1978  # of torch's generator when a training begins: every rank trains a configuration alike


class Training:
    """The user's training function, and callbacks around it."""

    def __init__(
        self, function: Callable[[Any], Any] | None = None, hooks: Mapping[str, Callable[[Any], Any]] | None = None
    ) -> None:
        """Raises `ValueError` for a hook of another name."""
        unknown = set(hooks or {}) - set(HOOKS)
        if unknown:
            raise ValueError(f"q_hooks may have {' and '.join(HOOKS)}, not {', '.join(sorted(map(str, unknown)))}")
        self.function = function
        self.hooks = dict(hooks or {})

    def __call__(self, model: Any) -> Any:
        """Trains, and returns the model that was trained: what the function returns, else what it was given.

        Raises `SearchError` (TrainingFailed) where it raises.
        """
        function = self.function
        if function is None:
            raise SearchError(Failure.TASK_INVALID, "quantization-aware training needs Task.train_func or q_func")
        torch.manual_seed(SEED)
        with users_code(Failure.TRAINING_FAILED, "train_func"), torch.enable_grad():
            self._call("on_train_begin", model)
            returned = function(model)
            trained = model if returned is None else returned
            self._call("on_train_end", trained)
        return trained

    def _call(self, hook: str, model: Any) -> None:
        if hook in self.hooks:
            self.hooks[hook](model)


def train_quantized(
    captured: Captured, activations: Activations, config: TuneConfig, training: Training
) -> GraphModule:
    """The model of `config` with weights that were trained under quantization.

    Source: torchao's PT2E flow, prepare_qat_pt2e, training, convert_pt2e.
    """
    with quiet():
        prepared = prepare_qat_pt2e(copy.deepcopy(captured.graph), ConfigQuantizer(config, activations, training=True))
        for parameter in prepared.parameters():
            parameter.requires_grad_(True)
        trained = training(_with_modes(prepared))
    with quiet(), torch.no_grad():
        converted: GraphModule = convert_pt2e(trained)
    return callable_like_a_module(converted)


def _with_modes(prepared: GraphModule) -> GraphModule:
    """Training code calls `.train()` and `.eval()`, which a captured graph refuses."""
    return callable_like_a_module(prepared)
