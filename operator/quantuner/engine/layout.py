"""Images with their channels last in memory, as convolutions on a CPU are fastest.

oneDNN otherwise brings every convolution's input and weight into a layout of its own, and back. A convolution computes
channels last where its input or its weight lies so, and its output then does; so weights decide for the whole graph, in
a trial as in the saved model. The layout changes the last bits of sums, no more.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule

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
    weights = [weight_of(node) for node in nodes if (found := operator_of(node)) is not None and found.type in _TYPES]
    stored = [attribute(graph, path_of(weight)) for weight in weights if weight is not None and weight.op == "get_attr"]
    images = [weight for weight in stored if weight.device.type == "cpu"]
    for weight in images:  # in place, so that a shared weight stays shared
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    for node in nodes if images else ():
        if node.target in _VIEWS:  # of what lies otherwise in memory than when it was captured
            node.target = _aten.reshape.default
    graph.recompile()
