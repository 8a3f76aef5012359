"""A captured graph as steps that can be run in part."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantuner.engine.graphs import attribute, flat_inputs

Values = dict[Node, Any]
"""Nodes' values for one batch."""
Step = Callable[[Values], Any]
"""Computes a node's value from those of its arguments."""
_aten = torch.ops.aten
_MAKES_NEW = (_aten.conv2d.default, _aten.linear.default, _aten.add.Tensor)
"""Operators whose output shares memory with nothing, as what takes their place in a trial."""


def may_be_written_over(value: torch.Tensor) -> bool:
    """Whether a result that takes a value's place has the strides that it would have in memory of its own.

    The stride of a size of 1 is open: operators that make a new tensor choose it, and a convolution its layout by it.
    """
    return 1 not in value.shape


class Program:
    """The nodes of a graph in order, and how each is computed."""

    def __init__(self, model: GraphModule) -> None:
        self.model = model
        self.order: tuple[Node, ...] = tuple(model.graph.nodes)
        self.inputs = tuple(node for node in self.order if node.op == "placeholder")
        self.result = model.graph.output_node()
        self.guards = tuple(node for node in self.order if node.op == "call_module" and not node.users)
        """What torch.export assumed of inputs, as a batch size that it fixed; each raises where that does not hold."""
        self.steps: dict[Node, Step] = {
            node: _step(model, node) for node in self.order if node.op not in ("placeholder", "output")
        }

    def overwriting(self, kept: Container[Node]) -> dict[Node, Step]:
        """Steps of additions and ReLUs that write over an argument which nothing else reads, none of `kept`: what a
        processor has in its caches need not be written to other memory.
        """
        found: dict[Node, Step] = {}
        for node in self.order:
            free = [
                one
                for one in node.all_input_nodes
                if len(one.users) == 1 and one.target in _MAKES_NEW and one not in kept
            ]
            if free and node.target is _aten.relu.default:
                found[node] = _rectify(free[0])
            elif free and node.target is _aten.add.Tensor and len(node.all_input_nodes) == 2 and not node.kwargs:
                found[node] = _add(free[0], self.steps[node], node.all_input_nodes)
        return found

    def check(self, values: Values) -> None:
        """Raises what a guard raises for the inputs in `values`."""
        for node in self.guards:
            self.steps[node](values)

    def bind(self, inputs: Sequence[Any]) -> Values:
        """The placeholders' values: a dict or a tuple among the inputs has one for each of its leaves."""
        return dict(zip(self.inputs, flat_inputs(self.model, inputs), strict=True))

    def output(self, values: Values) -> Any:
        """What the model returns, once the result's arguments are known."""
        return self.model.graph.process_outputs(map_arg(self.result.args[0], values.__getitem__))

    def needed(self, known: Container[Node]) -> list[Node]:
        """Nodes to be computed for the result, in order, where the values of `known` are there."""
        wanted: set[Node] = set()
        stack = [self.result]
        while stack:
            for node in stack.pop().all_input_nodes:
                if node not in wanted and node not in known:
                    wanted.add(node)
                    stack.append(node)
        return [node for node in self.order if node in wanted]

    def above(self, node: Node, names: Iterable[str], named: dict[Node, str]) -> tuple[str, ...]:
        """Those of `names` on which a node's value depends, itself included, in the order of `names`."""
        seen: set[Node] = {node}
        stack = [node]
        while stack:
            for argument in stack.pop().all_input_nodes:
                if argument not in seen:
                    seen.add(argument)
                    stack.append(argument)
        met = {named[one] for one in seen if one in named}
        return tuple(name for name in names if name in met)


def _step(model: GraphModule, node: Node) -> Step:
    if node.op == "get_attr":
        value = attribute(model, str(node.target))  # not detached: matmul goes another way for what may have gradients
        return lambda _: value
    call = _callable(model, node)
    arguments, named = node.args, node.kwargs
    if not named and all(isinstance(a, (Node, int, float, bool, torch.dtype, type(None))) for a in arguments):
        return lambda values: call(*[values[a] if isinstance(a, Node) else a for a in arguments])

    def general(values: Values) -> Any:
        found = values.__getitem__
        return call(*map_arg(arguments, found), **map_arg(named, found))

    return general


def _rectify(argument: Node) -> Step:
    def rectify(values: Values) -> Any:
        value = values[argument]
        return value.relu_() if may_be_written_over(value) else value.relu()

    return rectify


def _add(free: Node, step: Step, arguments: Sequence[Node]) -> Step:
    """`step`, in place of `free` where both arguments have its shape, strides and type, as the sum then has, too."""
    (other,) = (one for one in arguments if one is not free)

    def add(values: Values) -> Any:
        ours, theirs = values[free], values[other]
        alike = ours.shape == theirs.shape and ours.stride() == theirs.stride() and ours.dtype == theirs.dtype
        return ours.add_(theirs) if alike and may_be_written_over(ours) else step(values)

    return add


def _callable(model: GraphModule, node: Node) -> Callable[..., Any]:
    if node.op == "call_module":
        return model.get_submodule(str(node.target))
    if node.op == "call_function" and callable(node.target):
        return node.target
    raise TypeError(f"a captured graph has no node of kind {node.op}: {node.format_node()}")
