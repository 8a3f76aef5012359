"""The resource's spec and the configuration objects say the same, field by field."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantuner.api.spec import TaskRef
from quantuner.config import (
    Config,
    PostTrainingQuantConfig,
    QuantizationAwareTrainingConfig,
    TuningCriterion,
    config_of,
    tuning_of,
)
from tests.unit.records import tuning

CRD = yaml.safe_load((Path(__file__).parents[3] / "crds" / "quantizationtunings.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]["properties"]
PARTS = ("quantization", "accuracyCriterion", "tuningCriterion")

OVERRIDE = {"pattern": "Conv.*", "weight": {"dtype": ["int8"]}, "activation": {"scheme": ["sym", "asym"]}}
OVERRIDE_DICT = {"Conv.*": {"weight": {"dtype": ["int8"]}, "activation": {"scheme": ["sym", "asym"]}}}
OBJECTIVES = [{"name": "performance", "weight": 2}, {"name": "modelsize", "weight": 1}]

ROWS: list[tuple[str, str, Any, str, Any]] = [
    ("quantization", "approach", "dynamic", "approach", "dynamic"),
    ("quantization", "quantLevel", 1, "quant_level", 1),
    ("quantization", "quantLevel", "0", "quant_level", 0),
    ("quantization", "calibrationSamplingSizes", [7, 70], "calibration_sampling_size", [7, 70]),
    ("quantization", "recipes", {"smoothQuant": True}, "recipes", {"smooth_quant": True}),
    (
        "quantization",
        "recipes",
        {"smoothQuant": True, "smoothQuantArgs": {"alphas": [0.25, 0.75]}},
        "recipes",
        {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.25, 0.75]}},
    ),
    (
        "quantization",
        "recipes",
        {"smoothQuant": True, "smoothQuantArgs": {"autoAlpha": True}},
        "recipes",
        {"smooth_quant": True, "smooth_quant_args": {"alpha": "auto"}},
    ),
    ("quantization", "recipes", {"fastBiasCorrection": True}, "recipes", {"fast_bias_correction": True}),
    ("quantization", "excludedPrecisions", ["bf16"], "excluded_precisions", ["bf16"]),
    ("quantization", "reduceRange", True, "reduce_range", True),
    ("quantization", "opTypes", [OVERRIDE], "op_type_dict", OVERRIDE_DICT),
    ("quantization", "opNames", [OVERRIDE], "op_name_dict", OVERRIDE_DICT),
    ("accuracyCriterion", "criterion", "absolute", "accuracy_criterion.criterion", "absolute"),
    ("accuracyCriterion", "tolerableLoss", 0.25, "accuracy_criterion.tolerable_loss", 0.25),
    ("accuracyCriterion", "higherIsBetter", False, "accuracy_criterion.higher_is_better", False),
    ("tuningCriterion", "strategy", "mse_v2", "tuning_criterion.strategy", "mse_v2"),
    ("tuningCriterion", "strategyKwargs", {"seed": 3}, "tuning_criterion.strategy_kwargs", {"seed": 3}),
    ("tuningCriterion", "maxTrials", 9, "tuning_criterion.max_trials", 9),
    ("tuningCriterion", "timeoutSeconds", 60, "tuning_criterion.timeout", 60),
    (
        "tuningCriterion",
        "objectives",
        OBJECTIVES,
        "tuning_criterion.objective",
        {"objective": ["performance", "modelsize"], "weight": [2, 1]},
    ),
]


def attribute(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(
    ("part", "field", "value", "path", "expected"),
    [pytest.param(*row, id=f"{row[0]}.{row[1]}={row[2]}") for row in ROWS],
)
def test_a_field_of_the_resource_is_an_attribute_of_the_configuration(
    part: str, field: str, value: Any, path: str, expected: Any
) -> None:
    parsed = tuning({part: {field: value}})
    config = config_of(parsed)
    assert attribute(config, path) == expected
    assert attribute(config, path) != attribute(config_of(tuning()), path)
    assert tuning_of(config, parsed.name) == replace(parsed, **without_cluster())


def without_cluster() -> Mapping[str, Any]:
    """What configuration objects do not say: where the search runs and whose code it is."""
    bare = tuning_of(PostTrainingQuantConfig())
    assert bare.task == TaskRef("")
    return {name: getattr(bare, name) for name in vars(bare) if name not in ("name", *LEVELS)}


LEVELS = ("quantization", "accuracy_criterion", "tuning_criterion")


@pytest.mark.parametrize("part", PARTS)
def test_no_field_of_the_resource_lacks_a_row(part: str) -> None:
    assert {field for p, field, *_ in ROWS if p == part} == set(SPEC[part]["properties"])


def test_defaults_are_the_same_on_both_sides() -> None:
    assert tuning_of(PostTrainingQuantConfig(), "digits") == replace(tuning(), **without_cluster())


def test_training_is_the_class_of_its_own() -> None:
    config = config_of(tuning({"quantization": {"approach": "qat", "calibrationSamplingSizes": [5]}}))
    assert isinstance(config, QuantizationAwareTrainingConfig)
    assert (
        tuning_of(config).quantization
        == tuning({"quantization": {"approach": "qat", "calibrationSamplingSizes": [5]}}).quantization
    )


@pytest.mark.parametrize(
    ("level", "named", "strategy"),
    [
        ("auto", None, "auto"),
        (0, None, "conservative"),
        (1, None, "basic"),
        ("auto", "mse", "mse"),
        (1, "tpe", "tpe"),
        (0, "conservative", "conservative"),
    ],
    ids=str,
)
def test_the_strategy_that_searches(level: Any, named: str | None, strategy: str) -> None:
    config = PostTrainingQuantConfig(quant_level=level, tuning_criterion=TuningCriterion(strategy=named))
    assert tuning_of(config).strategy == strategy


def test_level_0_with_another_strategy_is_refused() -> None:
    config = PostTrainingQuantConfig(quant_level=0, tuning_criterion=TuningCriterion(strategy="mse"))
    with pytest.raises(ValueError, match="quant_level 0 is the conservative strategy, but strategy is 'mse'"):
        tuning_of(config)


def test_a_direction_that_an_objective_does_not_have_is_refused() -> None:
    criterion = TuningCriterion(objective={"objective": ["performance"], "higher_is_better": [True]})
    with pytest.raises(ValueError, match="performance is better low, but higher_is_better says True"):
        tuning_of(PostTrainingQuantConfig(tuning_criterion=criterion))
