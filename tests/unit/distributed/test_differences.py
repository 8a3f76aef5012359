"""Differences of payloads: what comes back is the payload itself, types and order of keys included."""

import pickle
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantuner.distributed.differences import Reference, apply

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
@example(base={1: {"a": 0}}, payload={True: {"a": 0}})
@example(base=None, payload={"a": 1})
@example(base={"a": 1}, payload={"a": 1, "b": 2})
@example(base={"a": 1, "b": {"c": 1}}, payload={"d": 2, "b": {"c": True}})
@example(base={"a": [1, (0.0,)]}, payload={"a": [1, (-0.0,)]})
@example(base={"a": [1]}, payload={"a": (1,)})
@example(base={"a": float("nan")}, payload={"a": float("nan")})
def test_applied_to_its_base_a_difference_gives_the_payload(base: Any, payload: Any) -> None:
    before = repr(base)
    # repr tells 1, 1.0 and True apart, 0.0 and -0.0, and the order of keys.
    assert repr(apply(base, Reference(base).difference(payload))) == repr(payload)
    assert repr(base) == before


class Mode(StrEnum):
    STATIC = "static"


@pytest.mark.parametrize("base", ["static", Mode.STATIC])
@pytest.mark.parametrize("mode", ["static", Mode.STATIC])
def test_what_is_not_plain_comes_as_it_is(base: str, mode: str) -> None:
    change = Reference({"op": {"mode": base}}).difference({"op": {"mode": mode}})
    assert repr(apply({"op": {"mode": base}}, change)) == repr({"op": {"mode": mode}})


def test_the_same_is_no_difference_whichever_objects_hold_it() -> None:
    def made(text: str) -> dict[str, Any]:
        return {"op": {"scheme": text, "name": text, "sizes": [1000, 1000]}, "nan": float("nan")}

    parts = [made("".join(["s", "ym"])), made("sym"), pickle.loads(pickle.dumps(made("sym")))]
    assert [Reference(base).difference(payload) for base in parts for payload in parts] == [{}] * 9


def ops(count: int, **changed: Any) -> dict[str, Any]:
    """A payload as a search has it: each op's dtype and algorithm."""
    choices = {f"op{i}": {"dtype": "int8", "algorithm": "minmax"} for i in range(count)}
    return {"ops": {**choices, **changed}, "recipes": {"smooth": 0.5}}


@pytest.mark.parametrize(
    "change", [{}, {"op7": {"dtype": "fp32", "algorithm": "minmax"}}, {"op7": "fp32"}, {"new": {"dtype": "int8"}}]
)
@pytest.mark.parametrize(
    "around", [{}, {"limit": {"accuracy": 0.5}}, {"recipes": {"smooth": 0.7}}], ids=["same", "new", "other"]
)
def test_a_small_change_is_small_however_large_the_payload_is(change: dict[str, Any], around: dict[str, Any]) -> None:
    sizes = [
        len(pickle.dumps(Reference(ops(count)).difference({**ops(count, **change), **around}))) for count in (10, 1000)
    ]
    assert sizes[0] == sizes[1]
    assert sizes[1] < 200 < len(pickle.dumps(ops(1000))) / 20


@pytest.mark.parametrize("keys", [("recipes", "ops"), ("ops",), ("recipes", "new", "ops")])
def test_other_keys_or_another_order_leave_what_is_inside_small(keys: tuple[str, ...]) -> None:
    payload = {**ops(1000, op7="fp32"), "new": 1}
    found: Any = Reference(ops(1000)).difference({key: payload[key] for key in keys})
    assert found[0]["ops"] == {"op7": ("fp32",)}
    assert found[1] == keys


def test_only_what_differs_inside_is_named() -> None:
    change = Reference(ops(10)).difference(ops(10, op7={"dtype": "fp32", "algorithm": "minmax"}))
    assert change == {"ops": {"op7": ({"dtype": "fp32", "algorithm": "minmax"},)}}


def test_of_a_long_mapping_without_others_inside_only_what_differs_is_named() -> None:
    modes = {f"op{i}": "int8" for i in range(1000)}
    assert Reference(modes).difference({**modes, "op7": "fp32"}) == {"op7": ("fp32",)}
