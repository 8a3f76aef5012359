"""Weight correction: gives each channel of a quantized weight the mean and deviation of the fp32 one.

Source: Banner et al. 2019 (arXiv:1810.05723), section 4, equations 16 and 17.
"""

from __future__ import annotations

import copy

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.capture import op_nodes, quantizable_nodes
from quantuner.engine.graphs import PER_CHANNEL, attribute, folded, is_dequantize, path_of, replace_attribute
from quantuner.engine.operators import channel_axis, inputs_of, weight_of
from quantuner.engine.recipes.scheduler import Batches


class WeightCorrection:
    """Rounds r·w + u anew with the scales there are, r the ratio of deviations and u the difference of means."""

    def __call__(self, origin_model: GraphModule, q_model: GraphModule, batches: Batches) -> GraphModule:
        origin = folded(origin_model)
        nodes = [(name, weight_of(node)) for name, _, node in quantizable_nodes(origin.graph)]
        exact = {name: attribute(origin, path_of(weight)) for name, weight in nodes if weight is not None}
        model = copy.deepcopy(q_model)
        done: set[str] = set()
        for name, _, node in op_nodes(model.graph):
            dequantize = weight_of(node)
            if not inputs_of(node) or not is_dequantize(dequantize):
                continue  # in fp32, or an embedding, whose rows are added up by nothing
            stored = path_of(dequantize.args[0])
            if stored not in done:  # ops may share it
                done.add(stored)
                _correct(model, stored, dequantize, exact[name], channel_axis(node))
        return model


def _correct(model: GraphModule, stored: str, dequantize: Node, weight: torch.Tensor, axis: int) -> None:
    _, scale, zero, *bounds = dequantize.args
    exact = weight.movedim(axis, 0)
    scales = _broadcast(model, scale, exact)
    zeros = _broadcast(model, zero, exact)
    low, high = bounds[1:3] if dequantize.target is PER_CHANNEL else bounds[:2]
    quantized = attribute(model, stored).movedim(axis, 0)
    corrected = matched(exact, (quantized.float() - zeros) * scales)
    again = (corrected / scales).round().add(zeros).clamp(float(low), float(high)).to(quantized.dtype)  # type: ignore[arg-type]
    replace_attribute(model, stored, again.movedim(0, axis).contiguous())


def _broadcast(model: GraphModule, value: object, exact: torch.Tensor) -> torch.Tensor:
    """A scale or zero point per output channel, or one for all, shaped as the weight."""
    tensor = attribute(model, path_of(value)) if isinstance(value, Node) else exact.new_tensor(value)
    return tensor.float().view(-1, *[1] * (exact.dim() - 1)) if tensor.dim() else tensor.float()


def matched(exact: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """r·w + u per output channel, from `(out, …)` weights.

    A channel that was rounded to one value stays as it is: it has no deviation that could be scaled.
    """
    w, q = exact.flatten(1), quantized.flatten(1)
    wanted, found = (value.std(1, keepdim=True, correction=0) for value in (w, q))
    ratio = wanted / found.clamp(min=torch.finfo(found.dtype).tiny)
    shift = w.mean(1, keepdim=True) - (ratio * q).mean(1, keepdim=True)
    return torch.where(found > 0, ratio * w + shift, w).view_as(exact)
