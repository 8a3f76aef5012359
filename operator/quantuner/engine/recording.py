"""Calibration data from a function that runs the model, as Neural Compressor's calib_func does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from quantuner.api.conditions import Failure
from quantuner.engine.entrypoint import users_code


class _Recorder(torch.nn.Module):
    """Runs the model and keeps the inputs of every call."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.batches: list[tuple[tuple[Any, ...], None]] = []

    def forward(self, *inputs: Any) -> Any:
        self.batches.append((inputs, None))
        return self.model(*inputs)


def recorded_batches(model: torch.nn.Module, calib_func: Callable[[Any], Any]) -> list[tuple[tuple[Any, ...], None]]:
    """The positional inputs with which `calib_func(model)` calls the model, as batches without labels.

    All are kept in memory. Raises `SearchError` (CalibrationFailed) where it raises or never calls the model.
    """
    recorder = _Recorder(model)
    with users_code(Failure.CALIBRATION_FAILED, "calib_func"), torch.no_grad():
        calib_func(recorder)
        if not recorder.batches:
            raise ValueError("calib_func never called the model it was given; run the calibration data through it")
    return recorder.batches
