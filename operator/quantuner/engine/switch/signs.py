"""Values that are never negative, whatever a model is given."""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

_aten = torch.ops.aten
_NEVER = (
    _aten.relu.default,
    _aten.sigmoid.default,
    _aten.softmax.int,
    _aten.abs.default,
)
_KEEPS = (
    _aten.add.Tensor,
    _aten.mul.Tensor,
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
    _aten.dropout.default,
)
"""Of tensors that are never negative, without numbers beside them."""


def never_negative(graph: Graph) -> frozenset[Node]:
    """Nodes whose values hold no number below 0. NaN they may hold."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.target in _NEVER or (node.target in _KEEPS and _is_kept(node, found)):
            found.add(node)
    return frozenset(found)


def _is_kept(node: Node, found: set[Node]) -> bool:
    """Whether an operator is given what is never negative; a sum or product of two such tensors, not of numbers."""
    tensors = 2 if node.target in (_aten.add.Tensor, _aten.mul.Tensor) else 0
    are_tensors = all(isinstance(argument, Node) for argument in node.args[:tensors]) and not node.kwargs
    return are_tensors and all(argument in found for argument in node.all_input_nodes)
