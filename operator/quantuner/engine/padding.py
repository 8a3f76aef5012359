"""Convolutions whose outputs at the border see nothing but padding.

There, oneDNN's int8 kernels (as in torch 2.13, AVX-512 VNNI) take a zero point out with memory that they have not
written: other numbers from one process to the next. So these are computed in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

_aten = torch.ops.aten
_PADDING, _DILATION = 4, 5  # positions among the arguments of a convolution


def sees_padding_alone(padding: Sequence[int], dilation: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether a kernel of these sizes fits into the padding before an image, in some dimension."""
    reaches = (step * (size - 1) for step, size in zip(dilation, sizes, strict=True))
    return any(pad > reach for pad, reach in zip(padding, reaches, strict=True))


def pad_before(model: GraphModule) -> None:
    """Pads what such convolutions are given by an operator of its own, so that no compiler takes a dequantization and
    the convolution for one int8 kernel. Changes the graph in place; what it computes stays.
    """
    for node in model.graph.find_nodes(op="call_function", target=_aten.conv2d.default):
        given: Any = node.args
        padding = _both(given[_PADDING]) if len(given) > _PADDING else [0, 0]
        dilation = _both(given[_DILATION]) if len(given) > _DILATION else [1, 1]
        if sees_padding_alone(padding, dilation, _sizes(given[1])):
            rows, columns = padding
            with model.graph.inserting_before(node):
                call: Any = model.graph.call_function
                padded = call(_aten.constant_pad_nd.default, (given[0], [columns, columns, rows, rows], 0.0))
            node.args = (padded, *given[1:_PADDING], [0, 0], *given[_PADDING + 1 :])
    model.recompile()


def _both(value: Any) -> list[int]:
    return [*value] * (2 if len(value) == 1 else 1)


def _sizes(weight: Node) -> list[int]:
    return [int(size) for size in weight.meta["val"].shape[2:]]
