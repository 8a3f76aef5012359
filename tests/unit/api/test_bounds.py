"""How large a resource may be, and that whatever is larger is refused at once, in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.bounds import BYTES_LIMIT, DEPTH_LIMIT, VALUES_LIMIT, outgrown
from quantuner.api.errors import InvalidResourceError
from quantuner.api.validation import admit, crd
from tests.unit.records import manifest

OUTER = 3  # levels around an argument: spec, task and args


def lists(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def objects(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def body(value: Any) -> dict[str, Any]:
    return manifest({"task": {"entrypoint": "digits:task", "args": {"a": value}}})


def circle() -> Any:
    """As YAML makes it of `&a [*a]`."""
    value: list[Any] = []
    value.append(value)
    return value


def doubled() -> Any:
    """As YAML's aliases make it of few lines: 2**40 values."""
    value: Any = [1]
    for _ in range(40):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lists(DEPTH_LIMIT - OUTER), id="lists"),
        pytest.param(objects(DEPTH_LIMIT - OUTER), id="objects"),
        pytest.param([0] * (VALUES_LIMIT - 6), id="values"),
        pytest.param("a" * (BYTES_LIMIT - 100), id="a text"),
        pytest.param("é" * (BYTES_LIMIT // 6 - 100), id="a text that is not of ASCII"),
    ],
)
def test_what_is_just_within_the_limits_is_admitted(value: Any) -> None:
    assert admit(body(value))["spec"]["task"]["args"] == {"a": value}


@pytest.mark.parametrize(
    ("value", "where", "says"),
    [
        pytest.param(lists(DEPTH_LIMIT - OUTER + 1), "spec.task.args", "more than 50 deep", id="lists"),
        pytest.param(objects(DEPTH_LIMIT - OUTER + 1), "spec.task.args", "more than 50 deep", id="objects"),
        pytest.param(lists(100_000), "spec.task.args", "nest less", id="lists deeper than Python recurses"),
        pytest.param(circle(), "spec.task.args", "more than 50 deep", id="a list in itself"),
        pytest.param([0] * VALUES_LIMIT, "spec", "more than 10,000 values; put what is large into", id="values"),
        pytest.param(doubled(), "spec", "more than 10,000 values", id="aliases of aliases"),
        pytest.param("a" * BYTES_LIMIT, "spec", "more than 256 KiB of JSON; put what is large into", id="a text"),
        pytest.param("\0" * (BYTES_LIMIT // 6), "spec", "more than 256 KiB", id="a text that JSON spells long"),
        pytest.param({"a" * BYTES_LIMIT: 1}, "spec", "more than 256 KiB", id="a key"),
        pytest.param(1 << (BYTES_LIMIT * 4), "spec", "more than 256 KiB", id="an integer"),
    ],
)
def test_what_is_larger_is_refused(value: Any, where: str, says: str) -> None:
    with pytest.raises(InvalidResourceError) as refused:
        admit(body(value))
    (problem,) = refused.value.problems
    assert problem.path == where
    assert says in problem.message


@pytest.mark.parametrize("field", ["metadata", "status", "extra"])
def test_no_other_field_is_deep_either(field: str) -> None:
    with pytest.raises(InvalidResourceError, match=rf"{field}\.a: holds objects and lists more than 50 deep"):
        admit({**manifest(), field: {"a": lists(100_000)}})


def test_what_an_api_server_notes_of_a_deep_spec_is_not_the_users() -> None:
    noted = {"fieldsV1": {"f:spec": objects(DEPTH_LIMIT + 3)}}
    admit({**manifest(), "metadata": {"name": "digits", "managedFields": [noted]}})


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(values)
def test_bytes_are_those_of_the_json_or_a_few_more(value: Any) -> None:
    room = BYTES_LIMIT - len(json.dumps(value, separators=(",", ":")))
    assert outgrown({"spec": {"a": value, "b": "x" * room}}) is not None
    assert outgrown({"spec": {"a": value, "b": "x" * (room - 1000)}}) is None


def test_the_limits_stand_in_the_crd() -> None:
    described = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["description"]
    assert f"{BYTES_LIMIT // 1024} KiB of JSON, {VALUES_LIMIT:,} values and {DEPTH_LIMIT} levels" in described
