"""Ops that compute in bf16 or fp16 inside a graph that is fp32: operands are cast before them, outputs after.

Source: mixed precision by casts around single ops, as torch.autocast does it; Micikevicius et al. 2018
(arXiv:1710.03740). Weights are stored in the precision, in half the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.capture import op_nodes
from quantuner.engine.graphs import attribute, constant
from quantuner.space.capability import Mode
from quantuner.space.config import OpConfig

DTYPES: Mapping[Mode, torch.dtype] = {Mode.BF16: torch.bfloat16, Mode.FP16: torch.float16}
CAST = torch.ops.aten.to.dtype
"""Written into graphs, so that a saved program loads with torch alone."""


def is_cast(node: Node) -> bool:
    """Whether a node of an op's arguments is to be cast: whatever holds floating-point numbers."""
    value = node.meta.get("val")
    return value is None or (isinstance(value, torch.Tensor) and value.is_floating_point())


def cast_ops(model: GraphModule, config: Mapping[str, OpConfig]) -> None:
    """Lets the ops that `config` has in bf16 or fp16 compute so. Changes the graph in place.

    Weights stay as they are, and are cast when the model runs: `store_weights` follows once nothing trains them.
    """
    casts: dict[tuple[object, torch.dtype], Node] = {}
    for name, _, node in list(op_nodes(model.graph)):
        dtype = DTYPES.get(config[name].mode) if name in config else None
        if dtype is not None:
            _cast_operands(model, node, dtype, casts)
            _cast_output(model, node)
    model.recompile()


def _cast_operands(
    model: GraphModule, node: Node, dtype: torch.dtype, casts: dict[tuple[object, torch.dtype], Node]
) -> None:
    """`casts` are those that there are already: ops with one input, or one weight, share its cast."""
    for source in filter(is_cast, node.all_input_nodes):
        key = (source.target if source.op == "get_attr" else source, dtype)
        if key not in casts:
            with model.graph.inserting_before(node):
                casts[key] = model.graph.call_function(CAST, (source, dtype))
        node.replace_input_with(source, casts[key])


def _cast_output(model: GraphModule, node: Node) -> None:
    with model.graph.inserting_after(node):
        back = model.graph.call_function(CAST, (node, torch.float32))
    if "val" in node.meta:
        back.meta = {"val": node.meta.pop("val")}  # the op's own value is now in the other precision
    node.replace_all_uses_with(back, delete_user_cb=lambda user: user is not back)


def _is_plain_cast(node: Node) -> bool:
    """As ours are, and many of a user's; one that says more, as `copy`, is computed as it stands."""
    return node.target is CAST and len(node.args) == 2 and not node.kwargs


def store_weights(model: GraphModule) -> None:
    """Puts tensors of the model that are cast to bf16 or fp16 into it as such. Changes the graph in place."""
    for node in [node for node in model.graph.nodes if _is_plain_cast(node)]:
        source, dtype = node.args
        if source.op == "get_attr" and dtype in DTYPES.values():
            stored = constant(model, "_half", attribute(model, str(source.target)).to(dtype), node)
            node.replace_all_uses_with(stored)
            model.graph.erase_node(node)
    model.recompile()
