"""A configuration written as a resource is parsed to the same search."""

from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from quantuner.api.spec import Tuning
from quantuner.api.validation import admit
from quantuner.config import (
    AccuracyCriterion,
    PostTrainingQuantConfig,
    QuantizationAwareTrainingConfig,
    TuningCriterion,
    body_of,
    manifest_of,
    tuning_of,
)


def loss(output: Any, target: Any) -> Any:
    return output - target


CONFIGS: dict[str, PostTrainingQuantConfig] = {
    "the defaults": PostTrainingQuantConfig(),
    "training": QuantizationAwareTrainingConfig(quant_level=1),
    "a level": PostTrainingQuantConfig(quant_level=0),
    "sizes and precisions": PostTrainingQuantConfig(
        calibration_sampling_size=[50, 200], excluded_precisions=["bf16"], reduce_range=True, approach="auto"
    ),
    "precisions to fall back to": PostTrainingQuantConfig(precisions=["bf16", "fp32"], device="gpu"),
    "constraints": PostTrainingQuantConfig(
        op_type_dict={"Conv2d": {"activation": {"scheme": ["sym"], "algorithm": ["minmax"]}}},
        op_name_dict={"head.*": {"weight": {"dtype": ["fp32"]}}},
    ),
    "recipes": PostTrainingQuantConfig(recipes={"weight_correction": True, "last_conv_or_matmul_quantization": False}),
    "an alpha": PostTrainingQuantConfig(recipes={"smooth_quant": True, "smooth_quant_args": {"alpha": 0.3}}),
    "alphas": PostTrainingQuantConfig(recipes={"smooth_quant": True, "smooth_quant_args": {"alpha": [0.3, 0.5]}}),
    "an automatic alpha": PostTrainingQuantConfig(
        recipes={"smooth_quant": True, "smooth_quant_args": {"alpha": "auto"}}
    ),
    "criteria": PostTrainingQuantConfig(
        accuracy_criterion=AccuracyCriterion(higher_is_better=False, criterion="absolute", tolerable_loss=2.5),
        tuning_criterion=TuningCriterion(
            strategy="tpe",
            strategy_kwargs={"seed": 3},
            timeout=60,
            max_trials=7,
            objective={"objective": ["performance", "modelsize"], "weight": [0.2, 0.8]},
        ),
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_manifest_is_admitted_and_parsed_to_what_was_configured(config: PostTrainingQuantConfig) -> None:
    parsed = Tuning.from_body(admit(manifest_of(config, "digits", "digits:task")))
    meant = tuning_of(config, "digits")
    assert parsed.task.entrypoint == "digits:task"
    assert parsed.quantization == meant.quantization
    assert parsed.accuracy_criterion == meant.accuracy_criterion
    assert parsed.tuning_criterion == meant.tuning_criterion


def test_a_loss_is_named_by_where_it_is_and_part_of_a_second_counts_as_one() -> None:
    criterion = TuningCriterion(strategy="hawq_v2", strategy_kwargs={"hawq_v2_loss": loss}, timeout=0.5)
    body = manifest_of(PostTrainingQuantConfig(tuning_criterion=criterion))["spec"]["tuningCriterion"]
    assert body["strategyKwargs"] == {"hawq_v2_loss": f"{__name__}:loss"}
    assert body["timeoutSeconds"] == 1


class Way(StrEnum):
    FAST = "fast"


def test_arguments_of_a_strategy_are_written_in_yamls_own_types() -> None:
    kwargs = {"w": np.float64(0.5), "folder": Path("x"), "way": Way.FAST, "deep": ({"losses": [loss]},)}
    criterion = TuningCriterion(strategy="mine", strategy_kwargs=kwargs)
    body = body_of(tuning_of(PostTrainingQuantConfig(tuning_criterion=criterion)))
    read = yaml.safe_load(yaml.safe_dump(body))["spec"]["tuningCriterion"]["strategyKwargs"]
    assert read == {"w": 0.5, "folder": "x", "way": "fast", "deep": [{"losses": [f"{__name__}:loss"]}]}


@pytest.mark.parametrize("early", [True, False])
def test_only_what_is_not_the_default_is_said_of_abandonment(early: bool) -> None:
    criterion = TuningCriterion(early_abandonment=early)
    body = manifest_of(PostTrainingQuantConfig(tuning_criterion=criterion))["spec"]["tuningCriterion"]
    assert body.get("earlyAbandonment") is (None if early else False)


class Loss:
    def __call__(self, output: Any, target: Any) -> Any:
        return output - target


@pytest.mark.parametrize(
    ("function", "at"),
    [(Loss(), ""), (lambda output: output, ""), ([{"a": lambda output: output}], r"\.0\.a")],
    ids=["an object", "a lambda", "a lambda in a list"],
)
def test_a_function_that_a_resource_cannot_name_is_refused(function: Any, at: str) -> None:
    criterion = TuningCriterion(strategy="hawq_v2", strategy_kwargs={"hawq_v2_loss": function})
    with pytest.raises(
        ValueError, match=rf"strategy_kwargs\.hawq_v2_loss{at}: a resource names a function as module:function"
    ):
        manifest_of(PostTrainingQuantConfig(tuning_criterion=criterion))
    assert isinstance(body_of(tuning_of(PostTrainingQuantConfig(tuning_criterion=criterion))), dict)
