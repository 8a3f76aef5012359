"""Captured graphs without in-place operators, so that a node's value stays what it was when it was computed.

torchao puts the rounding of an op's input behind the node that computes it: a later write to that tensor would be lost.
"""

from __future__ import annotations

import operator
import re
from pathlib import Path

import torch
from torch.fx import GraphModule, Node

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.programs import Calling, calling_of
from quantuner.engine.quiet import quiet

_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default


def functional(program: torch.export.ExportedProgram) -> tuple[GraphModule, Calling | None]:
    """The program's module with operators alone that write to nothing, and how it is called.

    Raises `SearchError` (ModelNotCapturable) for a model that changes its own buffers or its inputs.
    """
    model = _module(program)
    if not any(map(is_mutating, model.graph.nodes)):
        return model, calling_of(program)
    line = _line_that_writes(model)
    with quiet():
        program = program.run_decompositions({})
        model = _module(program)
    for node in list(model.graph.nodes):
        if node.target is _NORM:
            _restore_norm(model, node)
        elif is_mutating(node):
            raise SearchError(
                Failure.MODEL_NOT_CAPTURABLE,
                f"the model writes to {node.args[0]}, a buffer or an input, when it is evaluated{line}: a second "
                "evaluation would differ; let forward() compute a new tensor (x = x + 1 for x += 1), return what it "
                "computes, and change nothing",
            )
    model.recompile()
    return model, calling_of(program)


def is_mutating(node: Node) -> bool:
    """Whether a node changes one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _line_that_writes(model: GraphModule) -> str:
    """Where in the user's code a buffer or an input is written to first: ` at FILE:LINE in FUNCTION`."""
    for node in filter(is_mutating, model.graph.nodes):
        target = node.args[0]
        if isinstance(target, Node) and target.op in ("get_attr", "placeholder"):
            places = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', node.meta.get("stack_trace") or "")
            if places:
                file, number, function = places[-1]
                return f" at {Path(file).name}:{number} in {function}"
    return ""


def _module(program: torch.export.ExportedProgram) -> GraphModule:
    model = program.module()
    if not isinstance(model, GraphModule):
        raise TypeError(f"torch.export gave a {type(model).__name__}, not a GraphModule")
    return model


def _restore_norm(model: GraphModule, node: Node) -> None:
    """The batch norm as it was captured, which torchao knows how to fold into the convolution before it."""
    value, weight, bias, mean, variance, momentum, epsilon = node.args
    (first,) = [user for user in node.users if user.target is operator.getitem and user.args[1] == 0]
    arguments = (value, weight, bias, mean, variance, False, momentum, epsilon, False)
    with model.graph.inserting_before(first):
        norm = model.graph.call_function(torch.ops.aten.batch_norm.default, arguments)
    norm.meta = dict(first.meta)
    first.replace_all_uses_with(norm)
    model.graph.erase_node(first)
    model.graph.erase_node(node)
