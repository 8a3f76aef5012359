"""Measures a model with the user's evaluation function."""

import contextlib
import math
import numbers
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.entrypoint import users_code


def evaluate(model: Any, eval_func: Callable[[Any], float]) -> tuple[float, float]:
    """(accuracy, wall seconds of the call), without gradients.

    Raises `SearchError`: EvaluationFailed where `eval_func` raises, EvaluationNotANumber where it returns
    anything but one finite number.
    """
    started = time.monotonic()
    with users_code(Failure.EVALUATION_FAILED, "eval_func"), torch.no_grad():
        value = eval_func(model)
    seconds = time.monotonic() - started
    return _number(value), seconds


@contextlib.contextmanager
def listening(model: torch.nn.Module, check: Callable[[], None] | None) -> Iterator[None]:
    """Calls `check` before each of the model's calls; what it raises breaks the evaluation off."""
    if check is None:
        yield
        return
    hook = model.register_forward_pre_hook(lambda _, __: check())
    try:
        yield
    finally:
        hook.remove()


def _number(value: Any) -> float:
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # NumPy scalars and 0-d tensors
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise SearchError(
            Failure.EVALUATION_NOT_A_NUMBER,
            f"eval_func must return one number, not {type(value).__name__} ({value!r:.80}); "
            "return the accuracy as a float",
        )
    number = _float(value)
    if not math.isfinite(number):
        raise SearchError(
            Failure.EVALUATION_NOT_A_NUMBER,
            f"eval_func must return a finite number, not {number}; look for a division by zero or an overflow in it",
        )
    return number


def _float(value: numbers.Real) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer that is larger than any
        return math.inf
