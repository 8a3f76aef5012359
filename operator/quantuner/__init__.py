"""Quantuner finds the int8 configuration of a PyTorch model that keeps its accuracy."""

from quantuner.api.task import Task

__all__ = ["Task", "__version__"]
__version__ = "0.1.0"
