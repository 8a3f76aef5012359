"""Functional calls whose weight is a module's: attention's projections have their module's name and their own weight.

`MultiheadAttention` calls no module for its projections: it hands `in_proj_weight`, or parts of it, and the weight of
`out_proj` to functions.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.graphs import attribute, path_of
from quantuner.engine.operators import operator_of, weight_of

_aten = torch.ops.aten
_VIEWS = (
    _aten.split_with_sizes.default,
    _aten.split.Tensor,
    _aten.chunk.default,
    _aten.unbind.int,
    _aten.slice.Tensor,
    _aten.select.int,
    _aten.t.default,
    _aten.transpose.int,
    _aten.contiguous.default,
    operator.getitem,
)
"""What takes a part out of a parameter."""


def name_projections(model: GraphModule, captured: torch.nn.Module) -> None:
    """Stores parts of parameters as parameters, and puts the module that owns a weight on the call's module stack.

    Changes the graph in place; `captured` is the module that it was made of.
    """
    nodes = [node for node in model.graph.nodes if operator_of(node) and weight_of(node)]
    parts: dict[Node, Node] = {}
    names: Counter[str] = Counter()
    for node in nodes:
        for argument in node.all_input_nodes:
            if argument not in parts and (path := _path_of_whole(argument)):
                parts[argument] = _stored(model, argument, path, names[path])
                names[path] += 1
            if argument in parts:
                node.replace_input_with(argument, parts[argument])
        _push_owner(node, captured)
    model.graph.eliminate_dead_code()
    model.recompile()


def _path_of_whole(node: Node) -> str | None:
    """The parameter that a node takes a part of; None where it is no part of one."""
    part = node
    while part.op == "call_function" and part.target in _VIEWS and len(part.all_input_nodes) == 1:
        part = part.all_input_nodes[0]
    return path_of(part) if part is not node and part.op == "get_attr" else None


def _stored(model: GraphModule, part: Node, path: str, number: int) -> Node:
    """A node that reads the part as a parameter of its own: `in_proj_weight` gives `in_proj.0_weight`, and so on."""
    stem, _, kind = path.rpartition("_")
    name = f"{stem}_{number}_{kind}" if stem else f"{path}_{number}"
    owner, _, own = name.rpartition(".")
    value = _evaluated(model, part).detach().clone(memory_format=torch.contiguous_format)
    wanted = attribute(model, path).requires_grad
    model.get_submodule(owner).register_parameter(own, torch.nn.Parameter(value, requires_grad=wanted))
    first = next(iter(model.graph.nodes))
    with model.graph.inserting_before(first):
        stored = model.graph.get_attr(name)
    stored.meta = {"val": part.meta["val"]}
    return stored


def _evaluated(model: GraphModule, node: Node) -> torch.Tensor:
    if node.op == "get_attr":
        return attribute(model, path_of(node))
    arguments = [_evaluated(model, a) if isinstance(a, Node) else a for a in node.args]
    value: torch.Tensor = node.target(*arguments, **node.kwargs)  # type: ignore[operator]
    return value


def _push_owner(node: Node, captured: torch.nn.Module) -> None:
    weight, found = weight_of(node), operator_of(node)
    if weight is None or weight.op != "get_attr" or found is None:
        return
    stack = node.meta.get("nn_module_stack") or {}
    caller = [*stack.values()][-1][0] if stack else ""
    kind = getattr(torch.nn, found.type)
    path = path_of(weight)
    name = caller if _has(_submodule(captured, caller), kind, path, captured) else _owner(path, kind, captured)
    if not name and _class_of(stack) == found.type:  # a user's own class of that name may call with several weights
        name = path
    if name:
        node.meta["nn_module_stack"] = {**stack, f"weight of {name}": (name, f"torch.nn.{found.type}")}


def _has(module: torch.nn.Module | None, kind: type[torch.nn.Module], path: str, captured: torch.nn.Module) -> bool:
    """Whether the parameter at `path` is the module's weight, also where it is shared: not what an adapter adds."""
    parameters = dict(captured.named_parameters(remove_duplicate=False))
    return isinstance(module, kind) and parameters.get(path) is module.weight


def _class_of(stack: Mapping[str, tuple[str, object]]) -> str:
    """The class of the innermost module, without the name of its own module."""
    class_ = [*stack.values()][-1][1] if stack else ""
    return (class_ if isinstance(class_, str) else getattr(class_, "__name__", "")).rpartition(".")[2]


def _owner(path: str, kind: type[torch.nn.Module], captured: torch.nn.Module) -> str:
    """The module whose weight it is, or the stem of a parameter `STEM_weight`; empty where the name says neither.

    A module called STEM keeps its name for itself.
    """
    owner, _, name = path.rpartition(".")
    if name == "weight":
        return owner if isinstance(_submodule(captured, owner), kind) else ""
    stem = path.removesuffix("_weight")
    return stem if name.endswith("_weight") and _submodule(captured, stem) is None else ""


def _submodule(captured: torch.nn.Module, path: str) -> torch.nn.Module | None:
    return dict(captured.named_modules(remove_duplicate=False)).get(path)
