"""Small int8 matrix products, which inductor computes in kernels of its own, and small convolutions as such products.

A call of oneDNN's convolution or product costs about 40 µs before it computes anything: it looks up a primitive and
describes its memory, which takes several times as long as one small image does. A product of the unfolded image costs a
copy instead.
Source: im2col, Chellapilla et al. 2006, "High performance convolutional neural networks for document processing",
section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.graphs import PER_CHANNEL, PER_TENSOR, attribute, constant, path_of

_aten = torch.ops.aten
SMALL = 2**23  # operations of the largest: with more oneDNN computes for longer than it prepares
SMALL_PRODUCT = 2**28  # where nothing is unfolded
_OTHERS = (
    *(_aten.conv1d, _aten.conv2d, _aten.conv3d, _aten.conv_transpose1d, _aten.conv_transpose2d, _aten.conv_transpose3d),
    *(_aten.matmul, _aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm, _aten.einsum),
)


@dataclass(frozen=True)
class _Convolution:
    """A convolution of an image on a static uint8 grid with a weight in int8, scales per channel."""

    source: Node
    """The image's dequantization."""
    weight: Node
    """The weight's."""
    bias: Node | None
    stride: list[int]
    padding: list[int]


def products_of_convolutions(model: GraphModule) -> int:
    """Changes the graph, whose shapes are fixed, in place; returns how many convolutions became products.

    All or none of those that can be one: where one is large, a mixture was slower than oneDNN alone. Others, as in
    groups, with dilation or in fp32, stay beside them.
    """
    found = [(node, call) for node in model.graph.nodes if (call := _read(node))]
    if not all(_is_small(model, node, call) for node, call in found):
        return 0
    for node, call in found:
        _replace(model, node, call)
    model.graph.eliminate_dead_code()
    model.recompile()
    return len(found)


def has_small_products(model: GraphModule) -> bool:
    """Whether a model of fixed shapes has Linears, all of them small and in int8, and no convolution or product beside.

    inductor's products in fp32 are slower than MKL's (5.0 ms where a MiniLM takes 3.2). What other ops multiply inside,
    as attention and LSTMs do, is not looked at: inductor makes no kernels of its own of it.
    """
    packets = [(node, getattr(node.target, "overloadpacket", None)) for node in model.graph.nodes]
    if any(packet in _OTHERS for _, packet in packets):
        return False
    linears = [node for node, packet in packets if packet is _aten.linear]
    return bool(linears) and all(_is_small_product(model, node) for node in linears)


def _is_small_product(model: GraphModule, node: Node) -> bool:
    source, weight, *_ = node.args
    if not isinstance(source, Node) or source.target is not PER_TENSOR or source.args[5] is not torch.uint8:
        return False
    if not isinstance(weight, Node) or weight.target is not PER_CHANNEL:
        return False
    shared: int = attribute(model, path_of(weight.args[0])).shape[1]
    operations: int = 2 * node.meta["val"].numel() * shared
    return operations <= SMALL_PRODUCT


def _read(node: Node) -> _Convolution | None:
    if node.target is not _aten.conv2d.default:
        return None
    given: list[Any] = [*node.args, *[None, [1, 1], [0, 0], [1, 1], 1][len(node.args) - 2 :]]
    source, weight, bias, stride, padding, dilation, groups = given
    static = source.target is PER_TENSOR and source.args[5] is torch.uint8
    if static and weight.target is PER_CHANNEL and dilation == [1, 1] and groups == 1:
        return _Convolution(source, weight, bias, stride, padding)
    return None


def _is_small(model: GraphModule, node: Node, call: _Convolution) -> bool:
    operations: int = 2 * math.prod(node.meta["val"].shape) * _stored(model, call)[0].numel()
    return operations <= SMALL


def _stored(model: GraphModule, call: _Convolution) -> torch.Tensor:
    """`(O, C, h, w) int8`."""
    return attribute(model, path_of(call.weight.args[0]))


def _replace(model: GraphModule, node: Node, call: _Convolution) -> None:
    stored = _stored(model, call)
    count, channels, height, width = node.meta["val"].shape
    flat = constant(model, "_product_weight", stored.permute(0, 2, 3, 1).flatten(1).contiguous(), node)
    new: Any = model.graph.call_function
    with model.graph.inserting_before(node):
        windows = _unfolded(model, call, stored.shape[2:])
        rows = new(_aten.reshape.default, (windows, [count * height * width, stored[0].numel()]))
        exact = new(PER_TENSOR, (rows, *call.source.args[1:]))
        weight = new(PER_CHANNEL, (flat, *call.weight.args[1:]))
        product = new(_aten.linear.default, (exact, weight, call.bias))
        product = new(_aten.reshape.default, (product, [count, height, width, channels]))
        product = new(_aten.permute.default, (product, [0, 3, 1, 2]))
    product.meta = dict(node.meta)
    node.replace_all_uses_with(product)
    model.graph.erase_node(node)


def _unfolded(model: GraphModule, call: _Convolution, kernel: Sequence[int]) -> Node:
    """A node with the `(N, H', W', h, w, C) uint8` windows of the image; what is padded is its zero point."""
    integers, _, zero, *_ = call.source.args
    new: Any = model.graph.call_function
    image: Node = new(_aten.permute.default, (integers, [0, 2, 3, 1]))
    if any(call.padding):
        rows, columns = call.padding
        image = new(_aten.constant_pad_nd.default, (image, [0, 0, columns, columns, rows, rows], zero))
    for dimension, (size, step) in enumerate(zip(kernel, call.stride, strict=True), start=1):
        image = new(_aten.unfold.default, (image, dimension, size, step))
    windows: Node = new(_aten.permute.default, (image, [0, 1, 2, 4, 5, 3]))
    return windows
