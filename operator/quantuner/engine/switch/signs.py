"""Values that are seldom or never negative, as those behind a ReLU."""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

_aten = torch.ops.aten
_GIVES = (_aten.relu.default, _aten.sigmoid.default, _aten.softmax.int, _aten.abs.default)
_KEEPS = (
    _aten.add.Tensor,
    _aten.max_pool2d.default,
    _aten.avg_pool2d.default,
    _aten.adaptive_avg_pool2d.default,
    _aten.mean.dim,
    _aten.cat.default,
    _aten.flatten.using_ints,
    _aten.view.default,
    _aten.reshape.default,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.contiguous.default,
    _aten.clone.default,
)


def hardly_negative(graph: Graph) -> frozenset[Node]:
    """Nodes of which it is worth to look whether a value holds anything below 0, or NaN."""
    found: set[Node] = set()
    for node in graph.nodes:
        arguments = node.all_input_nodes
        if node.target in _GIVES or (node.target in _KEEPS and all(argument in found for argument in arguments)):
            found.add(node)
    return frozenset(found)
