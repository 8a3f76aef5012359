"""Captures a model once: torch.export's graph, its quantizable ops, and a digest of both."""

import copy
import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.entrypoint import users_code
from quantuner.engine.functional import functional
from quantuner.engine.norms import keep_shared_apart
from quantuner.engine.quiet import quiet
from quantuner.engine.shapes import Inputs, at_least_two, check_call, dynamic_shapes
from quantuner.space.capability import BY_TYPE, Op

_aten = torch.ops.aten
# An op with string padding ("same") is captured as the .padding overload.
_TYPE_OF_TARGET = {
    _aten.linear.default: "Linear",
    _aten.conv1d.default: "Conv1d",
    _aten.conv1d.padding: "Conv1d",
    _aten.conv2d.default: "Conv2d",
    _aten.conv2d.padding: "Conv2d",
    _aten.conv3d.default: "Conv3d",
    _aten.conv3d.padding: "Conv3d",
}


@dataclass(frozen=True)
class Captured:
    """A model as a graph. The graph is never changed: whoever changes one copies it first."""

    graph: GraphModule
    example_inputs: Inputs
    dynamic_shapes: Any
    ops: tuple[Op, ...]
    """In the order in which the model computes them."""
    digest: str
    """16 hex digits: ops, names, shapes and bytes of all parameters and buffers."""


def capture(model: torch.nn.Module, example_inputs: Inputs, others: Iterable[Inputs] = ()) -> Captured:
    """Exports `model` in evaluation mode. Where it allows that, the batch dimension is dynamic, and so is every size in
    which `others`, inputs of further batches, differ from the example.

    Raises `SearchError` (ModelNotCapturable, NothingToQuantize).
    """
    fixed = copy.deepcopy(model).eval()
    check_call(fixed, example_inputs)
    example_inputs = at_least_two(fixed, example_inputs)
    shapes = dynamic_shapes(example_inputs, others)
    with users_code(Failure.MODEL_NOT_CAPTURABLE, "torch.export of the model"), quiet(), torch.no_grad():
        graph = functional(torch.export.export(fixed, example_inputs, dynamic_shapes=shapes))
    graph.graph.eliminate_dead_code()  # quantizers trip over nodes without users
    keep_shared_apart(graph)
    ops = _ops(graph)
    if not ops:
        raise SearchError(
            Failure.NOTHING_TO_QUANTIZE,
            f"the captured model has none of the quantizable ops {', '.join(BY_TYPE)} whose weight is a parameter; "
            "give a model that has some",
        )
    return Captured(graph, example_inputs, shapes, ops, _digest(ops, fixed))


def quantizable_nodes(graph: torch.fx.Graph) -> Iterator[tuple[str, str, Node]]:
    """(op name, op type, node). A module that is called twice gives two nodes of one name.

    An op whose weight is computed (weight normalization) is none: its weight cannot be stored as int8.
    """
    for name, type_, node in op_nodes(graph):
        if isinstance(node.args[1], Node) and node.args[1].op == "get_attr":
            yield name, type_, node


def op_nodes(graph: torch.fx.Graph) -> Iterator[tuple[str, str, Node]]:
    """As `quantizable_nodes`, wherever the weight comes from: also in a graph that is quantized already."""
    for node in graph.nodes:
        type_ = _TYPE_OF_TARGET.get(node.target) if node.op == "call_function" else None
        if type_ is not None:
            yield _name(node, type_), type_, node


def _name(node: Node, type_: str) -> str:
    """The user's module path; a functional call is named by its enclosing module and its node."""
    stack: Iterable[tuple[str, Any]] = node.meta.get("nn_module_stack", {}).values()
    path, class_ = [*stack][-1] if node.meta.get("nn_module_stack") else ("", "")
    called = class_ if isinstance(class_, str) else getattr(class_, "__name__", "")
    if called.rsplit(".", 1)[-1] == type_ and path:
        return path
    return f"{path}.{node.name}".lstrip(".")


def _ops(graph: GraphModule) -> tuple[Op, ...]:
    ops: dict[str, Op] = {}
    for name, type_, node in quantizable_nodes(graph.graph):
        weight = node.args[1].meta["val"] if isinstance(node.args[1], Node) and "val" in node.args[1].meta else None
        if weight is None:
            ops.setdefault(name, Op(name, type_))
            continue
        before = ops.get(name, Op(name, type_, weight.numel()))
        ops[name] = replace(before, flops=before.flops + _flops(node, weight))
    return tuple(ops.values())


def _flops(node: Node, weight: torch.Tensor) -> int:
    """Of one call on one sample: a multiplication and an addition per weight and output position."""
    _, *positions = node.meta["val"].shape
    channels = weight.shape[0]  # the output has as many, whatever their dimension
    return int(2 * math.prod(int(p) for p in positions) // channels * weight.numel())


def _digest(ops: tuple[Op, ...], model: torch.nn.Module) -> str:
    sha = hashlib.sha256(repr(ops).encode())
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(
            tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if tensor.dim()
            else repr(tensor.item()).encode()
        )
    return sha.hexdigest()[:16]
