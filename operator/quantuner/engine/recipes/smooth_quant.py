"""Smooth quant: moves outliers of activations into the weights, where quantization has a scale per channel.

Source: Xiao et al. 2022 (arXiv:2211.10438), equations 3 and 4: s_j = max|X_j|^α / max|W_j|^(1-α), Y = (X/s)(sW).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.capture import quantizable_nodes
from quantuner.engine.graphs import attribute, constant, limited, over_channels, per_channel, run_together
from quantuner.engine.recipes.scheduler import Batches

DEFAULT_ALPHA = 0.5  # Xiao et al. 2022, section 5: a sweet spot for most models
LEAST = 1e-5  # of a channel's maximum, so that a scale neither vanishes nor explodes
ALPHAS = tuple(i / 10 for i in range(11))  # that "auto" tries
SAMPLES = 32  # calibration samples that it compares them on


@dataclass(frozen=True)
class Group:
    """Ops that share an input, and so a smoothing scale."""

    source: Node
    type: str
    nodes: tuple[Node, ...]


class SmoothQuant:
    """Divides the input of ops by a scale per channel and multiplies their weights with it; the model's outputs stay.

    `alpha` is how much moves: 0 leaves activations as they are, 1 gives the weights all. "auto" takes for each group
    of ops with one input the alpha with least squared error of their int8 outputs. Convolutions with groups, and
    ops whose weight is used twice, are left as they are.
    """

    def __init__(self, alpha: float | str = DEFAULT_ALPHA) -> None:
        self.alpha = alpha
        self.key = f"smooth_quant {alpha}"

    def __call__(self, origin_model: GraphModule, q_model: GraphModule, batches: Batches) -> GraphModule:
        model = copy.deepcopy(q_model)
        groups = {group.source.name: group for group in _groups(model)}
        maxima: dict[str, torch.Tensor] = {}
        kept: dict[str, torch.Tensor] = {}

        def see(node: Node, values: Sequence[Any]) -> Sequence[Any]:
            if node.name in groups:
                flat = [over_channels(value, groups[node.name].type) for value in values]
                maxima[node.name] = torch.stack([value.abs().amax(0) for value in flat]).amax(0)
                if self.alpha == "auto":
                    kept[node.name] = torch.cat(flat)
            return values

        run_together(model, limited(batches(), SAMPLES) if self.alpha == "auto" else batches(), see)
        for name, group in groups.items():
            self._smooth(model, group, maxima[name], kept.get(name))
        model.graph.lint()
        model.recompile()
        return model

    def _smooth(self, model: GraphModule, group: Group, maxima: torch.Tensor, inputs: torch.Tensor | None) -> None:
        weights = [attribute(model, str(node.args[1].target)) for node in group.nodes]  # type: ignore[union-attr]
        alpha = float(self.alpha) if inputs is None else _best_alpha(maxima, weights, inputs)
        scale = smoothing_scale(maxima, weights, alpha)
        sample = group.source.meta["val"]
        factor = constant(model, "_smooth", per_channel(1 / scale, sample, group.type), group.nodes[0])
        with model.graph.inserting_before(group.nodes[0]):
            smoothed = model.graph.call_function(torch.ops.aten.mul.Tensor, (group.source, factor))
        smoothed.meta["val"] = sample
        for node, weight in zip(group.nodes, weights, strict=True):
            scaled = weight * scale.view(1, -1, *[1] * (weight.dim() - 2))
            stored = constant(model, "_smooth_weight", scaled, node)
            stored.meta["val"] = scaled.detach()
            node.update_arg(0, smoothed)
            node.update_arg(1, stored)


def smoothing_scale(maxima: torch.Tensor, weights: Sequence[torch.Tensor], alpha: float) -> torch.Tensor:
    """`(C,)` scale of an input with the given maxima `(C,)` for ops with the given weights `(out, C, …)`.

    1 where a channel's input is always 0.
    """
    largest = torch.stack([_columns(weight).abs().amax(0) for weight in weights]).amax(0)
    scale = maxima.pow(alpha) / largest.clamp(min=LEAST).pow(1 - alpha)
    return torch.where(maxima == 0, torch.ones_like(scale), scale.clamp(min=LEAST))


def _columns(weight: torch.Tensor) -> torch.Tensor:
    """A weight as `(…, C)`."""
    return weight.movedim(1, -1).reshape(-1, weight.shape[1])


def _best_alpha(maxima: torch.Tensor, weights: Sequence[torch.Tensor], inputs: torch.Tensor) -> float:
    """Of ALPHAS the one with least squared error over inputs `(n, C)`, the smallest at a tie."""
    errors = []
    for alpha in ALPHAS:
        scale = smoothing_scale(maxima, weights, alpha)
        x = _fake_quantized_input(inputs / scale)
        error = 0.0
        for weight in weights:
            flat = _columns(weight) if weight.dim() == 2 else weight.flatten(2).sum(2)
            exact = inputs @ flat.T
            error += float((x @ _fake_quantized_weight(flat * scale).T - exact).square().sum())
        errors.append(error)
    return ALPHAS[errors.index(min(errors))]


def _fake_quantized_input(x: torch.Tensor) -> torch.Tensor:
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = max((high - low) / 255, 1e-12)
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, 255)


def _fake_quantized_weight(weight: torch.Tensor) -> torch.Tensor:
    scale = (weight.abs().amax(1) / 127).clamp(min=1e-12)
    zero = torch.zeros(len(scale), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -128, 127)


def _groups(model: GraphModule) -> Iterator[Group]:
    by_source: dict[tuple[Node, str], list[Node]] = defaultdict(list)
    for _, type_, node in quantizable_nodes(model.graph):
        source, weight = node.args[0], node.args[1]
        grouped = type_ != "Linear" and len(node.args) > 6 and node.args[6] != 1
        if isinstance(source, Node) and isinstance(weight, Node) and len(weight.users) == 1 and not grouped:
            by_source[source, type_].append(node)
    for (source, type_), nodes in by_source.items():
        yield Group(source, type_, tuple(nodes))
