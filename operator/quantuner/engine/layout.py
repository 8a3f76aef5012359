"""Images with their channels last in memory, as convolutions on a CPU are fastest.

oneDNN otherwise brings every convolution's input and weight into a layout of its own, and back. A convolution computes
channels last where its input or its weight lies so, and its output then does; so weights decide for the whole graph, in
a trial as in the saved model. The layout changes the last bits of sums, no more.

An image of one channel, and the weight that reads it, lie in both orders at once, which torch takes for channels first:
such an input is copied, so that what is computed from it lies as all that follows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.graphs import attribute, path_of
from quantuner.engine.operators import operator_of, weight_of

_aten = torch.ops.aten
_TYPES = ("Conv2d", "ConvTranspose2d")
_VIEWS = (_aten.view.default, _aten._unsafe_view.default)
_READS_STRIDES = (_aten.as_strided.default, _aten.view.dtype)
"""Operators whose result, or whose success, depends on the layout of what they are given."""


def lay_channels_last(graph: GraphModule) -> None:
    """Lays the weights of two-dimensional convolutions on a CPU so, in place; values stay. A graph that reads strides
    stays as it is."""
    nodes = list(graph.graph.nodes)
    if any(node.target in _READS_STRIDES for node in nodes):
        return
    images = {node: weight for node in nodes if (weight := _weight(graph, node)) is not None}
    for node, weight in images.items():
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)  # so that a shared one stays shared
        source = node.args[0]
        if isinstance(source, Node) and source.op == "placeholder" and source.meta["val"].size(1) == 1:
            node.replace_input_with(source, _copied(graph, source, node))
    for node in nodes if images else ():
        if node.target in _VIEWS:  # of what lies otherwise in memory than when it was captured
            node.target = _aten.reshape.default
    graph.recompile()


def _weight(graph: GraphModule, node: Node) -> torch.Tensor | None:
    """That of a two-dimensional convolution on a CPU, where the model holds it."""
    operator = operator_of(node)
    weight = weight_of(node) if operator is not None and operator.type in _TYPES else None
    stored = attribute(graph, path_of(weight)) if weight is not None and weight.op == "get_attr" else None
    return stored if stored is not None and stored.device.type == "cpu" else None


def _copied(graph: GraphModule, image: Node, reader: Node) -> Node:
    with graph.graph.inserting_before(reader):
        call: Any = graph.graph.call_function
        copy: Node = call(_aten.clone.default, (image,), {"memory_format": torch.channels_last})
    copy.meta = {**reader.meta, "val": image.meta["val"].clone(memory_format=torch.channels_last)}
    return copy
