"""The user's constraints narrow what a search tries, and say so where they match nothing."""

import contextlib
from typing import Any

import pytest
from hypothesis import given

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import Override, Quantization
from quantuner.space.capability import OPT_IN_TYPES, PRECISIONS, Mode, Op, OpCapability, capability_of, on_request
from quantuner.space.constraints import constrain, overrides_of
from tests.unit.space.spaces import NETWORK, narrowing, ops, quantizations, space_of


def refused(approach: str = "static", *, types: tuple[Override, ...] = (), names: tuple[Override, ...] = ()) -> str:
    with pytest.raises(SearchError) as caught:
        space_of(approach, types=types, names=names)
    assert caught.value.reason == Failure.OVERRIDE_MATCHES_NOTHING
    return caught.value.message


def by_name(space: tuple[OpCapability, ...]) -> dict[str, OpCapability]:
    return {c.op.name: c for c in space}


@given(ops, quantizations)
def test_what_is_left_is_inside_the_capability_in_its_order(model: tuple[Op, ...], quantization: Quantization) -> None:
    space: tuple[OpCapability, ...] = ()
    with contextlib.suppress(SearchError):
        space = constrain(model, quantization)
        assert [c.op for c in space] == list(model)
    for capability in space:
        full = capability_of(capability.op, quantization.approach)
        assert capability.modes
        assert list(capability.modes) == [mode for mode in full.modes if mode in capability.modes]
        for mode, options in capability.modes.items():
            assert list(options) == list(full.modes[mode])
            for item, values in options.items():
                assert values
                known = (*full.modes[mode][item], *on_request(item, full.modes[mode][item], ["percentile"]))
                assert values == tuple(option for option in known if option in values)


@given(ops)
def test_without_constraints_every_op_keeps_all_it_can_do(model: tuple[Op, ...]) -> None:
    found = constrain(model, Quantization("auto"))
    assert [c.op for c in found] == list(model)
    assert all(c.op.type in OPT_IN_TYPES or c == capability_of(c.op, "auto") for c in found)


PRODUCT = Op("scores", "MatMul")


@pytest.mark.parametrize(
    ("types", "modes"),
    [
        pytest.param((), [Mode.FP32], id="nothing is asked for"),
        pytest.param((narrowing(".*", activation_scheme=("sym",)),), [Mode.FP32], id="a constraint on all ops"),
        pytest.param((narrowing("MatMul", activation_scheme=("sym",)),), [Mode.STATIC, Mode.FP32], id="on it alone"),
        pytest.param((narrowing(".*", activation_dtype=("uint8",)),), [Mode.STATIC, Mode.FP32], id="its data type"),
        pytest.param(
            (narrowing("MatMul", activation_scheme=("sym",)), narrowing(".*", activation_algorithm=("minmax",))),
            [Mode.STATIC, Mode.FP32],
            id="a later constraint on all narrows what was asked for",
        ),
        pytest.param((narrowing(".*", activation_dtype=("fp32",)),), [Mode.FP32], id="everything in fp32"),
    ],
)
def test_a_product_of_activations_is_quantized_where_it_is_asked_for(types: Any, modes: list[Mode]) -> None:
    space = by_name(space_of("static", *NETWORK, PRODUCT, types=types))
    assert list(space["scores"].modes) == modes
    assert len(types) < 2 or space["scores"].modes[Mode.STATIC]["activation", "algorithm"] == ("minmax",)


@pytest.mark.parametrize("pattern", [".*", "MatMul"])
def test_a_product_stays_in_fp32_under_an_approach_that_has_nothing_for_it(pattern: str) -> None:
    asked = (narrowing(pattern, activation_dtype=("uint8",)),)
    assert list(by_name(space_of("dynamic", *NETWORK, PRODUCT, types=asked))["scores"].modes) == [Mode.FP32]


def test_an_entry_for_a_precision_that_is_not_there_says_what_to_do() -> None:
    only_bf16 = Quantization(op_names=(narrowing("fc1", weight_dtype=("bf16",)),))
    with pytest.raises(SearchError, match=r"it can do .*; fp32; bf16 needs to be in quantization.precisions"):
        constrain(NETWORK, only_bf16)
    with pytest.raises(SearchError, match=r"; bf16 is left out: too old$"):
        constrain(NETWORK, only_bf16, left_out={Mode.BF16: "too old"})
    (fc1,) = [c for c in constrain(NETWORK, only_bf16, [Mode.BF16, Mode.FP32]) if c.op.name == "fc1"]
    assert list(fc1.modes) == [Mode.BF16]


@pytest.mark.parametrize(
    ("excluded", "modes"),
    [
        pytest.param((), [Mode.STATIC, Mode.BF16, Mode.FP16, Mode.FP32], id="all"),
        pytest.param(("bf16",), [Mode.STATIC, Mode.FP16, Mode.FP32], id="less one"),
    ],
)
def test_precisions_come_after_quantized_modes_in_the_order_of_fallback(
    excluded: tuple[str, ...], modes: list[Mode]
) -> None:
    offered = [Mode.FP32, Mode.FP16, Mode.BF16]
    for capability in constrain(NETWORK, Quantization(excluded_precisions=excluded), offered):
        assert list(capability.modes) == modes


def test_a_type_is_narrowed_and_the_others_are_not() -> None:
    space = by_name(space_of("static", types=(narrowing("Conv2d", activation_algorithm=("minmax",)),)))
    assert space["conv1"].modes[Mode.STATIC]["activation", "algorithm"] == ("minmax",)
    assert space["fc1"] == capability_of(NETWORK[2], "static")


def test_the_order_of_options_is_the_capabilitys_not_the_users() -> None:
    space = by_name(space_of("static", types=(narrowing("Linear", activation_scheme=("sym", "asym")),)))
    assert space["fc1"].modes[Mode.STATIC]["activation", "scheme"] == ("asym", "sym")


def test_a_name_widens_what_its_type_narrowed() -> None:
    types = (narrowing("Conv2d", weight_dtype=("fp32",)),)
    space = by_name(space_of("static", types=types, names=(narrowing("conv2", activation_scheme=("sym",)),)))
    assert list(space["conv1"].modes) == [Mode.FP32]
    assert list(space["conv2"].modes) == [Mode.STATIC, Mode.FP32]
    assert space["conv2"].modes[Mode.STATIC]["activation", "scheme"] == ("sym",)


def test_a_later_entry_wins_item_by_item() -> None:
    names = (
        narrowing("fc.*", activation_scheme=("sym",), activation_algorithm=("kl",)),
        narrowing("fc2", activation_scheme=("asym",)),
    )
    options = by_name(space_of("static", names=names))["fc2"].modes[Mode.STATIC]
    assert options["activation", "scheme"] == ("asym",)
    assert options["activation", "algorithm"] == ("kl",)


@pytest.mark.parametrize(
    ("options", "modes"),
    [
        pytest.param({"weight_dtype": ("fp32",)}, [Mode.FP32], id="fp32 alone"),
        pytest.param({"activation_dtype": ("fp32",)}, [Mode.FP32], id="activations in fp32 keep the op there"),
        pytest.param({"weight_dtype": ("int8",)}, [Mode.STATIC, *PRECISIONS], id="int8 alone forbids no fallback"),
        pytest.param(
            {"activation_dtype": ("uint8",), "weight_dtype": ("int8",)},
            [Mode.STATIC, *PRECISIONS],
            id="nor do both that an op has",
        ),
        pytest.param({"weight_dtype": ("int8", "fp32")}, [Mode.STATIC, Mode.FP32], id="int8 and fp32"),
        pytest.param({"activation_dtype": ("uint8", "fp32")}, [Mode.STATIC, Mode.FP32], id="uint8 and fp32"),
        pytest.param(
            {"activation_dtype": ("uint8", "bf16"), "weight_dtype": ("int8",)},
            [Mode.STATIC, Mode.BF16],
            id="the one that names a precision decides",
        ),
        pytest.param(
            {"activation_dtype": ("uint8", "bf16", "fp32"), "weight_dtype": ("int8", "fp32")},
            [Mode.STATIC, Mode.FP32],
            id="what both name",
        ),
        pytest.param({"activation_scheme": ("sym",)}, [Mode.STATIC, *PRECISIONS], id="no dtype leaves all allowed"),
    ],
)
def test_dtypes_decide_the_modes(options: dict[str, tuple[str, ...]], modes: list[Mode]) -> None:
    space = constrain(NETWORK, Quantization(op_names=(narrowing("fc1", **options),)), PRECISIONS)
    assert list(by_name(space)["fc1"].modes) == modes


def test_data_types_that_name_no_precision_restore_what_an_earlier_entry_took() -> None:
    types, names = narrowing("Linear", weight_dtype=("fp32",)), narrowing("fc1", weight_dtype=("int8",))
    space = by_name(space_of("static", types=(types,), names=(names,)))
    assert {name: list(space[name].modes) for name in ("fc1", "fc2")} == {
        "fc1": [Mode.STATIC, Mode.FP32],
        "fc2": [Mode.FP32],
    }


def test_a_mode_that_has_none_of_the_options_goes() -> None:
    space = by_name(space_of("auto", types=(narrowing("Linear", activation_algorithm=("kl",)),)))
    assert list(space["fc1"].modes) == [Mode.STATIC, Mode.FP32]


def test_a_pattern_must_match_the_whole_name() -> None:
    assert "names as a whole; the nearest is conv" in refused(names=(narrowing("conv", weight_dtype=("fp32",)),))


@pytest.mark.parametrize(
    ("field", "pattern", "nearest"),
    [
        ("opNames", "fc3", "fc2"),
        ("opNames", "layer1.conv1", "conv1"),
        ("opTypes", "Conv3d", "Conv2d"),
        ("opTypes", "linear", "Linear"),
    ],
)
def test_a_pattern_that_matches_nothing_names_the_nearest(field: str, pattern: str, nearest: str) -> None:
    override = (narrowing(pattern, weight_dtype=("fp32",)),)
    message = refused(types=override) if field == "opTypes" else refused(names=override)
    assert f"quantization.{field}: the pattern {pattern!r} matches none of the" in message
    assert message.endswith(f"the nearest is {nearest}")


def test_what_is_no_regular_expression_is_said() -> None:
    message = refused(names=(narrowing("conv(", weight_dtype=("fp32",)),))
    assert "'conv(' is no regular expression (missing ), unterminated subpattern at position 4)" in message


def test_options_an_op_does_not_have_are_refused_with_those_it_has() -> None:
    message = refused(types=(narrowing("Linear", weight_scheme=("asym",)),))
    assert "the entry 'Linear' leaves fc1 (Linear) no option; it can do static: activation.dtype uint8, " in message
    assert "weight.scheme sym" in message


PERCENTILES = ("percentile:99.9", "minmax", "percentile")


def test_percentiles_are_tried_last_in_the_order_asked_for_and_only_where_they_are_asked_for() -> None:
    space = by_name(space_of("auto", names=(narrowing("fc1", activation_algorithm=PERCENTILES),)))
    options = space["fc1"].modes
    assert options[Mode.STATIC]["activation", "algorithm"] == ("minmax", "percentile:99.9", "percentile")
    assert options[Mode.DYNAMIC]["activation", "algorithm"] == ("minmax",)
    assert space["fc2"] == capability_of(NETWORK[3], "auto")


@pytest.mark.parametrize("approach", ["dynamic", "qat"])
def test_percentiles_are_refused_where_no_histogram_is_used(approach: str) -> None:
    assert "it can do" in refused(approach, types=(narrowing("Linear", activation_algorithm=("percentile",)),))


def test_a_weight_has_no_percentile() -> None:
    assert "weight.algorithm minmax" in refused(types=(narrowing("Linear", weight_algorithm=("percentile",)),))


@pytest.mark.parametrize("given_", ["percentile", "percentile:99.99", "percentile:50"])
def test_a_percentile_may_be_given_with_its_percent(given_: str) -> None:
    (override,) = overrides_of({"fc1": {"activation": {"algorithm": given_}}})
    assert override.options["activation", "algorithm"] == (given_,)


@pytest.mark.parametrize("given_", ["percentile:49", "percentile:100", "percentile:", "percentile 99", "percentil"])
def test_a_percent_out_of_range_is_refused(given_: str) -> None:
    with pytest.raises(ValueError, match="the nearest is 'percentile', of minmax, kl, percentile"):
        overrides_of({"fc1": {"activation": {"algorithm": given_}}})
