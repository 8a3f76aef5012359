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
from quantuner.engine.graphs import (
    attribute,
    channel_dimension,
    constant,
    limited,
    over_channels,
    path_of,
    per_channel,
    replace_attribute,
    run_together,
)
from quantuner.engine.quantize import EPS
from quantuner.engine.recipes.folding import Site, fold, sites
from quantuner.engine.recipes.scheduler import Batches

DEFAULT_ALPHA = 0.5  # Xiao et al. 2022, section 5: a sweet spot for most models
SMOOTHED = ("Conv1d", "Conv2d", "Conv3d", "Linear")  # types whose weight has input channels in dimension 1
LEAST = 1e-5  # of a channel's maximum, so that a scale neither vanishes nor explodes
SAMPLES = 32  # calibration samples that "auto" compares alphas on


def alphas_between(alpha_min: float = 0.0, alpha_max: float = 1.0, alpha_step: float = 0.1) -> tuple[float, ...]:
    """The alphas that "auto" tries, ascending. Source: auto_alpha_args of Neural Compressor 2.x."""
    steps = int((alpha_max - alpha_min) / alpha_step + 1e-6)
    return tuple(round(alpha_min + i * alpha_step, 10) for i in range(steps + 1))


ALPHAS = alphas_between()


@dataclass(frozen=True)
class Group:
    """Ops that share an input, and so a smoothing scale."""

    source: Node
    type: str
    nodes: tuple[Node, ...]

    @property
    def weights(self) -> list[str]:
        """Where the model has the ops' weights."""
        return [path_of(node.args[1]) for node in self.nodes]


class SmoothQuant:
    """Divides the input of ops by a scale per channel and multiplies their weights with it; the model's outputs stay.

    `alpha` is how much moves: 0 leaves activations as they are, 1 gives the weights all. "auto" takes for each group
    of ops with one input the alpha with least squared error of their int8 outputs, of those in `alphas`.

    `folding` says where the division goes. None: into the norm or linear before, if nothing else reads it, and else
    into a multiplication of its own. True: only into what is before; what cannot is not smoothed. False: always a
    multiplication. Source of the latter two: `folding` of Neural Compressor 2.x.

    Convolutions with groups, and ops whose weight is used twice, are left as they are.
    """

    def __init__(
        self, alpha: float | str = DEFAULT_ALPHA, *, folding: bool | None = None, alphas: Sequence[float] = ALPHAS
    ) -> None:
        self.alpha = alpha
        self.folding = folding
        self.alphas = tuple(alphas)
        tried = f" of {self.alphas}" if alpha == "auto" and self.alphas != ALPHAS else ""
        self.key = f"smooth_quant {alpha}{tried}" + ("" if folding is None else f" folding {folding}")

    def __call__(self, origin_model: GraphModule, q_model: GraphModule, batches: Batches) -> GraphModule:
        model = copy.deepcopy(q_model)
        places = {group: self._sites(model, group) for group in _groups(model)}
        groups = [group for group, found in places.items() if found or self.folding is not True]
        scales = self._compared(model, groups, batches) if self.alpha == "auto" else self._fixed(model, groups, batches)
        for group, scale in scales.items():
            _smooth(model, group, scale, places[group])
        model.graph.lint()
        model.recompile()
        return model

    def _sites(self, model: GraphModule, group: Group) -> tuple[Site, ...]:
        if self.folding is False:
            return ()
        return sites(model, group.source, group.nodes, channel_dimension(group.source.meta["val"], group.type))

    def _fixed(self, model: GraphModule, groups: Sequence[Group], batches: Batches) -> dict[Group, torch.Tensor]:
        """Batch by batch: of all that is seen a maximum per channel is wanted, and there may be much."""
        maxima: dict[Group, torch.Tensor] = {}

        def see(node: Node, values: Sequence[Any]) -> Sequence[Any]:
            for group in _reading(groups, node, values):
                seen = _maxima(_filled(values), group)
                maxima[group] = torch.maximum(maxima.get(group, seen), seen)
            return values

        for batch in batches():
            run_together(model, [batch], see)
        alpha = float(self.alpha)
        return {group: smoothing_scale(found, _weights(model, group), alpha) for group, found in maxima.items()}

    def _compared(self, model: GraphModule, groups: Sequence[Group], batches: Batches) -> dict[Group, torch.Tensor]:
        scales: dict[Group, torch.Tensor] = {}

        def see(node: Node, values: Sequence[Any]) -> Sequence[Any]:
            scales.update(
                (group, self._best(model, group, _filled(values))) for group in _reading(groups, node, values)
            )
            return values

        run_together(model, limited(batches(), SAMPLES), see)
        return scales

    def _best(self, model: GraphModule, group: Group, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        weights, maxima = _weights(model, group), _maxima(inputs, group)
        scales = [smoothing_scale(maxima, weights, alpha) for alpha in self.alphas]
        errors = [_int8_error(group, inputs, weights, scale) for scale in scales]
        return scales[errors.index(min(errors))]  # at a tie the smallest alpha


def _reading(groups: Sequence[Group], node: Node, values: Sequence[Any]) -> list[Group]:
    """Those that read the node, where it has values: one to which data are routed may see none, and gets no scale."""
    return [group for group in groups if group.source is node and _filled(values)]


def _filled(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Those that have elements: of a batch no row may be routed to an op."""
    return [value for value in values if value.numel()]


def _weights(model: GraphModule, group: Group) -> list[torch.Tensor]:
    return [attribute(model, path) for path in group.weights]


def _maxima(inputs: Sequence[torch.Tensor], group: Group) -> torch.Tensor:
    """Of the magnitudes in each channel, `(C,)`."""
    return torch.stack([over_channels(value, group.type).abs().amax(0) for value in inputs]).amax(0)


def _smooth(model: GraphModule, group: Group, scale: torch.Tensor, places: Sequence[Site]) -> None:
    if places:
        fold(model, places, 1 / scale)
    else:
        _multiply(model, group, 1 / scale)
    for path in group.weights:
        replace_attribute(model, path, _scaled(attribute(model, path), scale))


def _multiply(model: GraphModule, group: Group, values: torch.Tensor) -> None:
    """Puts a multiplication of its own between the input and the group."""
    sample = group.source.meta["val"]
    factor = constant(model, "_smooth", per_channel(values, sample, group.type), group.nodes[0])
    with model.graph.inserting_before(group.nodes[0]):
        smoothed = model.graph.call_function(torch.ops.aten.mul.Tensor, (group.source, factor))
    smoothed.meta["val"] = sample
    for node in group.nodes:
        node.update_arg(0, smoothed)


def _scaled(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """A weight `(out, C, …)` times a scale `(C,)`."""
    return weight * scale.view(1, -1, *[1] * (weight.dim() - 2))


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


def _int8_error(
    group: Group, inputs: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], scale: torch.Tensor
) -> float:
    """Squared error of the group's outputs with inputs and weights smoothed by `scale` and rounded to int8."""
    factor = per_channel(1 / scale, inputs[0], group.type)
    rounded = _rounded_inputs([value * factor for value in inputs])
    error = 0.0
    for node, weight in zip(group.nodes, weights, strict=True):
        rounded_weight = _rounded_weight(_scaled(weight, scale))
        for exact, value in zip(inputs, rounded, strict=True):
            error += float((_output(node, value, rounded_weight) - _output(node, exact, weight)).square().sum())
    return error


def _output(node: Node, value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What the op makes of an input, without its bias."""
    output: torch.Tensor = node.target(value, weight, None, *node.args[3:])  # type: ignore[operator]
    return output


def _rounded_inputs(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """On one uint8 grid over their whole range, zero included."""
    low = min(0.0, *(float(value.min()) for value in values))
    high = max(0.0, *(float(value.max()) for value in values))
    scale = max((high - low) / 255, EPS)
    return [torch.fake_quantize_per_tensor_affine(value, scale, round(-low / scale), 0, 255) for value in values]


def _rounded_weight(weight: torch.Tensor) -> torch.Tensor:
    """On a symmetric int8 grid per output channel, as torch has it: the largest weight lies at 127.5 steps."""
    scale = (weight.flatten(1).abs().amax(1) / 127.5).clamp(min=EPS)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -128, 127)


def _groups(model: GraphModule) -> Iterator[Group]:
    by_source: dict[tuple[Node, str], list[Node]] = defaultdict(list)
    for _, type_, node in quantizable_nodes(model.graph):
        if type_ not in SMOOTHED:
            continue
        source, weight = node.args[0], node.args[1]
        grouped = type_ != "Linear" and len(node.args) > 6 and node.args[6] != 1
        if isinstance(source, Node) and isinstance(weight, Node) and len(weight.users) == 1 and not grouped:
            by_source[source, type_].append(node)
    for (source, type_), nodes in by_source.items():
        yield Group(source, type_, tuple(nodes))
