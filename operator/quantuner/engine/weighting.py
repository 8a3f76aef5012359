"""What several metrics count in one accuracy: the `weight` and `higher_is_better` of an eval_metric."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

KEYS = ("weight", "higher_is_better")
"""Of an eval_metric that is a dict; all others name metrics."""


ERRORS = ("MAE", "MSE", "RMSE")
"""Metrics of which less is better."""


def _names(metric: Mapping[str, Any]) -> list[str]:
    return [name for name in metric if name not in KEYS]


def weights_of(metric: Mapping[str, Any], count: int) -> list[float]:
    """The weight of each of `count` metrics; of one, 1 where none is given. Raises `ValueError` for what is none."""
    weights = metric.get("weight", [1.0] if count == 1 else None)
    listed = isinstance(weights, (list, tuple)) and len(weights) == count
    if not listed or not count or not all(_is_finite(weight) for weight in weights):
        raise ValueError(
            f"eval_metric names {count} metric{'s' * (count != 1)}; an accuracy is one number, so give 'weight', a "
            f"list with as many finite numbers (negative for one of the other direction); it is {weights!r:.80}"
        )
    return [float(weight) for weight in weights]


def _is_finite(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)


def direction_of(metric: Mapping[str, Any], weights: Sequence[float]) -> bool | None:
    """Whether a higher accuracy is better, by `higher_is_better` of the metrics, or else by what they are.

    A negative weight turns a metric round. None where nothing is said, and metrics want the accuracy in two
    directions. Raises `ValueError` for what is no bool for each metric, and where metrics of two directions are said.
    """
    given = metric.get("higher_is_better")
    if given is None:
        named = zip(_names(metric), weights, strict=True)
        known = {(weight > 0) is (name not in ERRORS) for name, weight in named if weight}
        return known.pop() if len(known) == 1 else None
    directions = [given] if isinstance(given, bool) and len(weights) == 1 else given
    listed = isinstance(directions, (list, tuple)) and len(directions) == len(weights)
    if not listed or not all(isinstance(one, bool) for one in directions):
        raise ValueError(
            "eval_metric's 'higher_is_better' must be a list with True or False for each metric: "
            f"{len(weights)}; it is {given!r:.80}"
        )
    wanted = {(weight > 0) is higher for weight, higher in zip(weights, directions, strict=True) if weight}
    if len(wanted) > 1:
        raise ValueError(
            f"eval_metric has metrics of two directions, higher_is_better {list(directions)}, with weights "
            f"{list(weights)}; give those of one direction a negative weight"
        )
    return next(iter(wanted), None)
