"""Recurrent modules: each is one operator of the captured graph, with all of its layers and directions.

Its matrices (of the input, of the state, of an LSTM's projection) are stored in int8, a scale a row, and its input is
rounded to a range of each batch. The state stays in fp32: it never leaves the operator's loop over time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

_aten = torch.ops.aten
RECURRENT: Mapping[Any, str] = {
    _aten.lstm.input: "LSTM",
    _aten.gru.input: "GRU",
    _aten.rnn_tanh.input: "RNN",
    _aten.rnn_relu.input: "RNN",
}
"""Operator to op type. The overloads for packed sequences are none: their lengths are data, which no export takes."""


def matrices(node: Node) -> tuple[Node, ...]:
    """The weights of a recurrent call, in its order: biases are left out."""
    _, _, parameters, _, layers, _, _, bidirectional, _ = node.args
    each = len(parameters) // (layers * (2 if bidirectional else 1))  # type: ignore[arg-type, operator]
    projected = each in (3, 5)  # an LSTM's projection follows two matrices and, where there are any, two biases
    kept = {0, 1, each - 1} if projected else {0, 1}
    return tuple(p for i, p in enumerate(parameters) if i % each in kept)  # type: ignore[arg-type]


@contextlib.contextmanager
def any_length() -> Iterator[None]:
    """Lets torch.export capture recurrent operators without walking through the sequence.

    torch.export finds out what an operator returns by running its decomposition, a loop over time: that fixes the
    length, and takes long. For the block's duration the shapes alone are computed; the captured operator is the same.
    """
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    before = {operator: operator.py_kernels[key] for operator in RECURRENT if key in operator.py_kernels}
    try:
        _use(key, dict.fromkeys(before, _shapes))
        yield
    finally:
        _use(key, before)


def _use(key: Any, kernels: Mapping[Any, Any]) -> None:
    """An operator keeps what it has found for other keys, too: whoever compiled it later would get empty tensors."""
    for operator, kernel in kernels.items():
        operator.py_kernels[key] = kernel
        operator._dispatch_cache.clear()


def _shapes(x: torch.Tensor, states: torch.Tensor | Sequence[torch.Tensor], *options: Any) -> tuple[torch.Tensor, ...]:
    """What a recurrent operator returns, empty: the outputs of all steps, and the states after the last."""
    *_, bidirectional, _ = options
    each = [states] if isinstance(states, torch.Tensor) else [*states]
    width = each[0].shape[-1] * (2 if bidirectional else 1)
    return (x.new_empty(x.shape[0], x.shape[1], width), *[torch.empty_like(state) for state in each])
