"""Reading, changing and running captured graphs node by node."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeGuard

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.fx._pytree import tree_flatten_spec
from torch.utils._pytree import TreeSpec, tree_map, tree_unflatten

from quantuner.engine.batches import samples_in
from quantuner.engine.pt2e import Quantizer, prepare_pt2e
from quantuner.engine.quiet import quiet

PER_CHANNEL = torch.ops.quantized_decomposed.dequantize_per_channel.default
PER_TENSOR = torch.ops.quantized_decomposed.dequantize_per_tensor.default
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


def is_dequantize(value: Any) -> TypeGuard[Node]:
    """Whether a node's argument is an int8 weight's dequantization; one that is computed otherwise is none."""
    return isinstance(value, Node) and value.target in (PER_CHANNEL, PER_TENSOR)


def path_of(argument: Any) -> str:
    """Where the model has the tensor that a node's argument, a `get_attr` node, reads."""
    return str(argument.target)


def attribute(module: torch.nn.Module, path: str) -> torch.Tensor:
    """The tensor that a `get_attr` node names."""
    owner, _, name = path.rpartition(".")
    value: torch.Tensor = getattr(module.get_submodule(owner), name)
    return value


def replace_attribute(module: torch.nn.Module, path: str, value: torch.Tensor) -> None:
    """Puts another tensor where `attribute` finds one; a parameter stays a parameter."""
    owner, _, name = path.rpartition(".")
    old = attribute(module, path)
    is_parameter = isinstance(old, torch.nn.Parameter)
    new = torch.nn.Parameter(value.detach().clone(), old.requires_grad) if is_parameter else value.detach().clone()
    setattr(module.get_submodule(owner), name, new)


def drop_unused(model: GraphModule) -> None:
    """Takes tensors that no node reads out of the model, as the fp32 weight of an op that reads an int8 one."""
    model.graph.eliminate_dead_code()
    read = tuple(str(node.target) for node in model.graph.nodes if node.op in ("get_attr", "call_module"))
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for path, _ in tensors:
        if not any(path == name or path.startswith(f"{name}.") for name in read):
            owner, _, name = path.rpartition(".")
            delattr(model.get_submodule(owner), name)
    model.recompile()


def copied(model: GraphModule) -> GraphModule:
    """A copy with nodes of its own that reads the model's tensors: it may get others in their place, but none of them
    may be written to.
    """
    return copy.deepcopy(model, {id(tensor): tensor for tensor in _tensors(model)})


def own_tensors(model: GraphModule, of: GraphModule) -> None:
    """Replaces those that `model` still shares with `of`, whose copy it is; one that it has twice stays one."""
    shared = {id(tensor) for tensor in _tensors(of)}
    copies: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and id(tensor) in shared:
                    held[name] = copies.setdefault(id(tensor), copy.deepcopy(tensor))  # type: ignore[assignment]


def _tensors(model: GraphModule) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()


class _Nothing(Quantizer):  # type: ignore[misc]
    """Annotates nothing: what is left of preparing is that batch norms are folded."""

    def annotate(self, model: GraphModule) -> GraphModule:
        return model

    def validate(self, model: GraphModule) -> None:
        """There is nothing to check."""


def folded(model: GraphModule) -> GraphModule:
    """As `copied`, batch norms folded into the ops before them: weights and outputs as those of a quantized model."""
    with quiet(), torch.no_grad():
        result: GraphModule = prepare_pt2e(copied(model), _Nothing())
    return result


def constant(model: GraphModule, name: str, value: torch.Tensor, before: Node) -> Node:
    """A node that holds a new tensor of the model, under a name that is free."""
    free = next(f"{name}_{i}" for i in range(len(model.graph.nodes) + 1) if not hasattr(model, f"{name}_{i}"))
    model.register_buffer(free, value.detach().clone())
    with model.graph.inserting_before(before):
        return model.graph.get_attr(free)


def channel_dimension(value: torch.Tensor, type_: str) -> int:
    """The dimension of an op's input or output that has its channels.

    A Linear's is the last one. A convolution's stands before as many as it moves over: without a batch it is the first.
    """
    return value.dim() - 1 - (0 if type_ == "Linear" else int(type_[-2]))


def per_channel(values: torch.Tensor, like: torch.Tensor, type_: str) -> torch.Tensor:
    """`(C,)` shaped so that it broadcasts over the channels of an op's input or output."""
    return values.view(-1, *[1] * (like.dim() - 1 - channel_dimension(like, type_)))


def over_channels(value: torch.Tensor, type_: str) -> torch.Tensor:
    """An op's input or output as `(elements, C)`."""
    moved = value.movedim(channel_dimension(value, type_), -1)
    return moved.reshape(-1, moved.shape[-1])


Visit = Callable[[Node, Sequence[Any]], Sequence[Any]]
"""Takes a node and its value in every batch; returns the values to go on with."""


def structured_inputs(model: GraphModule, leaves: Sequence[Any]) -> tuple[Any, ...]:
    """What `flat_inputs` made flat."""
    inputs: tuple[Any, ...] = tree_unflatten(leaves, _structure(model))[0]
    return inputs


def flat_inputs(model: GraphModule, inputs: Sequence[Any]) -> list[Any]:
    """A value per placeholder; a dict or a tuple among the inputs has one for each of its leaves.

    Keys of a dict may come in another order than they were captured in, which the graph's own `process_inputs` takes
    for other keys. Raises `TypeError` for another number of inputs than the model takes.
    """
    structure = _structure(model)
    wanted = structure.child(0).num_children
    if len(inputs) != wanted:
        raise TypeError(f"the captured model takes {wanted} inputs by position, not {len(inputs)}")
    return tree_flatten_spec((tuple(inputs), {}), structure)


def flat_count(model: GraphModule) -> int | None:
    """How many inputs the model takes; None where one of them has parts, as a dict has."""
    given = _structure(model).child(0)
    return given.num_children if all(part.is_leaf() for part in given.children()) else None


def _structure(model: GraphModule) -> TreeSpec:
    """Of (positional inputs, named ones)."""
    structure: TreeSpec = model.graph._codegen.pytree_info.in_spec  # type: ignore[attr-defined]
    return structure


def run_together(model: GraphModule, batches: Iterable[tuple[Any, ...]], visit: Visit) -> None:
    """Runs all batches through the model node by node, so that a node is seen with all its values at once.

    Values that no later node needs are dropped.
    """
    inputs = list(batches)
    runs = [Interpreter(model, garbage_collect_values=False) for _ in inputs]
    for run, batch in zip(runs, inputs, strict=True):
        run.args_iter = iter(flat_inputs(model, batch))
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
    """Batches until `samples` samples are reached; the last one is cut, so that it holds no more.

    Tensors inside dicts and tuples are cut, too; one with another first dimension holds no samples.
    """
    for inputs in batches:
        count = samples_in(inputs)
        if count >= samples:
            yield tree_map(partial(_cut, count=count, samples=samples), inputs)
            return
        yield inputs
        samples -= count


def _cut(value: Any, *, count: int, samples: int) -> Any:
    return value[:samples] if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == count else value
