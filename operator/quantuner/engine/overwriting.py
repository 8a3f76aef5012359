"""Inductor's additions in place, kept from memory that somebody reads again.

Where an op's output is added to a tensor, inductor has the op's kernel add to that tensor's memory, which saves a pass
over it. It looks for later readers of the tensor's own node alone: it also wrote to what the caller gave and to what
the model holds, which the next call reads, and to what is seen through a view later. All its fusions that write in
place ask one function for later readers: of int8 Linears and Conv2ds (torch 2.13, torch/_inductor/fx_passes/
quantization.py) and of other convolutions (mkldnn_fusion.py beside it). Those of other Linears write elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch._ops import OpOverload
from torch.fx import Node

_VIEWS = (torch.ops.aten._unsafe_view.default, torch.ops.aten.reshape.default, torch.ops.aten.contiguous.default)
"""Beside those whose schema says so."""


@contextlib.contextmanager
def sparing_what_is_read() -> Iterator[None]:
    """While the block runs, models are compiled to write to intermediate results that nobody reads again, alone.

    One block at a time: it changes a function that all of the process compiles with.
    """
    from torch._inductor.fx_passes import mkldnn_fusion  # all of inductor, which only who compiles needs

    if not hasattr(mkldnn_fusion, "_get_remaining_users"):  # a build without oneDNN has no such fusion
        yield
        return
    before = mkldnn_fusion._get_remaining_users
    mkldnn_fusion._get_remaining_users = readers
    try:
        yield
    finally:
        mkldnn_fusion._get_remaining_users = before


def readers(added: Node, computed: Node) -> list[Node]:
    """Who reads the memory of `added` and is not done when `computed` begins; one of them is the addition itself.

    Somebody else always reads what the caller or the model holds. The op itself reads its input while it writes.
    """
    views = _same_memory(added)
    found = [
        user
        for view in views
        for user in view.users
        if user not in views and (user is computed or not _is_before(user, computed))
    ]
    return found + [view for view in views if view.op in ("placeholder", "get_attr")]


def _same_memory(node: Node) -> set[Node]:
    """The node, what it is a view of, and all views of that."""
    found, left = set[Node](), [node]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left.extend(_viewed(one))
            left.extend(user for user in one.users if one in _viewed(user))
    return found


def _viewed(node: Node) -> list[Node]:
    """What the node's value may lie in the memory of."""
    if node.op != "call_function":
        return []
    if not isinstance(node.target, OpOverload):  # a part of several values
        return node.all_input_nodes
    is_view = node.target in _VIEWS or any(one.alias_info is not None for one in node.target._schema.returns)
    return node.all_input_nodes if is_view else []


def _is_before(node: Node, other: Node) -> bool:
    """Whether `other` is computed of it."""
    left, seen = [other], set[Node]()
    while left:
        one = left.pop()
        if one is node:
            return True
        if one not in seen and one.op == "call_function":
            seen.add(one)
            left.extend(one.all_input_nodes)
    return False
