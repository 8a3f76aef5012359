"""Reading, changing and running captured graphs node by node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node


def attribute(module: torch.nn.Module, path: str) -> torch.Tensor:
    """The tensor that a `get_attr` node names."""
    owner, _, name = path.rpartition(".")
    value: torch.Tensor = getattr(module.get_submodule(owner), name)
    return value


def constant(model: GraphModule, name: str, value: torch.Tensor, before: Node) -> Node:
    """A node that holds a new tensor of the model, under a name that is free."""
    free = next(f"{name}_{i}" for i in range(len(model.graph.nodes) + 1) if not hasattr(model, f"{name}_{i}"))
    model.register_buffer(free, value.detach().clone())
    with model.graph.inserting_before(before):
        return model.graph.get_attr(free)


def channels_last(type_: str) -> bool:
    """Whether an op's channels are its input's and output's last dimension; a convolution's are dimension 1."""
    return type_ == "Linear"


def per_channel(values: torch.Tensor, like: torch.Tensor, type_: str) -> torch.Tensor:
    """`(C,)` shaped so that it broadcasts over the channels of an op's input or output."""
    if channels_last(type_):
        return values
    return values.view(-1, *[1] * (like.dim() - 2))


def over_channels(value: torch.Tensor, type_: str) -> torch.Tensor:
    """An op's input or output as `(elements, C)`."""
    moved = value if channels_last(type_) else value.movedim(1, -1)
    return moved.reshape(-1, moved.shape[-1])


Visit = Callable[[Node, Sequence[Any]], Sequence[Any]]
"""Takes a node and its value in every batch; returns the values to go on with."""


def run_together(model: GraphModule, batches: Iterable[tuple[Any, ...]], visit: Visit) -> None:
    """Runs all batches through the model node by node, so that a node is seen with all its values at once.

    Values that no later node needs are dropped.
    """
    inputs = list(batches)
    runs = [Interpreter(model, garbage_collect_values=False) for _ in inputs]
    for run, batch in zip(runs, inputs, strict=True):
        run.args_iter = iter(batch)
    last_use = {argument: node for node in model.graph.nodes for argument in node.all_input_nodes}
    with torch.no_grad():
        for node in model.graph.nodes:
            if node.op == "output":
                return
            values = visit(node, [run.run_node(node) for run in runs])
            for run, value in zip(runs, values, strict=True):
                run.env[node] = value
                for argument in node.all_input_nodes:
                    if last_use[argument] is node:
                        run.env.pop(argument, None)


def limited(batches: Iterable[tuple[Any, ...]], samples: int) -> Iterator[tuple[Any, ...]]:
    """Batches until `samples` samples are reached; the last one is cut, so that it holds no more."""
    for inputs in batches:
        tensors = [v for v in inputs if isinstance(v, torch.Tensor) and v.dim()]
        count = tensors[0].shape[0] if tensors else 1
        if count >= samples:
            yield tuple(v[:samples] if isinstance(v, torch.Tensor) and v.dim() else v for v in inputs)
            return
        yield inputs
        samples -= count
