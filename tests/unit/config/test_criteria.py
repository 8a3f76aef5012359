"""Accuracy and tuning criterion: documented defaults, and every refusal with rule, value and remedy.

Source of the defaults: Neural Compressor 2.x, config.AccuracyCriterion and config.TuningCriterion.
"""

from typing import Any

import pytest

from quantuner.config import AccuracyCriterion, TuningCriterion


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("higher_is_better", True), ("criterion", "relative"), ("tolerable_loss", 0.01), ("relative", 0.01)],
)
def test_an_accuracy_criterions_defaults(attribute: str, value: Any) -> None:
    assert getattr(AccuracyCriterion(), attribute) == value
    assert AccuracyCriterion().absolute is None


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("strategy", "basic"),
        ("named_strategy", None),
        ("strategy_kwargs", None),
        ("timeout", 0),
        ("max_trials", 100),
        ("objective", "performance"),
    ],
)
def test_a_tuning_criterions_defaults(attribute: str, value: Any) -> None:
    assert getattr(TuningCriterion(), attribute) == value


def test_setting_relative_or_absolute_chooses_it() -> None:
    criterion = AccuracyCriterion()
    criterion.absolute = 0.5  # type: ignore[misc]  # a property that __setattr__ understands
    assert (criterion.criterion, criterion.absolute, criterion.relative) == ("absolute", 0.5, None)
    criterion.relative = 0.2  # type: ignore[misc]
    assert (criterion.criterion, criterion.relative, criterion.tolerable_loss) == ("relative", 0.2, 0.2)


@pytest.mark.parametrize("loss", [1, -0.5, 0], ids=["an integer", "a gain", "none"])
def test_any_number_is_a_tolerable_loss(loss: float) -> None:
    assert AccuracyCriterion(criterion="absolute", tolerable_loss=loss).absolute == loss


def test_a_named_strategy_is_told_from_the_default() -> None:
    criterion = TuningCriterion(strategy="MSE_V2")
    assert (criterion.strategy, criterion.named_strategy) == ("mse_v2", "mse_v2")


@pytest.mark.parametrize(
    ("cls", "arguments", "says"),
    [
        (AccuracyCriterion, {"criterion": "Relative"}, r"AccuracyCriterion\.criterion must be one of 'relative', 'abs"),
        (AccuracyCriterion, {"higher_is_better": 1}, r"higher_is_better must be one of True, False; it is 1"),
        (AccuracyCriterion, {"tolerable_loss": "1%"}, r"tolerable_loss must be a number; it is '1%'"),
        (AccuracyCriterion, {"tolerable_loss": True}, r"tolerable_loss must be a number"),
        (TuningCriterion, {"strategy": "sigopt"}, "sigopt stood on a closed service.*use 'bayesian' or 'tpe'"),
        (TuningCriterion, {"strategy": ""}, "strategy must be the name of a strategy"),
        (TuningCriterion, {"strategy_kwargs": ["seed"]}, "must be a dict with string keys, or None"),
        (TuningCriterion, {"timeout": -1}, "timeout must be a number of at least 0; it is -1"),
        (TuningCriterion, {"max_trials": 0}, "max_trials must be an integer of at least 1; it is 0"),
        (TuningCriterion, {"max_trials": 2.0}, "max_trials must be an integer"),
        (TuningCriterion, {"objective": "speed"}, "must be one of 'performance', 'accuracy', 'modelsize', 'footprint'"),
        (TuningCriterion, {"objective": []}, "at least one objective, and each once"),
        (TuningCriterion, {"objective": ["accuracy", "accuracy"]}, "at least one objective, and each once"),
        (TuningCriterion, {"objective": {"objectives": ["accuracy"]}}, "has the keys objective, weight and higher_is"),
        (TuningCriterion, {"objective": {"objective": ["accuracy"], "weight": [1, 2]}}, "one weight per objective: 1"),
        (TuningCriterion, {"objective": {"objective": ["accuracy"], "weight": [-1]}}, "of at least 0"),
    ],
    ids=str,
)
def test_what_a_criterion_refuses(cls: type, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        cls(**arguments)


@pytest.mark.parametrize(
    ("instance", "name", "says"),
    [
        (AccuracyCriterion(), "tolerableloss", r"has no 'tolerableloss' \(did you mean 'tolerable_loss'\?\)"),
        (TuningCriterion(), "max_trial", r"has no 'max_trial' \(did you mean 'max_trials'\?\)"),
    ],
    ids=["accuracy", "tuning"],
)
def test_an_attribute_that_is_not_there_names_the_nearest(instance: Any, name: str, says: str) -> None:
    with pytest.raises(AttributeError, match=says):
        setattr(instance, name, 1)


def test_criteria_are_equal_by_value_and_not_shared() -> None:
    one, other = TuningCriterion(), TuningCriterion()
    assert one == other
    one.max_trials = 7
    assert one != other
    assert "max_trials=7" in repr(one)
    assert repr(one).startswith("TuningCriterion(strategy='basic', ")
