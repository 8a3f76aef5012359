"""Scales that follow sums: a rounded op adds up products of whole numbers, and their scale is multiplied after.

y = (s_x s_w) · Σ (q_x - z_x) q_w + b: Jacob et al. 2018 (arXiv:1712.05877), equation 4. Up to 2^24 fp32 holds whole
numbers exactly, so that such a sum is the same in every order, in fp32 as in int8 kernels, on any processor. torchao's
converted models scale first, and the last bits of what they add up depend on all of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.capture import op_nodes
from quantuner.engine.graphs import PER_CHANNEL, PER_TENSOR, attribute, constant, is_dequantize, path_of
from quantuner.engine.operators import operator_of
from quantuner.engine.precision import CAST

EXACT = 2**24
"""The largest magnitude up to which fp32 holds every whole number: it has 24 bits."""
BIAS = 2  # position among the arguments of a convolution or a linear
PER_BATCH = torch.ops.quantized_decomposed.dequantize_per_tensor.tensor
_aten = torch.ops.aten
_GROUPS = 6  # position among a transposed convolution's
_Call = Callable[..., Node]


def sums_integers(type_: str) -> bool:
    """Whether ops of a type multiply one input with a weight and add up."""
    return type_ == "Linear" or type_.startswith("Conv")


def scale_of_sums(scale: float, weight_scale: torch.Tensor, type_: str, node: Node) -> torch.Tensor:
    """What a unit of an op's sums is worth, float32, so that it broadcasts over the op's output."""
    return along_channels(_of_channels(weight_scale, type_, node), type_) * scale


def along_channels(values: torch.Tensor, type_: str) -> torch.Tensor:
    """`(C,)`, or `()` for all channels, so that it broadcasts over the output of an op of the type."""
    return values.view(-1, *[1] * _positions(type_)) if values.dim() and _positions(type_) else values


def _of_channels(weight_scale: torch.Tensor, type_: str, node: Node) -> torch.Tensor:
    """Of a transposed convolution in groups a weight has one scale for each channel of a group."""
    if weight_scale.dim() and type_.startswith("ConvTranspose") and len(node.args) > _GROUPS:
        groups: Any = node.args[_GROUPS]
        return weight_scale.repeat(groups)
    return weight_scale


def _positions(type_: str) -> int:
    """Dimensions of the output behind its channels: a Conv2d's has two."""
    return 0 if type_ == "Linear" else int(type_[-2])


def scale_after_sums(model: GraphModule) -> GraphModule:
    """Lets the rounded ops of a converted graph add up whole numbers. Changes the graph in place."""
    integers: dict[Node, Node] = {}  # ops that share a dequantization go on sharing one
    for _, type_, node in list(op_nodes(model.graph)):
        if sums_integers(type_) and _is_rounded(node):
            _scale_after(model, type_, node, integers)
    model.graph.eliminate_dead_code()
    model.recompile()
    return model


def _is_rounded(node: Node) -> bool:
    """Whether an op's input and weight are dequantized in front of it.

    An input that the model holds (learned queries) is stored, as a weight is, but as uint8.
    """
    source: Any = node.args[0]
    is_input = isinstance(source, Node) and source.target in (PER_TENSOR, PER_BATCH) and torch.uint8 in source.args
    return is_input and is_dequantize(node.args[1])


def _is_stored(value: Any) -> bool:
    """Whether the model holds it; else it is computed when the model runs."""
    return bool(value.op == "get_attr")


def _scale_after(model: GraphModule, type_: str, node: Node, integers: dict[Node, Node]) -> None:
    given: Any = (*node.args, None)
    source, weight, bias = given[: BIAS + 1]
    scale = _scale_node(model, type_, node)
    for dequantize in (source, weight):
        if dequantize not in integers:
            integers[dequantize] = _unscaled(model, dequantize)
    node.args = (integers[source], integers[weight], *([None] if len(node.args) > BIAS else []), *node.args[BIAS + 1 :])
    readers = list(node.users)
    call: _Call = model.graph.call_function
    with model.graph.inserting_after(node):
        result = call(_aten.mul.Tensor, (node, scale))
    if bias is not None:
        with model.graph.inserting_after(result):
            shape = [-1, *[1] * _positions(type_)]
            shaped = call(_aten.view.default, (bias, shape)) if _positions(type_) else bias
        with model.graph.inserting_after(result if shaped is bias else shaped):
            result = call(_aten.add.Tensor, (result, shaped))
    for reader in readers:
        reader.replace_input_with(node, result)


def _unscaled(model: GraphModule, dequantize: Node) -> Node:
    """The same integers, less their zero point, on a grid of width 1."""
    one: Any = 1.0
    like: Any = dequantize.args[1]
    if dequantize.target is not PER_TENSOR:
        scale = attribute(model, path_of(like)) if like.op == "get_attr" else torch.ones(1, dtype=torch.float64)
        one = constant(model, "_ones", torch.ones_like(scale), dequantize)
    with model.graph.inserting_before(dequantize):
        return _on_grid(model, dequantize, one)


def _scale_node(model: GraphModule, type_: str, node: Node) -> Node:
    """A node that holds the product of both scales, in front of the op."""
    given: Any = node.args
    source, weight = given[:BIAS]
    of_weight = weight.args[1]
    weight_scale = (
        attribute(model, path_of(of_weight))
        if weight.target is PER_CHANNEL
        else torch.tensor(of_weight, dtype=torch.float32)
    )
    if source.target is PER_TENSOR:
        return constant(model, "_scale", scale_of_sums(source.args[1], weight_scale, type_, node), node)
    shaped = constant(model, "_scale", along_channels(_of_channels(weight_scale, type_, node), type_), node)
    call: _Call = model.graph.call_function
    with model.graph.inserting_before(node):
        of_batch = call(CAST, (source.args[1], torch.float32))
        return call(_aten.mul.Tensor, (shaped, of_batch))


def scale_before_sums(model: GraphModule) -> GraphModule:
    """Takes `scale_after_sums` back: compilers that make int8 kernels of a graph look for dequantized operands.

    Changes the graph in place; sums differ in their last bits. Transposed convolutions stay as they are, and so do ops
    whose input the model holds.
    """
    for _, type_, node in list(op_nodes(model.graph)):
        is_compiled = sums_integers(type_) and not type_.startswith("ConvTranspose")
        product = next(iter(node.users), None)
        if is_compiled and product is not None and _is_scaled(model, product):
            _scale_before(model, type_, node, product)
    model.graph.eliminate_dead_code()
    model.recompile()
    return model


def _is_scaled(model: GraphModule, product: Node) -> bool:
    """Whether it is the scale that `scale_after_sums` put there: a user may multiply, too."""
    given: Any = product.args
    if product.target is not _aten.mul.Tensor or not isinstance(given[1], Node):
        return False
    node, scale = given
    if len(node.users) > 1 or operator_of(node) is None or not _is_rounded(node) or any(node.args[BIAS : BIAS + 1]):
        return False
    if _is_stored(node.args[0].args[0]):  # no rounding is there to tell the input's scale
        return False
    is_stored = _is_stored(scale) or (scale.target is _aten.mul.Tensor and _stored_of(scale) is not None)
    return is_stored and all(_is_unit(model, dequantize) for dequantize in node.args[:BIAS])


def _is_unit(model: GraphModule, dequantize: Any) -> bool:
    scale = dequantize.args[1]
    if isinstance(scale, Node):
        return scale.op == "get_attr" and bool((attribute(model, path_of(scale)) == 1).all())
    return bool(scale == 1)


def _stored_of(product: Node) -> Node | None:
    """The factor that the model holds."""
    return next((one for one in product.all_input_nodes if one.op == "get_attr"), None)


def _scale_before(model: GraphModule, type_: str, node: Node, product: Node) -> None:
    given: Any = (*node.args[:BIAS], product.args[1])
    source, weight, scale = given
    integers = source.args[0]
    if source.target is PER_TENSOR:
        weight_scale = attribute(model, path_of(scale)) / integers.args[1]
    else:
        weight_scale = attribute(model, path_of(_stored_of(scale)))
    is_whole = weight.target is PER_TENSOR
    of_weight: Any = float(weight_scale) if is_whole else constant(model, "_weight_scale", weight_scale.flatten(), node)
    result, bias = _with_bias(model, type_, product)
    with model.graph.inserting_before(node):
        scaled = _on_grid(model, source, integers.args[1])
        stored = _on_grid(model, weight, of_weight)
        call: Any = node.target
        again = model.graph.call_function(call, (scaled, stored, bias, *node.args[BIAS + 1 :]))
    again.meta = dict(node.meta)
    result.replace_all_uses_with(again)


def _on_grid(model: GraphModule, dequantize: Node, scale: Any) -> Node:
    call: Any = dequantize.target
    new = model.graph.call_function(call, (dequantize.args[0], scale, *dequantize.args[2:]), dict(dequantize.kwargs))
    new.meta = dict(dequantize.meta)
    return new


def _with_bias(model: GraphModule, type_: str, product: Node) -> tuple[Node, Node | None]:
    """What an op with its bias gives, and the bias, where all that reads the scaled sums adds one as
    `scale_after_sums` does; a user's addend may lie along other dimensions.
    """
    following = next(iter(product.users))
    added: Any = following.args[-1]
    if _positions(type_) and isinstance(added, Node):
        given: Any = added.args
        ours = added.target is _aten.view.default and list(given[1])[1:] == [1] * _positions(type_)
        added = given[0] if ours else None
    is_added = len(product.users) == 1 and following.target is _aten.add.Tensor and following.args[0] is product
    if is_added and not following.kwargs and isinstance(added, Node) and added.op == "get_attr":
        sums: Any = product.args[0]
        bias, weight = (attribute(model, path_of(one)) for one in (added, sums.args[1].args[0]))
        if bias.shape == weight.shape[:1]:
            return following, added
    return product, None
