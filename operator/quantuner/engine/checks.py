"""What a task must be to be tuned in the way that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import CORRECTIONS, INT8_RECIPES, Quantization
from quantuner.api.task import Task
from quantuner.engine.judging import judged_by
from quantuner.space.capability import BY_TYPE, Op, capability_of


def check(task: Task, quantization: Quantization) -> None:
    """Raises `SearchError` for a task that cannot be tuned, or not in this way."""
    if not isinstance(task.model, torch.nn.Module):
        raise SearchError(
            Failure.TASK_INVALID, f"Task.model must be a torch.nn.Module, not {type(task.model).__name__}"
        )
    if isinstance(task.model, torch.jit.ScriptModule):
        raise SearchError(
            Failure.TASK_INVALID,
            "Task.model is a torch.jit.ScriptModule, which torch.export does not take; give the torch.nn.Module that "
            "was traced or scripted",
        )
    if isinstance(task.calib_dataloader, Iterator):
        raise SearchError(
            Failure.TASK_INVALID,
            f"calib_dataloader is a {type(task.calib_dataloader).__name__}, which can be read once only; give a "
            "list or a DataLoader, which every pass reads anew",
        )
    recipes_of_int8 = [name for name in INT8_RECIPES if quantization.recipes.get(name)]
    if quantization.approach == "weight_only" and recipes_of_int8:
        raise SearchError(
            Failure.CONFIGURATION_INVALID,
            f"quantization.recipes: {' and '.join(recipes_of_int8)} would do nothing, since approach weight_only has "
            "no int8 activations or weights; leave it out, or constrain the weight's algorithm to AWQ or GPTQ",
        )
    corrections = [name for name in CORRECTIONS if quantization.recipes.get(name)]
    if quantization.approach == "qat" and corrections:
        raise SearchError(
            Failure.CONFIGURATION_INVALID,
            f"quantization.recipes: {' and '.join(corrections)} would take back what training (approach qat) has "
            "learnt; leave it out, or choose another approach",
        )


def judge_of(task: Task) -> Callable[[Any], float]:
    try:
        return judged_by(task.eval_func, task.eval_dataloader, task.eval_metric)
    except ValueError as error:
        raise SearchError(Failure.TASK_INVALID, f"Task: {error}") from error


def check_not_empty(ops: Sequence[Op], quantization: Quantization) -> None:
    """Raises `SearchError` where the approach has a mode for none of the model's ops, whatever the user allows."""
    approach = quantization.approach
    if not any(capability_of(op, approach).quantized_modes for op in ops):
        types = [type_ for type_ in BY_TYPE if capability_of(Op("", type_), approach).quantized_modes]
        raise SearchError(
            Failure.NOTHING_TO_QUANTIZE,
            f"quantization.approach: {approach} quantizes {', '.join(types)}, and the model has only "
            f"{', '.join(sorted({op.type for op in ops}))}; choose another approach",
        )
