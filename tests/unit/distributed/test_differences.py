"""Differences of payloads: what comes back is the payload itself, types and order of keys included."""

import pickle
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantuner.distributed.differences import apply, difference

SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, -0.0, 1.0, float("nan")]) | st.text("ab")
)
KEYS = st.sampled_from(["a", "b", "c", "d"])  # few, so that two payloads share some
PLAIN: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
MAPPINGS = st.dictionaries(KEYS, PLAIN, max_size=4)


@given(base=MAPPINGS | PLAIN, payload=MAPPINGS | PLAIN)
@example(base={"a": 1}, payload={"a": True})
@example(base={"a": {"b": 1}}, payload={"a": {"b": 1.0}})
@example(base={"a": 0.0}, payload={"a": -0.0})
@example(base={"a": 1, "b": 2}, payload={"b": 2, "a": 1})
@example(base={"a": {"a": 1, "b": 2}}, payload={"a": {"b": 2, "a": 1}})
@example(base={"a": 1, "b": 2, "c": 3}, payload={"b": 2, "a": 5, "d": 4})
@example(base={"a": None}, payload={})
@example(base={}, payload={"a": None})
@example(base={1: "x"}, payload={True: "x"})
@example(base=None, payload={"a": 1})
def test_applied_to_its_base_a_difference_gives_the_payload(base: Any, payload: Any) -> None:
    before = repr(base)
    # repr tells 1, 1.0 and True apart, 0.0 and -0.0, and the order of keys.
    assert repr(apply(base, difference(base, payload))) == repr(payload)
    assert repr(base) == before


def ops(count: int, **changed: Any) -> dict[str, Any]:
    """A payload as a search has it: each op's dtype and algorithm."""
    choices = {f"op{i}": {"dtype": "int8", "algorithm": "minmax"} for i in range(count)}
    return {"ops": {**choices, **changed}, "recipes": {"smooth": 0.5}}


@pytest.mark.parametrize(
    "change", [{}, {"op7": {"dtype": "fp32", "algorithm": "minmax"}}, {"op7": "fp32"}, {"new": {"dtype": "int8"}}]
)
def test_a_small_change_is_small_however_large_the_payload_is(change: dict[str, Any]) -> None:
    sizes = [len(pickle.dumps(difference(ops(count), ops(count, **change)))) for count in (10, 1000)]
    assert sizes[0] == sizes[1]
    assert sizes[1] < 600 < len(pickle.dumps(ops(1000))) / 20


def test_only_what_differs_inside_is_named() -> None:
    change = difference(ops(10), ops(10, op7={"dtype": "fp32", "algorithm": "minmax"}))
    assert list(change.inner) == ["ops"]
    assert dict(change.inner["ops"].inner["op7"].values) == {"dtype": "fp32"}
    assert not change.values
    assert not change.removed
    assert change.order is None
