"""Quantuner finds the int8 configuration of a PyTorch model that keeps its accuracy."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from quantuner.api.task import Task

if TYPE_CHECKING:
    from quantuner.engine.lowering import Lowered
    from quantuner.engine.quantized import QuantizedModel

__all__ = ["Task", "__version__", "load"]
__version__ = "0.1.0"


@overload
def load(folder: str | Path, model: Any = None, *, compile: Literal[False] = False) -> "QuantizedModel": ...
@overload
def load(folder: str | Path, model: Any = None, *, compile: Literal[True]) -> "Lowered": ...
@overload
def load(folder: str | Path, model: Any = None, *, compile: bool) -> "QuantizedModel | Lowered": ...
def load(folder: str | Path, model: Any = None, *, compile: bool = False) -> "QuantizedModel | Lowered":  # noqa: A002
    """A saved model, called like the user's; its checksums are verified, and none of its saver's code runs.

    A model that could not be captured is saved as weights alone: give your fp32 module as `model`, whose copy takes
    them. It computes the accuracy that was reported. With `compile` it runs in int8 kernels of this CPU, which is
    fast; each new shape of inputs is compiled at its first call, and last bits may differ.

    Raises `FileNotFoundError` where there is none, `ValueError` where `model` is missing or not asked for, or where
    kernels of this CPU would compute something else (x86 without VNNI, and no `reduce_range`), `ArtifactError` where a
    file is not what was saved or does not fit `model`.
    """
    from quantuner.engine.quantized import load as load_model  # torch: only for who asks for a model

    loaded = load_model(folder, model)
    return loaded.compiled() if compile else loaded
