"""The inputs that a model is captured with: which of their sizes may change from batch to batch."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.batches import samples_in
from quantuner.engine.entrypoint import users_code
from quantuner.engine.remedies import remedy

Inputs = tuple[Any, ...]
SHAPES_SEEN = 4  # calibration batches whose shapes are compared: padding by batch differs from one to the next


def check_call(model: torch.nn.Module, inputs: Inputs) -> None:
    """Raises `SearchError` (ModelNotCapturable) where forward() does not take as many positional inputs, or where they
    hold no sample.
    """
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*inputs)
    except TypeError as error:
        named = [name for name, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]
        wanted = (
            f"wrap the model in one whose forward() takes {', '.join(named)} by position"
            if named
            else ("batches are (input, label) or ((input, input, …), label); or give Task.example_inputs, one of each")
        )
        raise SearchError(
            Failure.MODEL_NOT_CAPTURABLE,
            f"forward{signature}{_place(model)} is called with {len(inputs)} positional inputs ({error}); {wanted}",
        ) from error
    if not samples_in(inputs):
        raise SearchError(
            Failure.MODEL_NOT_CAPTURABLE,
            "the example inputs hold no sample: the first dimension of the first tensor has size 0; give "
            "Task.example_inputs with two samples or more",
        )


@contextlib.contextmanager
def blaming_inputs(model: torch.nn.Module, inputs: Inputs) -> Iterator[None]:
    """Where the block raises and the model does so, too, when it is called: raises what the model says (`SearchError`,
    CalibrationFailed). It is not called where torch's error has a remedy, or where an input is no tensor or number.
    """
    try:
        yield
    except Exception as error:
        is_guard = "Guard failed" in str(error)  # the model may not take what the capture does not
        if (is_guard or not remedy(f"{type(error).__name__}: {error}")) and _are_plain(inputs):
            _call(model, inputs)
        raise


def _are_plain(inputs: Inputs) -> bool:
    return all(isinstance(value, (torch.Tensor, int, float)) or value is None for value in tree_leaves(inputs))


def _call(model: torch.nn.Module, inputs: Inputs) -> None:
    """On copies: it may write to both."""
    own = copy.deepcopy(model).eval()
    given: Inputs = tree_map(lambda value: value.clone() if isinstance(value, torch.Tensor) else value, inputs)
    said = ", ".join(map(_described, tree_leaves(inputs)))
    doing = f"give batches that forward() takes: it was called with {said}, in evaluation mode, and"
    with users_code(Failure.CALIBRATION_FAILED, doing), torch.no_grad():
        own(*given)


def _described(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)


def _place(model: torch.nn.Module) -> str:
    code = getattr(type(model).forward, "__code__", None)
    return f" at {Path(code.co_filename).name}:{code.co_firstlineno}" if code is not None else ""


def dynamic_shapes(inputs: Inputs, others: Iterable[Inputs] = ()) -> Any:
    """torch.export's `dynamic_shapes`: dimension 0 of every tensor, the batch, and what differs in `others`."""
    leaves, structure = tree_flatten(inputs)
    free = [{0} if isinstance(value, torch.Tensor) and value.dim() else set() for value in leaves]
    for other in others:
        values, like = tree_flatten(other)
        if like == structure:
            for dimensions, value, one in zip(free, leaves, values, strict=True):
                dimensions.update(_differing(value, one))
    shapes = [dict.fromkeys(sorted(dimensions), torch.export.Dim.AUTO) or None for dimensions in free]
    return tree_unflatten(shapes, structure)


def _differing(one: Any, other: Any) -> set[int]:
    """The dimensions in which two tensors are not as long."""
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)) or one.dim() != other.dim():
        return set()
    return {i for i, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b}


def at_least_two(model: torch.nn.Module, inputs: Inputs) -> Inputs:
    """The inputs with a batch of one repeated, where the model gives the repeated output; else as they are.

    torch.export takes a size of one for a constant: the capture would take no other batch.
    """
    tensors = [value for value in tree_leaves(inputs) if isinstance(value, torch.Tensor) and value.dim()]
    if not tensors or any(value.shape[0] != 1 for value in tensors):
        return inputs
    two: Inputs = tree_map(_twice, inputs)
    try:
        with torch.no_grad():
            given, expected = tree_leaves(model(*two)), tree_leaves(tree_map(_twice, model(*inputs)))
    except Exception:  # a model of single samples: torch.export says what else is wrong with it
        return inputs
    alike = len(given) == len(expected) and all(map(_alike, given, expected))  # a list may have a value for each row
    return two if alike else inputs


def _twice(value: Any) -> Any:
    return torch.cat([value, value]) if isinstance(value, torch.Tensor) and value.dim() else value


def _alike(one: Any, other: Any) -> bool:
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return not isinstance(other, torch.Tensor) and bool(one == other)
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
