"""Quantuner finds the int8 configuration of a PyTorch model that keeps its accuracy."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from quantuner.api.task import Task

if TYPE_CHECKING:
    from quantuner.engine.lowering import Lowered
    from quantuner.engine.quantized import QuantizedModel

__all__ = ["Task", "__version__", "load"]
__version__ = "0.1.0"


@overload
def load(folder: str | Path, *, compile: Literal[False] = False) -> "QuantizedModel": ...
@overload
def load(folder: str | Path, *, compile: Literal[True]) -> "Lowered": ...
@overload
def load(folder: str | Path, *, compile: bool) -> "QuantizedModel | Lowered": ...
def load(folder: str | Path, *, compile: bool = False) -> "QuantizedModel | Lowered":  # noqa: A002
    """A saved model, called like the user's; its checksums are verified, and none of its saver's code runs.

    It computes the accuracy that was reported. With `compile` it runs in int8 kernels of this CPU, which is fast; each
    new shape of inputs is compiled at its first call, and last bits may differ.

    Raises `FileNotFoundError` where there is none, `ArtifactError` where a file is not what was saved.
    """
    from quantuner.engine.quantized import load as load_model  # torch: only for who asks for a model

    model = load_model(folder)
    return model.compiled() if compile else model
