"""Configuration objects ↔ the parsed resource, one to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantuner.api.selection import higher_is_better as direction_of
from quantuner.api.spec import AccuracyCriterion as AccuracyRule
from quantuner.api.spec import Objective, Quantization, TaskRef, Tuning
from quantuner.api.spec import TuningCriterion as TuningRule
from quantuner.config.criteria import AccuracyCriterion, TuningCriterion
from quantuner.config.quantization import APPROACHES, Config, PostTrainingQuantConfig, QuantizationAwareTrainingConfig
from quantuner.space.constraints import dict_of, overrides_of


def tuning_of(config: Config, name: str = "local") -> Tuning:
    """The parsed resource that `config` spells. Its task is empty: model and data are given as objects.

    Raises `ValueError` for what is no configuration, and for one that says two strategies.
    """
    if not isinstance(config, PostTrainingQuantConfig):
        raise ValueError(
            f"conf must be a PostTrainingQuantConfig or a QuantizationAwareTrainingConfig, not {config!r:.80}; give one"
        )
    criterion, accuracy = config.tuning_criterion, config.accuracy_criterion
    named = criterion.named_strategy
    if config.quant_level == 0 and named == "basic":  # which is how Neural Compressor's default reads
        named = None
    if config.quant_level == 0 and named not in (None, "conservative"):
        raise ValueError(
            f"quant_level 0 is the conservative strategy, but strategy is {named!r}; leave strategy out or set "
            "quant_level to 1"
        )
    return Tuning(
        name=name,
        task=TaskRef(""),
        quantization=Quantization(
            approach=APPROACHES.get(config.approach, config.approach),
            quant_level=str(config.quant_level),
            calibration_sampling_sizes=tuple(config.calibration_sampling_size),
            op_types=overrides_of(config.op_type_dict or {}),
            op_names=overrides_of(config.op_name_dict or {}),
            recipes=dict(config.recipes),
            precisions=tuple(config.precisions),
            excluded_precisions=tuple(config.excluded_precisions),
            reduce_range=bool(config.reduce_range),
            device=config.device,
        ),
        accuracy_criterion=AccuracyRule(accuracy.criterion, float(accuracy.tolerable_loss), accuracy.higher_is_better),
        tuning_criterion=TuningRule(
            strategy=named,
            strategy_kwargs=dict(criterion.strategy_kwargs or {}),
            max_trials=criterion.max_trials,
            timeout_seconds=criterion.timeout,
            objectives=_weighted(criterion.objective, accuracy.higher_is_better),
            early_abandonment=criterion.early_abandonment,
        ),
    )


def _weighted(objective: Any, accuracy_is_better_high: bool) -> tuple[Objective, ...]:
    body = objective if isinstance(objective, Mapping) else {"objective": objective}
    names = body.get("objective", "performance")
    names = [names] if isinstance(names, str) else list(names)
    rule = AccuracyRule(higher_is_better=accuracy_is_better_high)
    for name, given in zip(names, body.get("higher_is_better", ()), strict=False):
        if given != direction_of(name, rule):
            raise ValueError(
                f"TuningCriterion.objective: {name} is better {'high' if not given else 'low'}, but higher_is_better "
                f"says {given}; correct it or leave it out"
            )
    weights = body.get("weight", [1.0] * len(names))
    return tuple(Objective(name, float(weight)) for name, weight in zip(names, weights, strict=True))


def config_of(tuning: Tuning) -> Config:
    """The configuration objects that spell a parsed resource."""
    quantization, criterion, accuracy = tuning.quantization, tuning.tuning_criterion, tuning.accuracy_criterion
    level = quantization.quant_level
    shared: dict[str, Any] = {
        "op_type_dict": dict_of(quantization.op_types) or None,
        "op_name_dict": dict_of(quantization.op_names) or None,
        "reduce_range": quantization.reduce_range,
        "precisions": quantization.precisions,
        "excluded_precisions": quantization.excluded_precisions,
        "device": quantization.device,
        "quant_level": level if level == "auto" else int(level),
        "accuracy_criterion": AccuracyCriterion(accuracy.higher_is_better, accuracy.criterion, accuracy.tolerable_loss),
        "tuning_criterion": TuningCriterion(
            strategy=criterion.strategy,
            strategy_kwargs=dict(criterion.strategy_kwargs) or None,
            timeout=criterion.timeout_seconds,
            max_trials=criterion.max_trials,
            objective={
                "objective": [o.name for o in criterion.objectives],
                "weight": [o.weight for o in criterion.objectives],
            },
            early_abandonment=criterion.early_abandonment,
        ),
    }
    if quantization.approach == "qat":
        trained = QuantizationAwareTrainingConfig(**shared)
        trained.recipes = dict(quantization.recipes)
        trained.calibration_sampling_size = list(quantization.calibration_sampling_sizes)
        return trained
    return PostTrainingQuantConfig(
        approach=quantization.approach,
        recipes=quantization.recipes,
        calibration_sampling_size=quantization.calibration_sampling_sizes,
        **shared,
    )
