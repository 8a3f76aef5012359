"""Exported programs of converted graphs, without tracing them again.

torch.export would run every operator on fake tensors of symbolic sizes once more, at the price of a dozen trials:
yet converting adds a few nodes, and what the model takes and returns stays what it was when it was captured.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch._export.verifier import TrainingIRVerifier
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export import ExportedProgram, ModuleCallEntry
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from quantuner.engine.graphs import attribute, path_of

_Spec = TypeVar("_Spec", InputSpec, OutputSpec)
_FOLDER = re.compile(r'File "[^"]*[/\\]')
_GENERATED = re.compile(r"<eval_with_key>\.\d+")
"""Code that torch made, and how much of it this process had made before."""


@dataclass(frozen=True)
class Calling:
    """How a captured program is called."""

    inputs: tuple[InputSpec, ...]
    """The user's, flat; those of tensors that the model holds are left out."""
    outputs: tuple[OutputSpec, ...]
    sizes: Any
    """Symbol of a size to the values that it may have."""
    entry: ModuleCallEntry
    """The structures that inputs and outputs come in."""


def calling_of(program: ExportedProgram) -> Calling | None:
    """None where the program returns more than the user asks for, as a buffer that it changed."""
    signature = program.graph_signature
    inputs = tuple(spec for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT)
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in signature.output_specs):
        return None
    return Calling(inputs, tuple(signature.output_specs), program.range_constraints, program.module_call_graph[0])


def is_flat(model: GraphModule) -> bool:
    """Whether the graph is whole: it calls no graph of the model's besides the guards, which nobody reads."""
    return all(
        isinstance(attribute(model, path_of(node)), torch.Tensor) if node.op == "get_attr" else not node.users
        for node in model.graph.nodes
        if node.op in ("get_attr", "call_module")
    )


def assembled(model: GraphModule, calling: Calling) -> ExportedProgram:
    """A program that computes what `model` does and is called as `calling` says. The model is left as it is.

    Raises torch's `SpecViolationError` where that is no valid program.
    """
    graph = Graph()
    output = graph.output(graph.graph_copy(model.graph, {}))
    given = _given_first(graph)
    held, state = _lift(model, graph)
    _describe_new(graph)
    returned = tree_leaves(output.args)
    output.args = (tuple(returned),)
    inputs = [_renamed(spec, node) for spec, node in zip(calling.inputs, given, strict=True)]
    outputs = [_renamed(spec, node) for spec, node in zip(calling.outputs, returned, strict=True)]
    return ExportedProgram(
        torch.nn.Module(),
        graph,
        ExportGraphSignature([*held, *inputs], outputs),
        state,
        dict(calling.sizes),
        [_entry(calling.entry, inputs, outputs)],
        verifiers=[TrainingIRVerifier],
    )


def forget_this_machine(program: ExportedProgram) -> None:
    """Takes from the program's metadata the folders of source files and torch's ids of graphs in memory.

    So the same model is saved as the same bytes, wherever, and does not tell whose home folder it was made in. Messages
    of assertions lose the marks that no saved program may have in a text.
    """
    graphs = [one.graph for one in program.graph_module.modules() if isinstance(one, GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):  # a conditional has graphs of its own
        node.meta.pop("from_node", None)
        if trace := node.meta.get("stack_trace"):
            node.meta["stack_trace"] = _GENERATED.sub("<eval_with_key>", _FOLDER.sub('File "', trace))
        if "_assert_" in str(node.target):
            node.args = tuple(_quotable(value) if isinstance(value, str) else value for value in node.args)


def _quotable(message: str) -> str:
    plain = message.replace('"', "'").replace("\\", "/").replace("'''", "'")
    return "".join(mark if mark.isprintable() else " " for mark in plain)


def _given_first(graph: Graph) -> list[Node]:
    """Puts what the user gives before all else, and takes the guards out, which a program makes anew."""
    given = [node for node in graph.nodes if node.op == "placeholder"]
    for node in reversed(given):
        next(iter(graph.nodes)).prepend(node)
    for node in [node for node in graph.nodes if node.op == "call_module"]:
        graph.erase_node(node)
    return given


def _lift(model: GraphModule, graph: Graph) -> tuple[list[InputSpec], dict[str, torch.Tensor]]:
    """Makes the model's tensors inputs, parameters first. Returns what they are, and their values by path."""
    reads = [node for node in graph.nodes if node.op == "get_attr"]
    tensors = {path: attribute(model, path) for path in dict.fromkeys(map(path_of, reads))}
    is_parameter = {path: isinstance(tensor, torch.nn.Parameter) for path, tensor in tensors.items()}
    state = {path: tensors[path] for path in sorted(tensors, key=lambda path: not is_parameter[path])}
    fake, first = _fake_mode(graph), next(iter(graph.nodes))
    inputs, specs = {}, []
    for path, tensor in state.items():
        with graph.inserting_before(first):
            inputs[path] = graph.placeholder(f"{'p' if is_parameter[path] else 'b'}_{path.replace('.', '_')}")
        inputs[path].meta["val"] = fake.from_tensor(tensor, static_shapes=True)
        kind, persistent = (InputKind.PARAMETER, None) if is_parameter[path] else (InputKind.BUFFER, True)
        specs.append(InputSpec(kind, TensorArgument(inputs[path].name), path, persistent))
    for node in reads:
        node.replace_all_uses_with(inputs[path_of(node)])
        graph.erase_node(node)
    return specs, state


def _fake_mode(graph: Graph) -> FakeTensorMode:
    """The one in which the model was captured: sizes that two operators share are one symbol in it."""
    values = (node.meta.get("val") for node in graph.nodes)
    return next(value.fake_mode for value in values if isinstance(value, FakeTensor))


def _describe_new(graph: Graph) -> None:
    """Gives nodes that were not captured the shape and type of their value."""
    fake = _fake_mode(graph)
    for node in graph.nodes:
        if node.op == "call_function" and "val" not in node.meta:
            arguments, named = map_arg((node.args, node.kwargs), lambda argument: argument.meta["val"])
            with fake:
                node.meta["val"] = node.target(*arguments, **named)


def _renamed(spec: _Spec, value: Any) -> _Spec:
    """Of an input or output that another node gives; a constant has no node."""
    return replace(spec, arg=replace(spec.arg, name=value.name)) if isinstance(value, Node) else spec


def _entry(entry: ModuleCallEntry, inputs: Sequence[InputSpec], outputs: Sequence[OutputSpec]) -> ModuleCallEntry:
    if entry.signature is None:
        raise ValueError("the captured program does not say what it takes and returns")
    signature = replace(entry.signature, inputs=[one.arg for one in inputs], outputs=[one.arg for one in outputs])
    return ModuleCallEntry(entry.fqn, signature)
