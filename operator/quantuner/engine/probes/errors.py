"""How far quantized ops move a model's output, op by op."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch.utils._pytree import tree_leaves

from quantuner.space.config import OpConfig, TuneConfig

SAMPLES = 64  # calibration samples that errors are averaged over
Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Switches(Protocol):
    """A model that is run under one configuration after the other: `Switchable`, or `ModuleSwitch`."""

    @property
    def names(self) -> Mapping[Any, str]:
        """A key of each call's value to the op's name."""

    def run(self, inputs: Any, config: Any) -> Any: ...
    def rerun(self, values: Any, config: Any, name: str) -> Any: ...
    def output(self, values: Any) -> Any: ...
    def own_output(self, node: Any, config: Any, values: Any) -> Any: ...


def _mse(exact: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (exact - other).square().mean()


def _kl(exact: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence KL(exact ‖ other) of the softmax over the last dimension."""
    wanted = torch.log_softmax(exact.flatten(0, -2) if exact.dim() > 1 else exact[None], -1)
    got = torch.log_softmax(other.flatten(0, -2) if other.dim() > 1 else other[None], -1)
    return torch.nn.functional.kl_div(got, wanted, log_target=True, reduction="batchmean")


DISTANCES: dict[str, Distance] = {"mse": _mse, "kl": _kl}


def distance(name: str) -> Distance:
    """Raises `ValueError` for a name that is not known."""
    if name not in DISTANCES:
        raise ValueError(f"strategy_kwargs.metric must be one of {', '.join(DISTANCES)}, not {name!r}")
    return DISTANCES[name]


def output_errors(
    model: Switches,
    batches: Iterable[tuple[Any, ...]],
    base: TuneConfig,
    alternatives: Mapping[str, OpConfig],
    measure: Distance = _mse,
) -> dict[str, float]:
    """Op name to the error of the model's output against fp32, with that op as in `alternatives`, the rest as in
    `base`; averaged over the batches. Only what depends on the op is computed again.
    """
    totals, count = dict.fromkeys(alternatives, 0.0), 0
    with torch.no_grad():
        for inputs in batches:
            count += 1
            exact = model.output(model.run(inputs, {}))
            values = model.run(inputs, base)
            for name, config in alternatives.items():
                output = model.rerun(values, base.having({name: config}), name)
                totals[name] += _between(exact, output, measure)
    return {name: total / count for name, total in totals.items()}


def _between(exact: Any, other: Any, measure: Distance) -> float:
    """Summed over the floating-point tensors of a model's output, whatever structure holds them."""
    pairs = zip(tree_leaves(exact), tree_leaves(other), strict=True)
    tensors = [(a, b) for a, b in pairs if isinstance(a, torch.Tensor) and a.is_floating_point()]
    return sum(float(measure(*_finite(a, b))) for a, b in tensors)


def _finite(exact: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with 0 where either is not finite, as a masked logit of -inf: it says nothing of an error."""
    both = exact.isfinite() & other.isfinite()
    return exact.where(both, 0.0), other.where(both, 0.0)


def own_errors(
    model: Switches, batches: Iterable[tuple[Any, ...]], alternatives: Mapping[str, OpConfig]
) -> dict[str, float]:
    """Op name to the mean squared error of its own output where it alone is quantized, averaged over its calls."""
    found: dict[str, list[float]] = {name: [] for name in alternatives}
    with torch.no_grad():
        for inputs in batches:
            exact = model.run(inputs, {})
            for node, name in model.names.items():
                # A module need not be called for every batch, nor see a row of each.
                if name in alternatives and node in exact and _first(exact[node]).numel():
                    found[name].append(_between(exact[node], model.own_output(node, alternatives[name], exact), _mse))
    return {name: sum(errors) / len(errors) if errors else 0.0 for name, errors in found.items()}


def activation_errors(model: Switches, inputs: tuple[Any, ...], config: TuneConfig) -> dict[str, float]:
    """Op name to the mean squared error of its output under `config`, each output scaled to [0, 1] by its own range.

    Of an op that is called more than once the mean. Source: the ranking of Neural Compressor 2.x's mse strategy.
    """
    with torch.no_grad():
        exact, quantized = model.run(inputs, {}), model.run(inputs, config)
    found: dict[str, list[float]] = {}
    for node, name in model.names.items():
        pair = [_first(values[node]) for values in (exact, quantized) if node in values]
        error = float(_mse(*map(_scaled, pair))) if _can_be_compared(pair) else 0.0
        found.setdefault(name, []).append(error)
    return {name: sum(errors) / len(errors) for name, errors in found.items()}


def _first(output: Any) -> torch.Tensor:
    """A recurrent op gives its states as well; its first value, the output of each step, is what others read."""
    value: torch.Tensor = tree_leaves(output)[0]
    return value


def _can_be_compared(pair: list[torch.Tensor]) -> bool:
    """Not where a call is missing, nor where data route no row to an op, or not as many once the model is rounded."""
    return len(pair) == 2 and pair[0].shape == pair[1].shape and pair[0].numel() > 0


def _scaled(value: torch.Tensor) -> torch.Tensor:
    low, high = value.min(), value.max()
    return (value - low) / (high - low) if high > low else torch.zeros_like(value)
