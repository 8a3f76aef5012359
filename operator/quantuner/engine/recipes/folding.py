"""Takes a factor per channel into the parameters that compute a value, so that no multiplication is left in a graph.

A factor above 0 goes through rectifiers, pooling and copies unchanged, since f(c·x) = c·f(x) for them. It ends in the
weight and bias of a norm, linear or convolution: source, Xiao et al. 2022 (arXiv:2211.10438), section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.graphs import attribute, path_of, replace_attribute

_aten = torch.ops.aten
_TRANSPARENT = (
    _aten.relu.default,
    _aten.leaky_relu.default,
    _aten.dropout.default,
    _aten.clone.default,
    _aten.contiguous.default,
)
"""f(c·x) = c·f(x) for c > 0, number by number."""
_POOLED = {  # operator to how many of the last dimensions it pools; each index of those before is a channel to it
    _aten.max_pool1d.default: 1,
    _aten.max_pool2d.default: 2,
    _aten.max_pool3d.default: 3,
    _aten.avg_pool1d.default: 1,
    _aten.avg_pool2d.default: 2,
    _aten.avg_pool3d.default: 3,
    _aten.adaptive_avg_pool1d.default: 1,
    _aten.adaptive_avg_pool2d.default: 2,
    _aten.adaptive_avg_pool3d.default: 3,
}
_ROWS = {  # operator to the position of its weight, whose first dimension has the channels; the bias is behind it
    _aten.linear.default: 1,
    _aten.conv1d.default: 1,
    _aten.conv1d.padding: 1,
    _aten.conv2d.default: 1,
    _aten.conv2d.padding: 1,
    _aten.conv3d.default: 1,
    _aten.conv3d.padding: 1,
    _aten.batch_norm.default: 1,
    _aten.instance_norm.default: 1,
    _aten.group_norm.default: 2,
}
_LAST = {_aten.layer_norm.default: 2, _aten.rms_norm.default: 2}  # as above; the weight's last dimension has them
_BIASED = (*_ROWS, _aten.layer_norm.default)
_CONVOLUTIONS = tuple(target for target in _ROWS if target.name().startswith("aten::conv"))


@dataclass(frozen=True)
class Site:
    """A parameter that a factor goes into."""

    path: str
    dimension: int
    """The parameter's own that has the channels."""


def sites(model: GraphModule, value: Node, readers: Sequence[Node], dimension: int) -> tuple[Site, ...]:
    """Where a factor on `dimension` of a value goes, which only `readers` may read; empty where it cannot be folded.

    Empty too where something else reads one of the parameters, or a value on the way.
    """
    try:
        return tuple(_Search(model).sites(value, readers, dimension))
    except _Opaque:
        return ()


def fold(model: GraphModule, found: Sequence[Site], factor: torch.Tensor) -> None:
    """Multiplies the parameters with a factor `(C,)`."""
    for site in found:
        value = attribute(model, site.path)
        shape = [1] * value.dim()
        shape[site.dimension] = -1
        replace_attribute(model, site.path, value * factor.view(shape))


class _Opaque(Exception):  # noqa: N818  # no error of anyone's
    """Nothing here takes a factor."""


class _Search:
    def __init__(self, model: GraphModule) -> None:
        self.model = model
        self.reads: dict[int, int] = {}
        """Address of a tensor to how many arguments it is; tied parameters have one address."""
        for node in model.graph.nodes:
            if node.op == "get_attr":
                address = self._address(node)
                self.reads[address] = self.reads.get(address, 0) + len(node.users)

    def sites(self, node: Node, readers: Sequence[Node], dimension: int) -> Iterator[Site]:
        if set(node.users) != set(readers) or node.op != "call_function":
            raise _Opaque
        target, source = node.target, node.args[0]
        if target in _ROWS or target in _LAST:
            yield from self._parameters(node, dimension)
        elif target is _aten.mul.Tensor:
            yield from self._of_product(node, dimension)
        elif target is _aten.add.Tensor and not node.kwargs:
            yield from self._of_sum(node, dimension)
        elif isinstance(source, Node) and (before := _before(node, source, dimension)) is not None:
            yield from self.sites(source, [node], before)
        else:
            raise _Opaque

    def _parameters(self, node: Node, dimension: int) -> Iterator[Site]:
        rows = node.target in _ROWS
        position = {**_ROWS, **_LAST}[node.target]  # type: ignore[index]
        last = _value(node).dim() - 1
        weight = self._own(_argument(node, position))
        if node.target in _CONVOLUTIONS:
            channels = last + 2 - weight.dim()  # 1, and 0 without a batch
        else:
            channels = last if not rows or node.target is _aten.linear.default else 1
        if dimension != channels:
            raise _Opaque
        yield Site(path_of(_argument(node, position)), 0 if rows else weight.dim() - 1)
        bias = _argument(node, position + 1) if node.target in _BIASED else None
        if bias is not None:
            yield Site(path_of(bias), self._own(bias).dim() - 1)

    def _of_product(self, node: Node, dimension: int) -> Iterator[Site]:
        """One factor of a product takes all: a parameter first, since it is the nearest."""
        for argument in sorted(node.args[:2], key=lambda a: not _is_parameter(a)):
            if not isinstance(argument, Node):
                continue
            try:
                found = [*self._of_operand(node, argument, dimension)]
            except _Opaque:
                continue
            yield from found
            return
        raise _Opaque

    def _of_sum(self, node: Node, dimension: int) -> Iterator[Site]:
        """Both sides take it, and one of them is a parameter: a sum of two values is read by other branches, too."""
        one, other = node.args[:2]
        if not isinstance(one, Node) or not isinstance(other, Node):
            raise _Opaque
        if _is_parameter(one) == _is_parameter(other):
            raise _Opaque
        yield from self._of_operand(node, one, dimension)
        yield from self._of_operand(node, other, dimension)

    def _of_operand(self, node: Node, operand: Node, dimension: int) -> Iterator[Site]:
        result, value = _value(node), _value(operand)
        own = dimension - (result.dim() - value.dim())
        if own < 0 or value.shape[own] != result.shape[dimension]:  # broadcast over the channels
            raise _Opaque
        if node.args.count(operand) > 1:  # a square would take the factor twice
            raise _Opaque
        if _is_parameter(operand):
            self._own(operand)
            yield Site(path_of(operand), own)
        else:
            yield from self.sites(operand, [node], own)

    def _own(self, argument: Any) -> torch.Tensor:
        """A parameter that one argument of one node reads."""
        if not _is_parameter(argument) or self.reads[self._address(argument)] != 1:
            raise _Opaque
        return attribute(self.model, path_of(argument))

    def _address(self, node: Node) -> int:
        return attribute(self.model, path_of(node)).data_ptr()


def _before(node: Node, source: Node, dimension: int) -> int | None:
    """The dimension of an input that becomes `dimension` of the output, where a factor goes through; else None."""
    if node.target in _TRANSPARENT:
        return dimension
    given, result = _value(source), _value(node)
    if node.target in _POOLED:
        return dimension if dimension < given.dim() - _POOLED[node.target] else None
    alone = dimension == 1 and result.dim() == 2
    if node.target is _aten.flatten.using_ints and alone and all(size == 1 for size in given.shape[2:]):
        return 1
    if node.target is _aten.mean.dim:
        over = [d % given.dim() for d in _argument(node, 1) or range(given.dim())]
        kept = [d for d in range(given.dim()) if d not in over]
        return kept[dimension] if len(kept) == result.dim() else None
    return None


def _argument(node: Node, position: int) -> Any:
    return node.args[position] if len(node.args) > position else None


def _is_parameter(argument: Any) -> bool:
    return isinstance(argument, Node) and argument.op == "get_attr"


def _value(node: Node) -> torch.Tensor:
    """What the node gave when the model was captured: its shape counts."""
    value: torch.Tensor = node.meta["val"]
    return value
