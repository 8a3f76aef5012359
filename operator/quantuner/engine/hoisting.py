"""Lets int8 flow through what only moves or selects values: their rounding is moved in front of them.

Exact: rounding is monotonic and works on single values, so it may come before a maximum, a concatenation or a change of
shape as well as after it. A convolution then gives int8 to the pooling behind it, without a way through fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.graphs import PER_TENSOR, QUANTIZE

_aten = torch.ops.aten
_MOVES = (
    _aten.cat.default,
    _aten.flatten.using_ints,
    _aten.view.default,
    _aten.reshape.default,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.unsqueeze.default,
    _aten.squeeze.dim,
    _aten.slice.Tensor,
    _aten.contiguous.default,
    _aten.clone.default,
)
_POOLS = (_aten.max_pool2d.default,)


def hoist_rounding(model: GraphModule) -> None:
    """Changes the graph in place."""
    waiting = [node for node in model.graph.nodes if node.target is QUANTIZE]
    while waiting:
        quantize = waiting.pop()
        source = quantize.args[0]
        if isinstance(source, Node) and _alike(source) and source.target in (*_MOVES, *_POOLS):
            waiting += _hoisted(model, source, quantize.args[1:])
            waiting = [node for node in waiting if node.users]
    model.graph.eliminate_dead_code()
    model.recompile()


def _alike(source: Node) -> bool:
    """Whether all that reads a value rounds it to one grid."""
    grids = {user.args[1:] if user.target is QUANTIZE else () for user in source.users}
    return len(grids) == 1 and () not in grids


def _hoisted(model: GraphModule, source: Node, grid: tuple[Any, ...]) -> list[Node]:
    """Rounds the inputs of `source`, which then moves integers; returns the roundings that are new."""
    new: list[Node] = []
    for argument in source.all_input_nodes:
        with model.graph.inserting_before(source):
            new.append(model.graph.call_function(QUANTIZE, (argument, *grid)))
            new[-1].meta = {"val": argument.meta["val"].to(torch.uint8)}
            integers = new[-1]
            if source.target in _POOLS:  # inductor has an int8 kernel for a pooling between roundings
                integers = model.graph.call_function(PER_TENSOR, (integers, *grid))
                integers.meta = dict(argument.meta)
        source.replace_input_with(argument, integers)
    if source.target not in _POOLS:
        source.meta["val"] = source.meta["val"].to(torch.uint8)
        for quantize in list(source.users):
            quantize.replace_all_uses_with(source)
    return new
