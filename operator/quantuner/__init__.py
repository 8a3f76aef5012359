"""Quantuner finds the int8 configuration of a PyTorch model that keeps its accuracy."""

from pathlib import Path
from typing import TYPE_CHECKING

from quantuner.api.task import Task

if TYPE_CHECKING:
    from quantuner.engine.quantized import QuantizedModel

__all__ = ["Task", "__version__", "load"]
__version__ = "0.1.0"


def load(folder: str | Path) -> "QuantizedModel":
    """A saved model, called like the user's; its checksums are verified, and none of its saver's code runs.

    It computes the accuracy that was reported; `.compiled()` gives it in int8 kernels of this CPU, which is fast.
    Raises `FileNotFoundError` where there is none, `ArtifactError` where a file is not what was saved.
    """
    from quantuner.engine.quantized import load as load_model  # torch: only for who asks for a model

    return load_model(folder)
