"""Puts stored weights into a captured graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.capture import op_nodes, quantizable_nodes
from quantuner.engine.graphs import attribute, path_of
from quantuner.engine.weight_only.inputs import inputs_of
from quantuner.engine.weight_only.stored import StoredWeight
from quantuner.engine.weight_only.weights import Weights
from quantuner.space.capability import Mode
from quantuner.space.config import OpConfig

TYPES = ("Linear",)
"""Types of ops whose weight is `(out, in)`."""


def weights_of(model: GraphModule, batches: Callable[[], Iterator[tuple[Any, ...]]]) -> Weights:
    """Those of a captured fp32 graph; `batches` gives the calibration inputs anew at each call."""
    found = {
        name: attribute(model, path_of(node.args[1]))
        for name, type_, node in quantizable_nodes(model.graph)
        if type_ in TYPES
    }
    return Weights(found, lambda names: inputs_of(model, batches(), found, names))


def store_weights(model: GraphModule, config: Mapping[str, OpConfig], stored: Callable[[str], StoredWeight]) -> None:
    """Has every weight-only op of `model` read its stored weight; what no op reads any more is dropped when saved."""
    read: dict[str, Node] = {}
    for name, _, node in list(op_nodes(model.graph)):
        if name not in config or config[name].mode is not Mode.WEIGHT_ONLY:
            continue
        if name not in read:
            path = f"stored_weight_{len(read)}"
            model.add_submodule(path, _own(stored(name)))
            with model.graph.inserting_before(node):
                read[name] = model.graph.call_module(path)
        node.update_arg(1, read[name])
    model.recompile()


def _own(weight: StoredWeight) -> torch.nn.Module:
    """A copy, since a model's tensors may be changed by who has it."""
    return copy.deepcopy(weight)
