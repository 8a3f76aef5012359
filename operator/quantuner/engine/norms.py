"""Batch norms that must not be folded into the convolution before them.

torchao's prepare folds every batch norm behind a convolution, also where something else reads the convolution's output
or shares its weight, and then computes another function. It raises behind a transposed convolution with groups, behind
one whose weight is computed (as by weight normalization), and for a norm that takes its statistics from the batch.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.graphs import attribute, path_of

_NORMS = (torch.ops.aten.batch_norm.default, torch.ops.aten._native_batch_norm_legit_no_training.default)
_FOLDED_INTO = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_GROUPS = 6  # position among the arguments of a transposed convolution


def keep_shared_apart(model: GraphModule) -> None:
    """Puts a copy, which changes no bit, between such a convolution and its norm. Changes the graph in place."""
    convolutions = [node for node in model.graph.nodes if _is_convolution(node)]
    readers = Counter(_weight(model, node) for node in convolutions)
    for norm in [node for node in model.graph.nodes if node.target in _NORMS]:
        source = norm.args[0]
        shared = source in convolutions and (len(source.users) > 1 or readers[_weight(model, source)] > 1)
        if shared or (source in convolutions and not _can_be_folded(norm, source)):
            with model.graph.inserting_before(norm):
                copy = model.graph.call_function(torch.ops.aten.clone.default, (source,))
            copy.meta = {"val": source.meta["val"]}
            norm.replace_input_with(source, copy)
    model.recompile()


def _is_convolution(node: Node) -> bool:
    operator = node.target
    return isinstance(operator, torch._ops.OpOverload) and operator._schema.name.removeprefix("aten::") in _FOLDED_INTO


def _can_be_folded(norm: Node, convolution: Node) -> bool:
    """Whether all that folding computes with is there beforehand."""
    constants = [*convolution.args[1:3], *norm.args[1:5]]
    known = all(value.op == "get_attr" for value in constants if isinstance(value, Node))
    return known and norm.args[3] is not None and not _is_transposed_in_groups(convolution)


def _is_transposed_in_groups(node: Node) -> bool:
    return "transpose" in str(node.target) and bool(node.args[_GROUPS:]) and node.args[_GROUPS] not in (1, None)


def _weight(model: GraphModule, node: Node) -> object:
    """Where the weight lies in memory; of one that is computed, the node that does."""
    weight = node.args[1]
    if isinstance(weight, Node) and weight.op == "get_attr":
        return attribute(model, path_of(weight)).data_ptr()
    return weight
