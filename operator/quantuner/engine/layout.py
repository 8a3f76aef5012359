"""Images with their channels last in memory, as convolutions on a CPU are fastest.

oneDNN otherwise brings every convolution's input and weight into a layout of its own, and back. A convolution computes
channels last where its input or its weight lies so, and its output then does; so weights decide for the whole graph, in
a trial as in the saved model. The layout changes the last bits of sums, no more.

An image of one channel, and the weight that reads it, lie in both orders at once, which torch takes for channels first:
such an input of the model is copied, so that what a convolution computes from it lies as all that follows.

What the model returns lies as the user's model returns it: who has it may view it in another shape, which only one
layout allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._prims_common import is_contiguous_or_false
from torch.fx import GraphModule, Node

from quantuner.engine.graphs import attribute, path_of
from quantuner.engine.operators import operator_of, weight_of

_aten = torch.ops.aten
_TYPES = ("Conv2d", "ConvTranspose2d")
_VIEWS = {
    _aten.view.default: _aten.reshape.default,
    _aten._unsafe_view.default: _aten.reshape.default,
    _aten.view_as.default: _aten.reshape_as.default,
}
"""Operators that fail on some layouts to those that copy instead."""
_READS_STRIDES = (_aten.as_strided.default, _aten.view.dtype, _aten.view_as_complex.default)
"""Operators whose result, or whose success, depends on the layout of what they are given."""
IMAGES = 4  # dimensions: samples, channels, rows, columns


def computes_channels_last(graph: GraphModule) -> bool:
    """Whether it has two-dimensional convolutions, and nothing that reads strides."""
    nodes = graph.graph.nodes
    operators = (operator for node in nodes if (operator := operator_of(node)) is not None)
    return any(one.type in _TYPES for one in operators) and not _reads_strides(graph)


def _reads_strides(graph: GraphModule) -> bool:
    return any(node.target in _READS_STRIDES for node in graph.graph.nodes)


def lay_channels_last(graph: GraphModule) -> None:
    """Lays the weights of two-dimensional convolutions on a CPU so, in place; values stay. A graph that reads strides
    stays as it is."""
    nodes = list(graph.graph.nodes)
    if _reads_strides(graph):
        return
    weights = {node: weight for node in nodes if (weight := _weight(graph, node)) is not None}
    for weight in weights.values():  # in place, so that a shared weight stays shared
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    for image in (node for node in nodes if weights and _is_gray(node)):
        _copy_for(graph, image, [reader for reader in weights if reader.args[0] is image])
    for node in nodes if weights else ():
        if node.target in _VIEWS:  # of what lies otherwise in memory than when it was captured
            node.target = _VIEWS[node.target]
    if weights:
        _lay_outputs_as_captured(graph)
    graph.recompile()


def _weight(graph: GraphModule, node: Node) -> torch.Tensor | None:
    """That of a two-dimensional convolution on a CPU, where the model holds it."""
    operator = operator_of(node)
    weight = weight_of(node) if operator is not None and operator.type in _TYPES else None
    stored = attribute(graph, path_of(weight)) if weight is not None and weight.op == "get_attr" else None
    return stored if stored is not None and stored.device.type == "cpu" else None


def _is_gray(node: Node) -> bool:
    """Whether it is an input of the model, of images of one channel."""
    value = node.meta.get("val") if node.op == "placeholder" else None
    return isinstance(value, torch.Tensor) and value.dim() == IMAGES and value.size(1) == 1


def _copy_for(graph: GraphModule, image: Node, readers: Sequence[Node]) -> None:
    """One copy for all, so that it is rounded once."""
    if not readers:
        return
    with graph.graph.inserting_before(readers[0]):
        call: Any = graph.graph.call_function
        copy: Node = call(_aten.clone.default, (image,), {"memory_format": torch.channels_last})
    copy.meta = {**readers[0].meta, "val": image.meta["val"].clone(memory_format=torch.channels_last)}
    for reader in readers:
        reader.replace_input_with(image, copy)


def _lay_outputs_as_captured(graph: GraphModule) -> None:
    """Copies what is returned where it lies otherwise when the model runs; what does not is returned as it is."""
    output = graph.graph.output_node()
    for node in output.all_input_nodes:
        if node.target is not _aten.linear.default and _lay_in_order(node):
            with graph.graph.inserting_before(output):
                call: Any = graph.graph.call_function
                copy: Node = call(_aten.contiguous.default, (node,))
            copy.meta = dict(node.meta)
            output.replace_input_with(node, copy)


def _lay_in_order(node: Node) -> bool:
    """Whether a value of several dimensions was contiguous when it was captured, its first dimension first."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dim() > 1 and is_contiguous_or_false(value)
