"""Captures a model once: torch.export's graph, its quantizable ops, and a digest of both."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.export._trace  # torch.export imports it, and 300 modules more, when it is first called
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import optimization_hint

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.batches import samples_in
from quantuner.engine.entrypoint import users_code
from quantuner.engine.functional import functional
from quantuner.engine.layout import lay_channels_last
from quantuner.engine.norms import keep_shared_apart
from quantuner.engine.operators import inputs_of, is_quantizable, operator_of, weights_of
from quantuner.engine.programs import Calling, assembled, is_flat
from quantuner.engine.projections import name_projections
from quantuner.engine.quiet import printing_nothing, quiet
from quantuner.engine.recurrent import RECURRENT, any_length
from quantuner.engine.savable import check_operators, check_program, check_structures
from quantuner.engine.shapes import Inputs, at_least_two, blaming_inputs, check_call, dynamic_shapes
from quantuner.engine.weight_norms import spell_out
from quantuner.space.capability import BY_TYPE, Op


@dataclass(frozen=True)
class Called:
    """How a model is called, which quantizing does not change."""

    example_inputs: Inputs
    dynamic_shapes: Any
    calling: Calling | None
    """As of `Captured`."""


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

    @property
    def called(self) -> Called:
        """What outlives the capture: a model that is saved later needs it, and not the fp32 weights."""
        return Called(self.example_inputs, self.dynamic_shapes, self.calling)


def capture(model: torch.nn.Module, example_inputs: Inputs, others: Iterable[Inputs] = ()) -> Captured:
    """Exports `model` in evaluation mode. Where it allows that, the batch dimension is dynamic, and so is every size in
    which `others`, inputs of further batches, differ from the example.

    Raises `SearchError` (ModelNotCapturable, NothingToQuantize).
    """
    fixed = copy.deepcopy(model).eval()
    graph, called = graph_of(fixed, example_inputs, others)
    ops = _ops(graph, samples_in(called.example_inputs))
    if not ops:
        raise SearchError(Failure.NOTHING_TO_QUANTIZE, _what_is_missing(graph))
    return Captured(graph, called.example_inputs, called.dynamic_shapes, ops, digest_of(ops, fixed), called.calling)


def _what_is_missing(graph: GraphModule) -> str:
    """Why nothing of a graph can be quantized: the type or the making of its weights, where it has ops at all."""
    nodes = [(type_, node, weights_of(node) or (node,)) for _, type_, node in op_nodes(graph.graph)]
    values = [value for _, _, weights in nodes for weight in weights if (value := _value(weight)) is not None]
    others = sorted({str(value.dtype) for value in values} - {"torch.float32"})
    if others:
        return (
            f"the ops of the model compute in {' and '.join(others)}, and only what is in float32 is quantized; give "
            "model.float(), and inputs in float32"
        )
    computed = sorted({type_ for type_, _, weights in nodes if any(one.op == "call_function" for one in weights)})
    if computed:
        return (
            f"the weights of the model's ops ({', '.join(computed)}) are computed, as parametrizations do, and only "
            "weights that are parameters are quantized; store what is computed, as "
            'torch.nn.utils.parametrize.remove_parametrizations(module, "weight") does'
        )
    return (
        f"the captured model has none of the quantizable ops {', '.join(BY_TYPE)} whose weight is a parameter; "
        "give a model that has some"
    )


def graph_of(model: torch.nn.Module, example_inputs: Inputs, others: Iterable[Inputs]) -> tuple[GraphModule, Called]:
    """The model's graph, as it is quantized, and how it is called. Takes and raises what `capture` does.

    Graph and model share their tensors; those of `model`, which is in evaluation mode, may be laid out anew.
    """
    check_call(model, example_inputs)
    example_inputs = at_least_two(model, example_inputs)
    shapes = dynamic_shapes(example_inputs, others)
    exporting = users_code(Failure.MODEL_NOT_CAPTURABLE, "torch.export of the model")
    silent = printing_nothing(torch.export._trace)  # of a model that it refuses it prints the graph, twice
    with exporting, blaming_inputs(model, example_inputs), quiet(), silent, any_length(), torch.no_grad():
        program = torch.export.export(model, example_inputs, dynamic_shapes=shapes)
        check_structures(program)
        graph, calling = functional(program)
        spell_out(graph)
    check_operators(graph)
    graph.graph.eliminate_dead_code()  # quantizers trip over nodes without users
    keep_shared_apart(graph)
    lay_channels_last(graph)
    name_projections(graph, model)
    _name_apart(graph, model)
    with quiet(), torch.no_grad():
        check_program(program if calling is None or not is_flat(graph) else assembled(graph, calling))
    return graph, Called(example_inputs, shapes, calling)


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
    path, is_module = _caller(node, type_)
    return path if is_module else f"{path}.{node.name}".lstrip(".")


def _caller(node: Node, type_: str) -> tuple[str, bool]:
    """The path of the innermost module that calls an op of this type, and whether the op is named by it alone."""
    stack: Iterable[tuple[str, Any]] = node.meta.get("nn_module_stack", {}).values()
    path, class_ = [*stack][-1] if node.meta.get("nn_module_stack") else ("", "")
    called = class_ if isinstance(class_, str) else getattr(class_, "__name__", "")
    return path, called.rsplit(".", 1)[-1] == type_ and bool(path)


def _name_apart(graph: GraphModule, model: torch.nn.Module) -> None:
    """Names functional calls anew whose name is that of a module, or of an op with another weight.

    Two ops of one name would share their ranges and their rounded weights. The name is put on the call's module stack.
    """
    named = [*op_nodes(graph.graph)]
    of_modules = {name for name, type_, node in named if _caller(node, type_)[1]}
    of_modules.update(path for path, _ in model.named_modules(remove_duplicate=False))
    taken = of_modules | {name for name, _, _ in named}
    for name, type_, node in named:
        if name in of_modules and not _caller(node, type_)[1]:
            free = next(other for i in itertools.count(1) if (other := f"{name}_{i}") not in taken)
            taken.add(free)
            stack = node.meta.get("nn_module_stack") or {}
            node.meta["nn_module_stack"] = {**stack, f"name {free}": (free, f"torch.nn.{type_}")}


def _ops(graph: GraphModule, samples: int) -> tuple[Op, ...]:
    ops: dict[str, Op] = {}
    for name, type_, node in quantizable_nodes(graph.graph):
        weights = [value for weight in weights_of(node) if (value := _value(weight)) is not None]
        before = ops.get(name, Op(name, type_, sum(weight.numel() for weight in weights)))
        ops[name] = replace(before, flops=before.flops + _flops(type_, node, weights, samples) // samples)
    return tuple(ops.values())


def _value(node: Node | None) -> torch.Tensor | None:
    """What the capture knows of a node's value: its shape and type."""
    return None if node is None else node.meta.get("val")


def _flops(type_: str, node: Node, weights: Sequence[torch.Tensor], samples: int) -> int:
    """Of one call: a multiplication and an addition per weight and position of the output, or of the input where the
    convolution is transposed; per weight and step where it is recurrent. An embedding has none.

    Of an op that data are routed to, as if all `samples` of the example came its way.
    """
    output, first = _value(node), _value(next(iter(inputs_of(node)), None))
    if first is not None and node.target in RECURRENT:
        steps = _elements(first, samples) // _known_size(first.shape[-1], samples)
        return 2 * steps * sum(weight.numel() for weight in weights)
    if output is None or first is None:
        return 0
    if type_ == "MatMul":
        return 2 * _elements(output, samples) * _known_size(first.shape[-1], samples)
    if not weights:
        return 0
    (weight,) = weights
    channels = weight.shape[0]  # the output has as many, or the input of a transposed one, whatever their dimension
    return 2 * _elements(first if type_.startswith("ConvTranspose") else output, samples) // channels * weight.numel()


def _elements(value: torch.Tensor, samples: int) -> int:
    return math.prod(_known_size(size, samples) for size in value.shape)


def _known_size(size: Any, samples: int) -> int:
    """A size in the capture's example; asking a dynamic one for its value would fix it.

    How many rows data decide to route somewhere (`x[mask]`, `nonzero`) no example says: they count as its `samples`.
    """
    return optimization_hint(size, fallback=samples)


def digest_of(ops: tuple[Op, ...], model: torch.nn.Module) -> str:
    """16 hex digits: ops, names, shapes and bytes of all parameters and buffers, also of those in no state dict."""
    sha = hashlib.sha256(repr(ops).encode())
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(dict(tensors).items()):
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            if tensor.dim()
            else repr(tensor.item()).encode()
        )
    return sha.hexdigest()[:16]
