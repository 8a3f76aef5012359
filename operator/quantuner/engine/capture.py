"""Captures a model once: torch.export's graph, its quantizable ops, and a digest of both."""

import copy
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.export._trace  # torch.export imports it, and 300 modules more, when it is first called
from torch.fx import GraphModule, Node

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.entrypoint import users_code
from quantuner.engine.functional import functional
from quantuner.engine.layout import lay_channels_last
from quantuner.engine.norms import keep_shared_apart
from quantuner.engine.operators import inputs_of, is_quantizable, operator_of, weights_of
from quantuner.engine.programs import Calling
from quantuner.engine.projections import name_projections
from quantuner.engine.quiet import quiet
from quantuner.engine.recurrent import RECURRENT, any_length
from quantuner.engine.savable import check_operators, check_structures
from quantuner.engine.shapes import Inputs, at_least_two, check_call, dynamic_shapes
from quantuner.space.capability import BY_TYPE, Op


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
    calling: Calling | None = None
    """What a program of the graph takes and returns; None where the graph must be traced again to know."""


def capture(model: torch.nn.Module, example_inputs: Inputs, others: Iterable[Inputs] = ()) -> Captured:
    """Exports `model` in evaluation mode. Where it allows that, the batch dimension is dynamic, and so is every size in
    which `others`, inputs of further batches, differ from the example.

    Raises `SearchError` (ModelNotCapturable, NothingToQuantize).
    """
    fixed = copy.deepcopy(model).eval()
    check_call(fixed, example_inputs)
    example_inputs = at_least_two(fixed, example_inputs)
    shapes = dynamic_shapes(example_inputs, others)
    exporting = users_code(Failure.MODEL_NOT_CAPTURABLE, "torch.export of the model")
    with exporting, quiet(), any_length(), torch.no_grad():
        program = torch.export.export(fixed, example_inputs, dynamic_shapes=shapes)
        check_structures(program)
        graph, calling = functional(program)
    check_operators(graph.graph)
    graph.graph.eliminate_dead_code()  # quantizers trip over nodes without users
    keep_shared_apart(graph)
    lay_channels_last(graph)
    name_projections(graph, fixed)
    ops = _ops(graph, _samples(example_inputs))
    if not ops:
        raise SearchError(
            Failure.NOTHING_TO_QUANTIZE,
            f"the captured model has none of the quantizable ops {', '.join(BY_TYPE)} whose weight is a parameter; "
            "give a model that has some",
        )
    return Captured(graph, example_inputs, shapes, ops, digest_of(ops, fixed), calling)


def quantizable_nodes(graph: torch.fx.Graph) -> Iterator[tuple[str, str, Node]]:
    """(op name, op type, node). A module that is called twice gives two nodes of one name."""
    for name, type_, node in op_nodes(graph):
        if is_quantizable(node):
            yield name, type_, node


def op_nodes(graph: torch.fx.Graph) -> Iterator[tuple[str, str, Node]]:
    """As `quantizable_nodes`, wherever the weight comes from: also in a graph that is quantized already."""
    for node in graph.nodes:
        operator = operator_of(node)
        if operator is not None:
            yield _name(node, operator.type), operator.type, node


def _name(node: Node, type_: str) -> str:
    """The user's module path; a functional call is named by its enclosing module and its node."""
    stack: Iterable[tuple[str, Any]] = node.meta.get("nn_module_stack", {}).values()
    path, class_ = [*stack][-1] if node.meta.get("nn_module_stack") else ("", "")
    called = class_ if isinstance(class_, str) else getattr(class_, "__name__", "")
    if called.rsplit(".", 1)[-1] == type_ and path:
        return path
    return f"{path}.{node.name}".lstrip(".")


def _samples(inputs: tuple[Any, ...]) -> int:
    tensors = (v for v in torch.utils._pytree.tree_leaves(inputs) if isinstance(v, torch.Tensor) and v.dim())
    return next((int(v.shape[0]) for v in tensors), 1)


def _ops(graph: GraphModule, samples: int) -> tuple[Op, ...]:
    ops: dict[str, Op] = {}
    for name, type_, node in quantizable_nodes(graph.graph):
        weights = [value for weight in weights_of(node) if (value := _value(weight)) is not None]
        before = ops.get(name, Op(name, type_, sum(weight.numel() for weight in weights)))
        ops[name] = replace(before, flops=before.flops + _flops(type_, node, weights) // samples)
    return tuple(ops.values())


def _value(node: Node | None) -> torch.Tensor | None:
    """What the capture knows of a node's value: its shape and type."""
    return None if node is None else node.meta.get("val")


def _flops(type_: str, node: Node, weights: Sequence[torch.Tensor]) -> int:
    """Of one call: a multiplication and an addition per weight and position of the output, or of the input where the
    convolution is transposed; per weight and step where it is recurrent. An embedding has none.
    """
    output, first = _value(node), _value(next(iter(inputs_of(node)), None))
    if first is not None and node.target in RECURRENT:
        return 2 * _elements(first) // _known_size(first.shape[-1]) * sum(weight.numel() for weight in weights)
    if output is None or first is None:
        return 0
    if type_ == "MatMul":
        return 2 * _elements(output) * _known_size(first.shape[-1])
    if not weights:
        return 0
    (weight,) = weights
    channels = weight.shape[0]  # the output has as many, or the input of a transposed one, whatever their dimension
    return 2 * _elements(first if type_.startswith("ConvTranspose") else output) // channels * weight.numel()


def _elements(value: torch.Tensor) -> int:
    return math.prod(_known_size(size) for size in value.shape)


def _known_size(size: Any) -> int:
    """A size in the capture's example; asking a dynamic one for its value would fix it."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def digest_of(ops: tuple[Op, ...], model: torch.nn.Module) -> str:
    """16 hex digits: ops, names, shapes and bytes of all parameters and buffers."""
    sha = hashlib.sha256(repr(ops).encode())
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            if tensor.dim()
            else repr(tensor.item()).encode()
        )
    return sha.hexdigest()[:16]
