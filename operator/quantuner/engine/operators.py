"""The operators that can be quantized: where each has its inputs and its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from quantuner.engine.recurrent import RECURRENT, matrices

_aten = torch.ops.aten


@dataclass(frozen=True)
class Operator:
    """How calls of one operator are read."""

    type: str
    """A key of BY_TYPE."""
    inputs: tuple[int, ...] = (0,)
    """Positions of the activations that are rounded."""
    weight: int | None = 1
    """Position of the weight; None where there is none, or several."""
    axis: int = 0
    """The weight's dimension that has a scale for each of its indices, where it is quantized per channel."""


def _convolution(dimensions: int) -> dict[object, Operator]:
    plain, transposed = Operator(f"Conv{dimensions}d"), Operator(f"ConvTranspose{dimensions}d", axis=1)
    packet = getattr(_aten, f"conv{dimensions}d")
    other = getattr(_aten, f"conv_transpose{dimensions}d")
    # An op with string padding ("same") is captured as the .padding overload.
    return {packet.default: plain, packet.padding: plain, other.default if dimensions == 1 else other.input: transposed}


_MATMUL = Operator("MatMul", inputs=(0, 1), weight=None)
OPERATORS: Mapping[object, Operator] = {
    _aten.linear.default: Operator("Linear"),
    **_convolution(1),
    **_convolution(2),
    **_convolution(3),
    _aten.matmul.default: _MATMUL,
    _aten.bmm.default: _MATMUL,
    _aten.mm.default: _MATMUL,
    _aten.embedding.default: Operator("Embedding", inputs=(), weight=0),
    **{target: Operator(type_, weight=None) for target, type_ in RECURRENT.items()},
}


def operator_of(node: Node) -> Operator | None:
    return OPERATORS.get(node.target) if node.op == "call_function" else None


def _known(node: Node) -> Operator:
    found = operator_of(node)
    if found is None:
        raise TypeError(f"{node.format_node()} is none of the operators that can be quantized")
    return found


def inputs_of(node: Node) -> tuple[Node, ...]:
    """The activations of a quantizable op that are rounded: one; two of a product of activations; none of an
    embedding, which takes indices."""
    return tuple(argument for i in _known(node).inputs if isinstance(argument := node.args[i], Node))


def weight_of(node: Node) -> Node | None:
    """The weight of a quantizable op; None where it has none, or several, as a recurrent one."""
    position = _known(node).weight
    argument = None if position is None else node.args[position]
    return argument if isinstance(argument, Node) else None


def weights_of(node: Node) -> tuple[Node, ...]:
    """All that of a quantizable op is stored in int8."""
    weight = weight_of(node)
    if node.target in RECURRENT:
        return matrices(node)
    return () if weight is None else (weight,)


def channel_axis(node: Node) -> int:
    """The dimension of an op's weight along which scales lie, where they are per channel."""
    return _known(node).axis


def range_names(name: str, node: Node) -> tuple[str, ...]:
    """What the ranges of an op's inputs are called, in the order of `inputs_of`: the op's name, then `NAME:1`."""
    return tuple(name if i == 0 else f"{name}:{i}" for i in range(len(inputs_of(node))))


def is_quantizable(node: Node) -> bool:
    """Whether a call can be computed in int8.

    An op whose weight is computed (weight normalization) cannot: its weight cannot be stored as int8. Nor can one in
    another type than float32, which all grids round to, or whose input is its bias, too, which would be rounded with
    it. A product must be one of activations.
    """
    found = operator_of(node)
    if found is None:
        return False
    if found.weight is not None:
        weight = node.args[found.weight]
        is_read_once = all(node.args.count(source) == 1 for source in inputs_of(node))
        return isinstance(weight, Node) and weight.op == "get_attr" and _is_float32(weight) and is_read_once
    if node.target in RECURRENT:
        return all(weight.op == "get_attr" and _is_float32(weight) for weight in matrices(node))
    return _is_float32(node) and all(source.op != "get_attr" for source in inputs_of(node))


def _is_float32(node: Node) -> bool:
    """What torch added to a captured graph since has no value to ask, and is."""
    value = node.meta.get("val")
    return not isinstance(value, torch.Tensor) or value.dtype is torch.float32
