"""A configuration as the resource that asks for the same search: from a script to `kubectl apply`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from quantuner.api import names
from quantuner.api.spec import Override, Tuning, camel_case
from quantuner.config.quantization import Config
from quantuner.config.resource import tuning_of
from quantuner.space.capability import NUMBERS

ENTRYPOINT = "task:task"


def manifest_of(config: Config, name: str = "local", entrypoint: str = ENTRYPOINT) -> dict[str, Any]:
    """A QuantizationTuning; `entrypoint` is the `module:callable` that gives model and data.

    Raises as `tuning_of`, and `ValueError` for a function among `strategy_kwargs` that a resource cannot name.
    """
    for key, value in _functions(config.tuning_criterion.strategy_kwargs or {}):
        if "<" in getattr(value, "__qualname__", "<"):
            raise ValueError(
                f"strategy_kwargs.{key}: a resource names a function as module:function; give a function of a module, "
                f"not {value!r:.80}"
            )
    return body_of(tuning_of(config, name), entrypoint)


def body_of(tuning: Tuning, entrypoint: str = ENTRYPOINT) -> dict[str, Any]:
    """The manifest that is parsed to `tuning`: what defines its search, not where it runs."""
    quantization, accuracy, criterion = tuning.quantization, tuning.accuracy_criterion, tuning.tuning_criterion
    spec: dict[str, Any] = {
        "task": {"entrypoint": tuning.task.entrypoint or entrypoint, "args": dict(tuning.task.args)},
        "quantization": {
            "approach": quantization.approach,
            "quantLevel": quantization.quant_level,
            "calibrationSamplingSizes": list(quantization.calibration_sampling_sizes),
            "recipes": _recipes(quantization.recipes),
            "precisions": list(quantization.precisions),
            "excludedPrecisions": list(quantization.excluded_precisions),
            "reduceRange": quantization.reduce_range,
            "device": quantization.device,
            "opTypes": [_override(override) for override in quantization.op_types],
            "opNames": [_override(override) for override in quantization.op_names],
        },
        "accuracyCriterion": {
            "criterion": accuracy.criterion,
            "tolerableLoss": accuracy.tolerable_loss,
            "higherIsBetter": accuracy.higher_is_better,
        },
        "tuningCriterion": {
            **({"strategy": criterion.strategy} if criterion.strategy else {}),
            "strategyKwargs": {key: _plain(value) for key, value in criterion.strategy_kwargs.items()},
            "maxTrials": criterion.max_trials,
            "timeoutSeconds": math.ceil(criterion.timeout_seconds),
            "objectives": [{"name": o.name, "weight": o.weight} for o in criterion.objectives],
            **({} if criterion.early_abandonment else {"earlyAbandonment": False}),
        },
    }
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": tuning.name}, "spec": spec}


def _recipes(recipes: Mapping[str, Any]) -> dict[str, Any]:
    if recipes.get("layer_wise_quant"):
        raise ValueError("a resource has no recipe layer_wise_quant, which searches nothing; call fit instead")
    body = {camel_case(key): value for key, value in recipes.items() if not key.startswith("layer_wise")}
    if "smoothQuantArgs" in body:
        body["smoothQuantArgs"] = _smooth_quant_args(body["smoothQuantArgs"])
    return body


def _smooth_quant_args(arguments: Mapping[str, Any]) -> dict[str, Any]:
    others = dict(arguments)
    alpha = others.pop("alpha", None)
    alphas = [] if alpha is None else alpha if isinstance(alpha, (list, tuple)) else [alpha]
    body = {"autoAlpha": True} if alpha == "auto" else {"alphas": list(alphas)} if alphas else {}
    if "auto_alpha_args" in others:
        others["auto_alpha_args"] = {camel_case(key): value for key, value in others["auto_alpha_args"].items()}
    return {**body, **{camel_case(key): value for key, value in others.items()}}


def _override(override: Override) -> dict[str, Any]:
    body: dict[str, Any] = {"pattern": override.pattern}
    for (attribute, item), values in override.options.items():
        numbers = item in NUMBERS
        body.setdefault(attribute, {})[camel_case(item)] = [int(v) if numbers else v for v in values]
    return body


def _functions(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every callable in plain data, with its key."""
    if isinstance(value, (Mapping, list, tuple)):
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _functions(one, f"{where}.{key}".lstrip("."))
    elif callable(value):
        yield where, value


def _plain(value: Any) -> Any:
    """In YAML's own types: a path as text, a callable, as a loss, by the `module:name` that names it in a resource."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (PurePath, Enum)):
        return str(value) if isinstance(value, PurePath) else value.value
    if not callable(value):
        return value
    return f"{value.__module__}:{getattr(value, '__qualname__', type(value).__qualname__)}"
