"""What a batch of the user's data holds: the model's inputs, and how many samples."""

import inspect
from typing import Any

import torch
from torch.utils._pytree import tree_leaves


def model_inputs(batch: Any, count: int = 1) -> tuple[Any, ...]:
    """Positional inputs of a calibration batch: `(input, label)`, `input`, or a tuple of inputs with a label.

    `count` is how many inputs the model takes: to one of two, a pair of single values is both of them, no label.
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and (count != 2 or isinstance(batch[0], (tuple, list))):
        batch = batch[0]
    return positional(batch)


def positional(inputs: Any) -> tuple[Any, ...]:
    """Of several inputs each; a tensor or a dict is one."""
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)


def inputs_wanted(model: torch.nn.Module) -> int:
    """How many positional inputs a model cannot do without."""
    parameters = inspect.signature(model.forward).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)


def samples_in(inputs: Any) -> int:
    """Length of dimension 0 of the first tensor that has one, also inside dicts and tuples; 1 without any."""
    return next((v.shape[0] for v in tree_leaves(inputs) if isinstance(v, torch.Tensor) and v.dim()), 1)
