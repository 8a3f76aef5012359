"""Calibration data from a function that runs the model, as Neural Compressor's calib_func does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from quantuner.api.conditions import Failure
from quantuner.engine.entrypoint import users_code


def recorded_batches(model: torch.nn.Module, calib_func: Callable[[Any], Any]) -> list[tuple[tuple[Any, ...], None]]:
    """The positional inputs with which `calib_func(model)` calls the model, as batches without labels.

    It gets a copy in evaluation mode; all inputs are kept in memory. Raises `SearchError` (CalibrationFailed) where it
    raises, gives inputs by name, or never calls the model.
    """
    batches: list[tuple[tuple[Any, ...], None]] = []

    def record(_: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if named:
            raise ValueError(f"calib_func gives the model {', '.join(named)} by name; give all inputs by position")
        batches.append((inputs, None))

    watched = copy.deepcopy(model).eval()
    watched.register_forward_pre_hook(record, with_kwargs=True)
    with users_code(Failure.CALIBRATION_FAILED, "calib_func"), torch.no_grad():
        calib_func(watched)
        if not batches:
            raise ValueError("calib_func never called the model it was given; run the calibration data through it")
    return batches
