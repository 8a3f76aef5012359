"""Weights that are computed of a direction and a length, as `torch.nn.utils.parametrizations.weight_norm` does."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule

_aten = torch.ops.aten


def spell_out(model: GraphModule) -> None:
    """Computes them with operators that look at shapes. Changes the graph in place.

    torch's own operator for it writes where there is no memory if the lengths are too few, so no saved program may call
    it.
    """
    for node in model.graph.find_nodes(op="call_function", target=_aten._weight_norm.default):
        direction, length, dimension = (*node.args, 0)[:3]
        values: Any = direction.meta["val"], length.meta["val"]
        with model.graph.inserting_before(node), values[0].fake_mode:
            norm = model.graph.call_function(_aten.norm_except_dim.default, (direction, 2, dimension))
            norm.meta["val"] = _aten.norm_except_dim.default(values[0], 2, dimension)
            scale = model.graph.call_function(_aten.div.Tensor, (length, norm))
            scale.meta["val"] = values[1] / norm.meta["val"]
            weight = model.graph.call_function(_aten.mul.Tensor, (direction, scale))
        weight.meta = dict(node.meta)
        node.replace_all_uses_with(weight)
        model.graph.erase_node(node)
    model.recompile()
