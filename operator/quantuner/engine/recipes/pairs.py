"""Dedicated pairs: every op's input is quantized and dequantized for that op alone.

Converting shares a pair among ops that read one value on one grid. Backends that fuse an op with the pair before it
want one each. Source: recipe dedicated_qdq_pair of Neural Compressor 2.x, there for ONNX.
"""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node


def dedicate(model: GraphModule) -> None:
    """Gives each reader of a rounded value a pair of its own; all pairs of a value have the same grid."""
    taken: set[Node] = set()
    for node in list(model.graph.nodes):
        for dequantize in [argument for argument in node.all_input_nodes if _is_of_activation(argument)]:
            quantize: Any = dequantize.args[0]
            if quantize not in taken:
                taken.add(quantize)
                continue
            with model.graph.inserting_before(node):
                again = model.graph.node_copy(quantize, lambda argument: argument)
                own = model.graph.node_copy(dequantize, lambda argument: argument)
            own.update_arg(0, again)
            node.replace_input_with(dequantize, own)
    model.graph.eliminate_dead_code()
    model.recompile()


def _is_of_activation(node: Node) -> bool:
    """Whether it dequantizes what a node quantizes; a weight is stored quantized."""
    source = node.args[0] if node.args else None
    return _named(node, "dequantize_per_") and isinstance(source, Node) and _named(source, "quantize_per_")


def _named(node: Node, beginning: str) -> bool:
    name = getattr(node.target, "_opname", "")
    return node.op == "call_function" and bool(name.startswith(beginning))
