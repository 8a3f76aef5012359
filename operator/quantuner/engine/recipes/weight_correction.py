"""Weight correction: gives each channel of a quantized weight the mean and deviation of the fp32 one.

Source: Banner et al. 2019 (arXiv:1810.05723), section 4, equations 16 and 17; with the guard of Neural Compressor 2.x.
"""

from __future__ import annotations

import copy

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.capture import op_nodes
from quantuner.engine.graphs import attribute, constant
from quantuner.engine.recipes.scheduler import Batches

GUARD = 1e-5  # added to a deviation that is divided by
PER_CHANNEL = torch.ops.quantized_decomposed.dequantize_per_channel.default


class WeightCorrection:
    """Rounds r·w + u anew with the scales there are, r the ratio of deviations and u the difference of means."""

    def __call__(self, origin_model: GraphModule, q_model: GraphModule, batches: Batches) -> GraphModule:
        exact = {
            name: attribute(origin_model, str(node.args[1].target))
            for name, _, node in op_nodes(origin_model.graph)
            if isinstance(node.args[1], Node) and node.args[1].op == "get_attr"
        }
        model = copy.deepcopy(q_model)
        done: set[Node] = set()
        for name, _, node in op_nodes(model.graph):
            weight = node.args[1]
            if isinstance(weight, Node) and weight.op == "call_function" and weight not in done and name in exact:
                done.add(weight)
                _correct(model, weight, exact[name])
        model.recompile()
        return model


def _correct(model: GraphModule, dequantize: Node, exact: torch.Tensor) -> None:
    stored, scale, zero, *bounds = dequantize.args
    if not isinstance(stored, Node):
        raise TypeError(f"{dequantize} has no stored weight")
    scales = _broadcast(model, scale, exact)
    zeros = _broadcast(model, zero, exact)
    low, high = bounds[1:3] if dequantize.target is PER_CHANNEL else bounds[:2]
    quantized = attribute(model, str(stored.target))
    corrected = matched(exact, (quantized.float() - zeros) * scales)
    again = (corrected / scales).round().add(zeros).clamp(float(low), float(high)).to(quantized.dtype)  # type: ignore[arg-type]
    dequantize.update_arg(0, constant(model, "_corrected_weight", again, dequantize))


def _broadcast(model: GraphModule, value: object, exact: torch.Tensor) -> torch.Tensor:
    """A scale or zero point per output channel, or one for all, shaped as the weight."""
    tensor = attribute(model, str(value.target)) if isinstance(value, Node) else torch.tensor(value)
    return tensor.float().view(-1, *[1] * (exact.dim() - 1)) if tensor.dim() else tensor.float()


def matched(exact: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """r·w + u per output channel, from `(out, …)` weights; a channel of one element stays as it is."""
    w, q = exact.flatten(1), quantized.flatten(1)
    if w.shape[1] < 2:
        return exact
    ratio = w.std(1, keepdim=True) / (q.std(1, keepdim=True) + GUARD)
    shift = w.mean(1, keepdim=True) - (ratio * q).mean(1, keepdim=True)
    return (ratio * w + shift).view_as(exact)
