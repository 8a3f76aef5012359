"""Inputs that are given by name, of models that torch.export captured: those take them by position alone.

A program keeps the names of forward()'s inputs in the signature of its module, and checks a call before it reads it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import GraphModule


def positional(model: GraphModule, inputs: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """A call's inputs in the order of the model's. Raises `TypeError` for a name that it has not, or another number."""
    return inspect.signature(model.forward).bind(*inputs, **named).args if named else tuple(inputs)


def take_names(model: GraphModule) -> None:
    """Has the model take inputs by name, too."""
    if _by_position not in model._forward_pre_hooks.values():
        model.register_forward_pre_hook(_by_position, prepend=True, with_kwargs=True)


def _by_position(
    model: GraphModule, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    return (positional(model, inputs, named), {}) if named else None
