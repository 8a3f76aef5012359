"""Attributes checked when they are set: each check on its own, and an object made of them."""

import copy
import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.config.checks import Check, Checked, anything, each_once, near, number, one_of, only


class Sample(Checked):
    """An object with one attribute of each check."""

    colour: str
    count: int
    other: Any
    _checks: ClassVar[Mapping[str, Check]] = {
        "colour": one_of("red", "green"),
        "count": number(least=1, integer=True),
        "other": anything,
    }

    def __init__(self, colour: str = "red", count: int = 1, other: Any = None) -> None:
        self.colour = colour
        self.count = count
        self.other = other


class Twin(Sample):
    """The same attributes in another class."""


@pytest.mark.parametrize(
    ("given_name", "known", "says"),
    [
        pytest.param("max_trial", ["timeout", "max_trials"], " (did you mean 'max_trials'?)", id="a letter missing"),
        pytest.param("Relative", ["absolute", "relative"], " (did you mean 'relative'?)", id="a capital letter"),
        pytest.param("xyz", ["timeout", "max_trials"], "", id="nothing is near"),
        pytest.param("anything", [], "", id="nothing is known"),
        pytest.param(12, ["10", "125"], " (did you mean '125'?)", id="a number is compared as it is written"),
        pytest.param("ab", iter(["ac", "abc"]), " (did you mean 'abc'?)", id="an iterator"),
    ],
)
def test_the_hint_names_the_one_nearest_name_or_says_nothing(given_name: object, known: Any, says: str) -> None:
    assert near(given_name, known) == says


@pytest.mark.parametrize(
    ("allowed", "value"),
    [
        pytest.param(("a", "b"), "b", id="text"),
        pytest.param((None, True, False), None, id="nothing"),
        pytest.param((None, True, False), False, id="false"),
        pytest.param(("auto", 0, 1), 0, id="zero"),
    ],
)
def test_one_of_keeps_what_is_allowed(allowed: tuple[Any, ...], value: Any) -> None:
    kept = one_of(*allowed)(value)
    assert kept == value
    assert type(kept) is type(value)


@pytest.mark.parametrize(
    ("allowed", "value", "says"),
    [
        pytest.param(
            ("red", "green"), "gren", r"^must be one of 'red', 'green' \(did you mean 'green'\?\)$", id="near"
        ),
        pytest.param(("red", "green"), "", r"^must be one of 'red', 'green'$", id="empty text"),
        pytest.param(("auto", 0, 1), True, r"^must be one of 'auto', 0, 1$", id="true is not 1"),
        pytest.param(("auto", 0, 1), 1.0, r"^must be one of 'auto', 0, 1", id="1.0 is not 1"),
        pytest.param((True, False), 1, r"^must be one of True, False$", id="1 is not true"),
        pytest.param(("a",), None, r"^must be one of 'a'$", id="nothing"),
        pytest.param(("a",), ["a"], r"^must be one of 'a'", id="a list of one"),
        pytest.param((True, False), "True", r"^must be one of True, False$", id="a text is near no boolean"),
    ],
)
def test_one_of_refuses_all_else_and_equal_values_of_another_type(
    allowed: tuple[Any, ...], value: Any, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        one_of(*allowed)(value)


@pytest.mark.parametrize("default", ["cpu", [], {}, None, False], ids=repr)
def test_only_keeps_the_default(default: Any) -> None:
    assert only(default, "no other is there")(copy.copy(default)) == default


@pytest.mark.parametrize(("default", "value"), [("cpu", "gpu"), ([], ["x"]), (False, True), (None, "ALL")], ids=repr)
def test_only_refuses_what_is_not_the_default_and_says_why_and_which_it_is(default: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^no other is there; leave it at ") as caught:
        only(default, "no other is there")(value)
    assert str(caught.value).endswith(repr(default))


@pytest.mark.parametrize(
    ("check", "value"),
    [
        pytest.param(number(), -2.5, id="any number"),
        pytest.param(number(), 3, id="an integer is a number"),
        pytest.param(number(least=0), 0, id="the least is allowed"),
        pytest.param(number(least=0), 0.25, id="above the least"),
        pytest.param(number(integer=True), -7, id="a negative integer"),
        pytest.param(number(least=1, integer=True), 1, id="the least integer"),
    ],
)
def test_a_number_inside_is_kept_as_it_is(check: Check, value: float) -> None:
    kept = check(value)
    assert kept == value
    assert type(kept) is type(value)


@pytest.mark.parametrize(
    ("check", "value", "kept"),
    [
        (number(), np.float64(0.5), 0.5),
        (number(), np.float32(0.5), 0.5),
        (number(integer=True), np.int64(3), 3),
        (number(), np.asarray(0.5), 0.5),
    ],
    ids=["float64", "float32", "int64", "an array of no dimension"],
)
def test_a_number_of_numpy_is_kept_as_pythons(check: Check, value: Any, kept: float) -> None:
    assert check(value) == kept
    assert type(check(value)) is type(kept)


@pytest.mark.parametrize(
    ("check", "value", "says"),
    [
        pytest.param(number(), "1", "must be a number", id="text"),
        pytest.param(number(), None, "must be a number", id="nothing"),
        pytest.param(number(), True, "must be a number", id="true is no number"),
        pytest.param(number(), 1j, "must be a number", id="a complex number"),
        pytest.param(number(), float("nan"), "must be a finite number", id="what is not a number"),
        pytest.param(number(least=0), float("inf"), "must be a finite number", id="infinity"),
        pytest.param(number(least=0), -0.5, "must be a number of at least 0", id="below the least"),
        pytest.param(number(integer=True), 1.0, "must be an integer", id="a float is no integer"),
        pytest.param(number(integer=True), False, "must be an integer", id="false is no integer"),
        pytest.param(
            number(least=1, integer=True), 0, "must be an integer of at least 1", id="below the least integer"
        ),
    ],
)
def test_a_number_outside_is_refused_with_the_kind_and_the_least(check: Check, value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}$"):
        check(value)


def test_a_value_that_is_there_twice_is_named() -> None:
    each_once([])
    each_once(["a", "b"])
    with pytest.raises(ValueError, match=r"^must give each value once, but has 'b' twice; remove one$"):
        each_once(["a", "b", "b"])


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_anything_is_kept_as_it_is(value: Any) -> None:
    assert anything(value) is value


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.integers(-3, 3))
def test_a_number_is_refused_exactly_below_the_least(value: float, least: int) -> None:
    refused = False
    try:
        number(least=least)(value)
    except ValueError:
        refused = True
    assert refused == (value < least)


# --- objects made of checks


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            {"colour": "Green"},
            r"^Sample\.colour must be one of 'red', 'green' \(did you mean 'green'\?\); it is 'Green'$",
            id="rule, hint and value",
        ),
        pytest.param({"count": 0}, r"^Sample\.count must be an integer of at least 1; it is 0$", id="rule and value"),
        pytest.param({"count": None}, r"^Sample\.count must be an integer of at least 1; it is None$", id="nothing"),
    ],
)
def test_a_refusal_names_the_class_the_attribute_the_rule_and_the_value(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Sample(**arguments)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="; it is ") as caught:
        Sample(colour="x" * 10_000)
    assert len(str(caught.value)) < 200


def test_a_refused_value_leaves_the_one_before() -> None:
    sample = Sample(count=3)
    with pytest.raises(ValueError, match="at least 1"):
        sample.count = 0
    assert sample.count == 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("color", r"^Sample has no 'color' \(did you mean 'colour'\?\)$", id="one is near"),
        pytest.param("zzz", r"^Sample has no 'zzz'$", id="none is near"),
        pytest.param("_checks", r"^Sample has no '_checks'", id="not the table either"),
    ],
)
def test_only_the_tables_attributes_can_be_set(name: str, says: str) -> None:
    with pytest.raises(AttributeError, match=says):
        setattr(Sample(), name, 1)


def test_objects_are_equal_by_class_and_value() -> None:
    assert Sample("green", 2, [1]) == Sample("green", 2, [1])
    assert Sample("green", 2) != Sample("green", 3)
    assert Sample() != Twin()
    assert Sample() != {"colour": "red", "count": 1, "other": None}


def test_an_object_that_can_change_has_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable type: 'Sample'"):
        hash(Sample())


def test_an_object_reads_as_the_call_that_makes_it_in_the_tables_order() -> None:
    sample = Sample("green", 2, {"a": [1]})
    assert repr(sample) == "Sample(colour='green', count=2, other={'a': [1]})"
    assert eval(repr(sample)) == sample


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["copy", "deepcopy", "pickle"]
)
def test_a_copy_is_equal_and_checks_too(copied: Any) -> None:
    original = Sample("green", 2, [1])
    again = copied(original)
    assert again == original
    again.count = 9
    assert original.count == 2
    with pytest.raises(ValueError, match="must be one of"):
        again.colour = "blue"
