"""Transposed convolutions, which inductor takes for plain ones: outputs were wrong, or oneDNN refused the shapes.

Its pattern of an int8 convolution (torch 2.13, torch/_inductor/fx_passes/quantization.py) fits both, and what it puts
there computes the plain one. Its folding of a scale or an addend into a weight (binary_folding.py beside it) takes the
weight's first dimension for the channels of the output: of a transposed convolution those are the input's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.graphs import attribute, constant, is_dequantize, path_of
from quantuner.engine.operators import operator_of, weight_of

_aten = torch.ops.aten
_TRANSPOSED = 6  # position among the arguments of aten.convolution


def store_weights_in_fp32(model: GraphModule) -> None:
    """Has transposed convolutions read what their int8 weights stand for, so that no pattern takes them for int8.

    Changes the graph in place; what it computes stays.
    """
    for node in list(model.graph.nodes):
        operator = operator_of(node)
        weight = weight_of(node) if operator is not None and operator.type.startswith("ConvTranspose") else None
        if is_dequantize(weight):
            node.replace_input_with(weight, _stored(model, weight))
    model.graph.eliminate_dead_code()
    model.recompile()


def _stored(model: GraphModule, dequantize: Node) -> Node:
    """A node that holds the weight's values. What a dequantization takes is stored, or a number."""
    target: Any = dequantize.target
    given = [attribute(model, path_of(one)) if isinstance(one, Node) else one for one in dequantize.args]
    with torch.no_grad():
        stored = constant(model, "_weight", target(*given, **dequantize.kwargs), dequantize)
    stored.meta = dict(dequantize.meta)
    return stored


@contextlib.contextmanager
def folding_none() -> Iterator[None]:
    """While the block runs, inductor folds nothing into the weights of a graph that has a transposed convolution.

    One block at a time: it changes a pass that all of the process compiles with.
    """
    from torch._inductor.fx_passes import freezing_patterns  # all of inductor, which only who compiles needs

    folding: Any = freezing_patterns.binary_folding_pass
    fold = folding.apply
    folding.apply = lambda graph: 0 if _has_any(graph) else fold(graph)
    try:
        yield
    finally:
        del folding.apply  # the class has it


def _has_any(graph: torch.fx.Graph) -> bool:
    nodes = graph.find_nodes(op="call_function", target=_aten.convolution.default)
    return any(node.args[_TRANSPOSED] for node in nodes)
