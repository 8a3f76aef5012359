"""Ranges that are taken of what an op is given, where inductor leaves zero out of them.

A range reaches zero, which has a place on the grid. Inductor's decomposition (torch 2.13, torch/_inductor/
decomposition.py, `choose_qparams_tensor`) takes the values' own ends: where all are above zero, the zero point would
have to be below the grid, is cut off at its end, and every value is too large.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule

_aten = torch.ops.aten


def reach_zero(model: GraphModule) -> None:
    """Has every range taken of its ends and zero. Changes the graph in place; what it computes stays."""
    chosen = torch.ops.quantized_decomposed.choose_qparams.tensor
    for node in model.graph.find_nodes(op="call_function", target=chosen):
        given, *rest = node.args
        with model.graph.inserting_before(node):
            call: Any = model.graph.call_function
            low = call(_aten.clamp_max.default, (call(_aten.amin.default, (given,)), 0))
            high = call(_aten.clamp_min.default, (call(_aten.amax.default, (given,)), 0))
            ends = call(_aten.stack.default, ([low, high],))
        node.args = (ends, *rest)
    model.recompile()
