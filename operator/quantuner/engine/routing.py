"""Dynamic ops that data may route no row to, as an expert of a mixture: torch finds no range of an empty input."""

from __future__ import annotations

import torch
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

_RANGE = torch.ops.quantized_decomposed.choose_qparams.tensor
_aten = torch.ops.aten


def allow_empty(model: GraphModule) -> GraphModule:
    """Has every dynamic op look at its input and a zero, which every range holds anyway: no bit changes.

    A graph in which no size depends on data stays as it is: int8 kernels are found by the range of the input itself.
    Changes the graph in place and returns it.
    """
    if not routes_rows(model):
        return model
    for node in model.graph.find_nodes(op="call_function", target=_RANGE):
        with model.graph.inserting_before(node):
            flat = model.graph.call_function(_aten.flatten.using_ints, (node.args[0],))
            zero = model.graph.call_function(_aten.new_zeros.default, (flat, [1]))
            node.update_arg(0, model.graph.call_function(_aten.cat.default, ([flat, zero],)))
    model.recompile()
    return model


def routes_rows(model: GraphModule) -> bool:
    """Whether data decide a size in the graph (`x[mask]`, `nonzero`)."""
    values = (node.meta.get("val") for node in model.graph.nodes)
    return any(isinstance(value, torch.Tensor) and free_unbacked_symbols(value) for value in values)
