"""Fast bias correction: takes the mean error that quantization adds to an op's output out of its bias.

Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.2 with the empirical means of appendix D: b' = b + E[y] - E[ỹ].
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.capture import op_nodes
from quantuner.engine.graphs import (
    attribute,
    constant,
    folded,
    is_dequantize,
    limited,
    over_channels,
    path_of,
    per_channel,
    run_together,
)
from quantuner.engine.operators import inputs_of, weight_of
from quantuner.engine.recipes.scheduler import Batches

SAMPLES = 64  # calibration samples that means are taken over
BIAS = 2  # position among the arguments of a convolution or a linear


class FastBiasCorrection:
    """Corrects the quantized ops in the order of the model, each with the corrections before it in effect."""

    def __call__(self, origin_model: GraphModule, q_model: GraphModule, batches: Batches) -> GraphModule:
        inputs = list(limited(batches(), SAMPLES))
        wanted = _means(folded(origin_model), inputs)
        model = copy.deepcopy(q_model)
        ops = {node: op for node, op in _with_bias(model).items() if is_dequantize(weight_of(node))}
        shifts: dict[Node, torch.Tensor] = {}

        def correct(node: Node, values: Sequence[Any]) -> Sequence[Any]:
            if node not in ops:
                return values
            name, type_ = ops[node]
            expected, found = wanted[name].pop(0), _mean(values, type_)
            if expected is None or found is None:
                return values
            shifts[node] = expected - found
            return [value + per_channel(shifts[node], value, type_) for value in values]

        run_together(model, inputs, correct)
        for node, shift in shifts.items():
            _add_to_bias(model, node, shift)
        model.recompile()
        return model


def _with_bias(model: GraphModule) -> dict[Node, tuple[str, str]]:
    """Calls that can have a bias to their op's name and type: those with a weight that multiplies an input."""
    return {node: (name, type_) for name, type_, node in op_nodes(model.graph) if inputs_of(node) and weight_of(node)}


def _means(model: GraphModule, inputs: Sequence[tuple[Any, ...]]) -> dict[str, list[torch.Tensor | None]]:
    """Op name to the mean output per channel `(C,)` of each of its calls; None where no row was routed to it."""
    ops = _with_bias(model)
    found: dict[str, list[torch.Tensor | None]] = {}

    def see(node: Node, values: Sequence[Any]) -> Sequence[Any]:
        if node in ops:
            name, type_ = ops[node]
            found.setdefault(name, []).append(_mean(values, type_))
        return values

    run_together(model, inputs, see)
    return found


def _mean(values: Sequence[torch.Tensor], type_: str) -> torch.Tensor | None:
    seen = torch.cat([over_channels(value, type_) for value in values])
    return seen.mean(0) if len(seen) else None


def _add_to_bias(model: GraphModule, node: Node, shift: torch.Tensor) -> None:
    bias = node.args[BIAS] if len(node.args) > BIAS else None
    stored = isinstance(bias, Node) and bias.op == "get_attr"
    corrected = constant(model, "_corrected_bias", shift + attribute(model, path_of(bias)) if stored else shift, node)
    if isinstance(bias, Node) and not stored:  # it is computed
        with model.graph.inserting_before(node):
            corrected = model.graph.call_function(torch.ops.aten.add.Tensor, (bias, corrected))
    node.args = (*node.args[:BIAS], corrected, *node.args[BIAS + 1 :])
