"""Accuracy and tuning criterion: documented defaults, what is taken, and every refusal with rule, value and remedy.

Source of the defaults: Neural Compressor 2.x, config.AccuracyCriterion and config.TuningCriterion. No default
deviates; `early_abandonment` is not theirs.
Three rules do: an integer is a tolerable loss (there only a float was), strategies `auto` and `conservative` can be
named (there only `quant_level` reached them), and several objectives with weights can be given (there the setter or
the strategy refused them). `sigopt` is gone: it stood on a service that has ended.
"""

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.config import AccuracyCriterion, TuningCriterion
from quantuner.config.checks import Checked

DEFAULTS: dict[type[Checked], dict[str, Any]] = {
    AccuracyCriterion: {"higher_is_better": True, "criterion": "relative", "tolerable_loss": 0.01},
    TuningCriterion: {
        "strategy": "basic",
        "strategy_kwargs": None,
        "timeout": 0,
        "max_trials": 100,
        "objective": "performance",
        "early_abandonment": True,
    },
}


@pytest.mark.parametrize(
    ("cls", "attribute"),
    [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls, table in DEFAULTS.items() for name in table],
)
def test_a_default_is_the_documented_one(cls: type[Checked], attribute: str) -> None:
    value, expected = getattr(cls(), attribute), DEFAULTS[cls][attribute]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("cls", list(DEFAULTS), ids=lambda cls: cls.__name__)
def test_arguments_are_the_documented_ones_in_their_order(cls: type[Checked]) -> None:
    assert list(inspect.signature(cls).parameters) == list(DEFAULTS[cls])
    assert set(cls._checks) == set(DEFAULTS[cls])


def test_the_default_criterion_is_relative_and_no_strategy_is_named() -> None:
    assert (AccuracyCriterion().relative, AccuracyCriterion().absolute) == (0.01, None)
    assert TuningCriterion().named_strategy is None


def test_setting_relative_or_absolute_chooses_it() -> None:
    criterion = AccuracyCriterion()
    criterion.absolute = 0.5  # type: ignore[misc]  # a property that __setattr__ understands
    assert (criterion.criterion, criterion.absolute, criterion.relative) == ("absolute", 0.5, None)
    criterion.relative = 0.2  # type: ignore[misc]
    assert (criterion.criterion, criterion.relative, criterion.tolerable_loss) == ("relative", 0.2, 0.2)


@pytest.mark.parametrize(
    ("before", "set_to", "loss"),
    [("absolute", "relative", "1%"), ("relative", "absolute", "1%"), ("absolute", "relative", 5)],
)
def test_a_refused_loss_leaves_the_criterion_as_it_was(before: str, set_to: str, loss: Any) -> None:
    criterion = AccuracyCriterion(criterion=before, tolerable_loss=0.5)
    with pytest.raises(ValueError, match=r"^AccuracyCriterion\.tolerable_loss "):
        setattr(criterion, set_to, loss)
    assert criterion == AccuracyCriterion(criterion=before, tolerable_loss=0.5)


@pytest.mark.parametrize("loss", [1, -0.5, 0], ids=["an integer", "a gain", "none"])
def test_any_number_is_a_tolerable_loss(loss: float) -> None:
    assert AccuracyCriterion(criterion="absolute", tolerable_loss=loss).absolute == loss


LOSSES = {
    "relative": st.floats(max_value=1, exclude_max=True, allow_infinity=False),
    "absolute": st.floats(allow_nan=False, allow_infinity=False),
}


@given(st.sampled_from(sorted(LOSSES)), st.data())
def test_exactly_one_of_relative_and_absolute_holds_the_loss(criterion: str, data: st.DataObject) -> None:
    loss = data.draw(LOSSES[criterion])
    made = AccuracyCriterion(criterion=criterion, tolerable_loss=loss)
    assert {made.relative, made.absolute} == {None, loss}
    assert getattr(made, criterion) == loss


def test_a_named_strategy_is_told_from_the_default() -> None:
    criterion = TuningCriterion(strategy="MSE_V2")
    assert (criterion.strategy, criterion.named_strategy) == ("mse_v2", "mse_v2")
    assert TuningCriterion(strategy="basic").named_strategy == "basic"


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param("accuracy", id="one"),
        pytest.param(["performance"], id="a list of one"),
        pytest.param(("performance", "accuracy"), id="a tuple"),
        pytest.param(["performance", "accuracy", "modelsize", "footprint"], id="all four"),
        pytest.param({"objective": "footprint"}, id="a dict with one"),
        pytest.param({"objective": ["performance", "modelsize"]}, id="a dict without weights"),
        pytest.param({"objective": ["performance", "accuracy"], "weight": [0.25, 3]}, id="weights"),
        pytest.param({"objective": ["performance", "accuracy"], "weight": [0, 1]}, id="a weight of nothing"),
        pytest.param(
            {"objective": ["performance", "accuracy"], "weight": [1, 1], "higher_is_better": [False, True]},
            id="all three keys",
        ),
        pytest.param({"weight": [2]}, id="a weight of the default objective"),
    ],
)
def test_objectives_are_kept_as_they_are_given(objective: Any) -> None:
    assert TuningCriterion(objective=objective).objective == objective


@pytest.mark.parametrize("kwargs", [None, {}, {"seed": 3, "hawq_v2_loss": len}], ids=["none", "empty", "some"])
def test_arguments_of_a_strategy_are_kept_as_they_are_given(kwargs: Any) -> None:
    assert TuningCriterion(strategy_kwargs=kwargs).strategy_kwargs == kwargs


def test_numpys_scalars_in_them_become_pythons_and_all_else_stays() -> None:
    given = {"w": np.float64(0.5), "n": np.int64(3), "deep": {"l": [np.bool_(True), None], "t": (np.str_("a"),)}}
    given |= {"path": Path("x"), "loss": len}
    kept = TuningCriterion(strategy_kwargs=given).strategy_kwargs
    assert kept == {"w": 0.5, "n": 3, "deep": {"l": [True, None], "t": ("a",)}, "path": Path("x"), "loss": len}
    assert [type(kept[key]) for key in ("w", "n")] == [float, int]
    assert [type(kept["deep"]["l"][0]), type(kept["deep"]["t"][0])] == [bool, str]


@pytest.mark.parametrize("seconds", [0, 60, 0.5], ids=str)
def test_a_timeout_is_any_number_of_seconds(seconds: float) -> None:
    assert TuningCriterion(timeout=seconds).timeout == seconds


REFUSALS: list[tuple[type[Checked], dict[str, Any], str]] = [
    (
        AccuracyCriterion,
        {"criterion": "Relative"},
        r"must be one of 'relative', 'absolute' \(did you mean 'relative'\?\)",
    ),
    (AccuracyCriterion, {"criterion": None}, "must be one of 'relative', 'absolute'"),
    (AccuracyCriterion, {"higher_is_better": 1}, "must be one of True, False"),
    (AccuracyCriterion, {"tolerable_loss": "1%"}, "must be a number"),
    (AccuracyCriterion, {"tolerable_loss": True}, "must be a number"),
    (AccuracyCriterion, {"tolerable_loss": None}, "must be a number"),
    (TuningCriterion, {"strategy": "sigopt"}, "sigopt stood on a closed service.*use 'bayesian' or 'tpe'"),
    (TuningCriterion, {"strategy": ""}, "must be the name of a strategy"),
    (TuningCriterion, {"strategy": 3}, "must be the name of a strategy"),
    (TuningCriterion, {"strategy_kwargs": ["seed"]}, "must be a dict with string keys, or None"),
    (TuningCriterion, {"strategy_kwargs": {1: 2}}, "must be a dict with string keys, or None"),
    (TuningCriterion, {"strategy_kwargs": {"ops": {"a"}}}, "has a set at ops, whose order is another.*; give a list"),
    (TuningCriterion, {"strategy_kwargs": {"a": {"b": [0, {1}]}}}, r"has a set at a\.b\[1\]"),
    (
        TuningCriterion,
        {"strategy_kwargs": {"a": np.ones(2)}},
        "has ndarray at a, which a resource cannot say; give text",
    ),
    (TuningCriterion, {"strategy_kwargs": {"a": 1j}}, "has complex at a, which a resource cannot say"),
    (TuningCriterion, {"timeout": -1}, "must be a number of at least 0"),
    (TuningCriterion, {"timeout": "1h"}, "must be a number of at least 0"),
    (TuningCriterion, {"max_trials": 0}, "must be an integer of at least 1"),
    (TuningCriterion, {"max_trials": 2.0}, "must be an integer of at least 1"),
    (TuningCriterion, {"max_trials": True}, "must be an integer of at least 1"),
    (TuningCriterion, {"early_abandonment": 0}, "must be one of True, False"),
    (TuningCriterion, {"objective": "speed"}, "must be one of 'performance', 'accuracy', 'modelsize', 'footprint'"),
    (TuningCriterion, {"objective": ["accuracy", "modelsze"]}, r"\(did you mean 'modelsize'\?\)"),
    (TuningCriterion, {"objective": []}, "must name at least one objective, and each once"),
    (TuningCriterion, {"objective": ["accuracy", "accuracy"]}, "must name at least one objective, and each once"),
    (
        TuningCriterion,
        {"objective": {"objectives": ["accuracy"]}},
        r"as a dict has the keys objective, weight and higher_is_better, not \['objectives'\]",
    ),
    (
        TuningCriterion,
        {"objective": {"objective": ["accuracy"], "weight": [1, 2]}},
        "must give one weight per objective: 1, not 2",
    ),
    (
        TuningCriterion,
        {"objective": {"objective": ["accuracy", "footprint"], "higher_is_better": [True]}},
        "must give one higher_is_better per objective: 2, not 1",
    ),
    (
        TuningCriterion,
        {"objective": {"objective": ["accuracy"], "weight": [-1]}},
        "must be a number of at least 0",
    ),
    (
        TuningCriterion,
        {"objective": {"objective": ["accuracy"], "weight": ["much"]}},
        "must be a number of at least 0",
    ),
]


def refusal_id(row: tuple[type[Checked], dict[str, Any], str]) -> str:
    return f"{row[0].__name__} {row[1]}"


@pytest.mark.parametrize(("cls", "arguments", "says"), [pytest.param(*row, id=refusal_id(row)) for row in REFUSALS])
def test_what_is_refused_is_named_with_its_rule_and_value(
    cls: type[Checked], arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        cls(**arguments)
    ((name, value),) = arguments.items()
    assert str(caught.value).startswith(f"{cls.__name__}.{name} ")
    assert str(caught.value).endswith(f"; it is {value!r:.100}")


@pytest.mark.parametrize(("cls", "arguments", "says"), [pytest.param(*row, id=refusal_id(row)) for row in REFUSALS])
def test_what_is_refused_at_first_is_refused_later(cls: type[Checked], arguments: dict[str, Any], says: str) -> None:
    ((name, value),) = arguments.items()
    made, untouched = cls(), cls()
    with pytest.raises(ValueError, match=says):
        setattr(made, name, value)
    assert made == untouched


@pytest.mark.parametrize("cls", list(DEFAULTS), ids=lambda cls: cls.__name__)
def test_every_attribute_has_a_row_of_what_it_refuses(cls: type[Checked]) -> None:
    assert {name for of, arguments, _ in REFUSALS if of is cls for name in arguments} == set(cls._checks)


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(5, id="a number"),
        pytest.param(None, id="nothing"),
        pytest.param({"objective": "accuracy", "weight": 2}, id="a weight that is no list"),
        pytest.param({"objective": "accuracy", "weight": None}, id="no weight"),
        pytest.param({"objective": "accuracy", "higher_is_better": True}, id="a direction that is no list"),
        pytest.param({"objective": "accuracy", "higher_is_better": [1]}, id="a direction that is no boolean"),
        pytest.param({1: "accuracy", "objectives": "accuracy"}, id="keys of several types"),
    ],
)
def test_an_objective_of_a_wrong_kind_is_refused_with_its_rule(objective: Any) -> None:
    with pytest.raises(ValueError, match=r"^TuningCriterion\.objective "):
        TuningCriterion(objective=objective)


@pytest.mark.parametrize("number", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize(
    ("cls", "name", "value_of"),
    [
        pytest.param(AccuracyCriterion, "tolerable_loss", lambda number: number, id="loss"),
        pytest.param(TuningCriterion, "timeout", lambda number: number, id="timeout"),
        pytest.param(TuningCriterion, "objective", lambda n: {"objective": "accuracy", "weight": [n]}, id="weight"),
    ],
)
def test_a_number_is_finite_as_in_the_resource(cls: type, name: str, value_of: Any, number: float) -> None:
    with pytest.raises(ValueError, match=rf"^{cls.__name__}\.{name} must be a finite number; it is "):
        cls(**{name: value_of(number)})


@pytest.mark.parametrize("loss", [1, 5, 1.0], ids=repr)
def test_a_relative_loss_of_the_whole_baseline_is_refused_as_in_the_resource(loss: float) -> None:
    with pytest.raises(ValueError, match=f"must be below 1 .*, not {loss}; divide it by 100, or set `absolute`"):
        AccuracyCriterion(tolerable_loss=loss)


def test_a_loss_that_is_no_fraction_does_not_become_relative() -> None:
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=5)
    with pytest.raises(ValueError, match=r"^AccuracyCriterion\.criterion does not fit: .* must be below 1"):
        criterion.criterion = "relative"
    assert criterion.absolute == 5


def test_a_hint_never_says_what_was_written() -> None:
    with pytest.raises(ValueError, match="must be one of True, False") as caught:
        AccuracyCriterion(higher_is_better="True")  # type: ignore[arg-type]
    assert "did you mean 'True'" not in str(caught.value)


@pytest.mark.parametrize(
    ("instance", "name", "says"),
    [
        (AccuracyCriterion(), "tolerableloss", r"has no 'tolerableloss' \(did you mean 'tolerable_loss'\?\)"),
        (TuningCriterion(), "max_trial", r"has no 'max_trial' \(did you mean 'max_trials'\?\)"),
        (TuningCriterion(), "objectives", r"has no 'objectives' \(did you mean 'objective'\?\)"),
        (TuningCriterion(), "zzz", r"^TuningCriterion has no 'zzz'$"),
    ],
    ids=["accuracy", "tuning", "a plural", "nothing near"],
)
def test_an_attribute_that_is_not_there_names_the_nearest(instance: Any, name: str, says: str) -> None:
    with pytest.raises(AttributeError, match=says):
        setattr(instance, name, 1)


def test_reading_an_attribute_that_is_not_there_names_the_nearest_too() -> None:
    with pytest.raises(AttributeError, match=r"has no 'max_trial' \(did you mean 'max_trials'\?\)"):
        _ = TuningCriterion().max_trial


def test_criteria_are_equal_by_value_and_not_shared() -> None:
    one, other = TuningCriterion(), TuningCriterion()
    assert one == other
    one.max_trials = 7
    assert one != other
    assert "max_trials=7" in repr(one)
    assert repr(one).startswith("TuningCriterion(strategy='basic', ")


@pytest.mark.parametrize("strategy", [None, "mse"], ids=["no strategy named", "a strategy named"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["copy", "pickle"])
def test_a_copy_knows_whether_a_strategy_was_named(copied: Any, strategy: str | None) -> None:
    again = copied(TuningCriterion(strategy=strategy, max_trials=7))
    assert again == TuningCriterion(strategy=strategy, max_trials=7)
    assert again.named_strategy == strategy
