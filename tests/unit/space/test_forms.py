"""Configurations as Neural Compressor's users know them: a dict by (op name, op type), there and back.

Source: OpTuningConfig and initial_tuning_cfg of Neural Compressor 2.x.
"""

from collections.abc import Callable
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.space.capability import PRECISIONS, Mode, Op, OpCapability, capability_of
from quantuner.space.config import FP32, OpConfig, TuneConfig, default_config
from quantuner.space.forms import as_dict, caps_of, from_dict, initial_tuning_cfg
from quantuner.space.op_tuning_config import OpTuningConfig
from quantuner.space.samplers import initial
from quantuner.space.tree import OpKey, TuningSpace
from tests.unit.space.spaces import NETWORK, narrowing, space_of

SIZES = (100, 300)
SPACE = TuningSpace([capability_of(op, "auto", (Mode.BF16, Mode.FP32)) for op in NETWORK], SIZES)
BASE = initial(SPACE.capabilities).calibrated_with(100)
FC1: OpKey = ("fc1", "Linear")
STATIC_STATE = {
    "activation": {
        "dtype": "uint8",
        "quant_mode": "static",
        "scheme": "asym",
        "granularity": "per_tensor",
        "algorithm": "kl",
    },
    "weight": {"dtype": "int8", "scheme": "sym", "granularity": "per_channel", "algorithm": "minmax"},
}


def op(mode: Any, **kwargs: Any) -> OpTuningConfig:
    return OpTuningConfig(*FC1, mode, SPACE, kwargs)


def refused(made: Callable[[], object]) -> str:
    with pytest.raises(SearchError) as caught:
        made()
    assert caught.value.reason == Failure.CONFIGURATION_INVALID
    return caught.value.message


# --- one op


def test_a_quantized_op_has_its_first_options_where_none_are_said() -> None:
    config = OpTuningConfig(*FC1, "static", SPACE)
    assert config.config == default_config(SPACE.by_name["fc1"])
    assert (config.act_dtype, config.weight_dtype, config.has_weight) == ("uint8", "int8", True)
    assert config.get_state() == STATIC_STATE


@pytest.mark.parametrize(
    ("mode", "kwargs", "short"),
    [
        pytest.param("static", {"activation_scheme": "sym"}, "static/sym/kl", id="one option"),
        pytest.param(
            "static",
            {"activation_scheme": "sym", "activation_algorithm": "minmax"},
            "static/sym/minmax",
            id="two options",
        ),
        pytest.param(Mode.STATIC, {}, "static/asym/kl", id="the mode itself"),
        pytest.param(("static",), {}, "static/asym/kl", id="in a tuple"),
        pytest.param("dynamic", {}, "dynamic/asym/minmax", id="dynamic"),
        pytest.param("bf16", {}, "bf16", id="a precision"),
        pytest.param(("fp32",), {}, "fp32", id="a precision in a tuple, as fallback samplers have it"),
        pytest.param(Mode.FP32, {}, "fp32", id="the precision itself"),
        pytest.param("precision", {"activation_dtype": "bf16"}, "bf16", id="precision with its data type"),
        pytest.param(("precision", "x"), {"activation_dtype": "fp32"}, "fp32", id="precision in a tuple"),
        pytest.param("fp32", {"weight_dtype": "fp32", "activation_dtype": "fp32"}, "fp32", id="with its data types"),
    ],
)
def test_an_op_may_be_spelt_in_every_way_of_the_reference(mode: Any, kwargs: dict[str, str], short: str) -> None:
    assert op(mode, **kwargs).config.short() == short


@pytest.mark.parametrize("spelling", ["fp32", ("fp32",), Mode.FP32], ids=repr)
def test_a_precision_sets_both_data_types_and_has_one_state_however_it_is_spelt(spelling: Any) -> None:
    config = op(spelling)
    assert (config.act_dtype, config.weight_dtype) == ("fp32", "fp32")
    assert config.get_state() == {
        "activation": {"dtype": "fp32", "quant_mode": "fp32"},
        "weight": {"dtype": "fp32"},
    }
    assert config.config == FP32


def test_an_op_without_a_weight_has_no_weight_in_its_state() -> None:
    options = {("activation", "dtype"): ("uint8",), ("activation", "scheme"): ("asym",)}
    space = TuningSpace([OpCapability(Op("add", "Add"), {Mode.STATIC: options, Mode.FP32: {}})], SIZES)
    quantized, fp32 = OpTuningConfig("add", "Add", "static", space), OpTuningConfig("add", "Add", "fp32", space)
    assert (quantized.has_weight, quantized.weight_dtype) == (False, None)
    assert quantized.get_state() == {"activation": {"dtype": "uint8", "quant_mode": "static", "scheme": "asym"}}
    assert fp32.get_state() == {"activation": {"dtype": "fp32", "quant_mode": "fp32"}}


@pytest.mark.parametrize(
    ("mode", "kwargs", "says"),
    [
        pytest.param(
            "statc", {}, "fc1: 'statc' is no quantization mode or precision; the nearest is 'static'", id="mode"
        ),
        pytest.param("fp16", {}, "fc1 (Linear) has no mode 'fp16'; the nearest is 'bf16'", id="a mode it has not"),
        pytest.param("precision", {}, "fc1: None is no quantization mode or precision", id="precision of no data type"),
        pytest.param(None, {}, "fc1: None is no quantization mode or precision", id="no mode"),
        pytest.param((), {}, "fc1: () is no quantization mode or precision", id="an empty tuple"),
        pytest.param(
            "static",
            {"activation_schem": "sym"},
            "fc1: 'activation_schem' is no item of mode static; the nearest is 'activation_scheme'",
            id="item",
        ),
        pytest.param(
            "static",
            {"activation_scheme": "symm"},
            "fc1: activation_scheme cannot be 'symm'; the nearest is 'sym'",
            id="option",
        ),
        pytest.param(
            "dynamic",
            {"activation_algorithm": "kl"},
            "fc1: activation_algorithm cannot be 'kl'; the nearest is 'minmax'",
            id="an option of another mode",
        ),
    ],
)
def test_what_an_op_cannot_do_is_refused_with_the_nearest(mode: Any, kwargs: dict[str, str], says: str) -> None:
    assert refused(lambda: op(mode, **kwargs)).startswith(says)


def test_an_op_that_the_model_has_not_is_refused_with_the_nearest() -> None:
    message = refused(lambda: OpTuningConfig("fc3", "Linear", "static", SPACE))
    assert message == "the model has no op 'fc3'; the nearest is 'fc2'"


def test_what_the_user_forbade_is_no_option() -> None:
    space = TuningSpace(space_of("static", names=(narrowing("fc1", activation_algorithm=("kl",)),)), SIZES)
    message = refused(lambda: OpTuningConfig(*FC1, "static", space, {"activation_algorithm": "minmax"}))
    assert "activation_algorithm cannot be 'minmax'; the nearest is 'kl'" in message


def test_ops_are_equal_by_what_they_say_and_not_by_their_space() -> None:
    again = TuningSpace(SPACE.capabilities, (7,))
    assert OpTuningConfig(*FC1, "static", SPACE) == OpTuningConfig(*FC1, "static", again)
    assert OpTuningConfig(*FC1, "static", SPACE) != OpTuningConfig(*FC1, "dynamic", SPACE)
    assert "TuningSpace" not in repr(OpTuningConfig(*FC1, "static", SPACE))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(op(("fp32",)), id="in a tuple"),
        pytest.param(op("precision", activation_dtype="fp32"), id="precision"),
        pytest.param(op("fp32", activation_dtype="fp32"), id="with its data type"),
    ],
)
def test_the_spellings_of_a_precision_are_equal(other: OpTuningConfig) -> None:
    """The reference's history took them for different configurations."""
    assert op("fp32") == other


def test_options_that_are_said_equal_those_that_are_not() -> None:
    assert op("static", activation_scheme="asym") == op("static")
    assert op("static", activation_scheme="sym") != op("static")


def test_an_op_of_another_type_is_refused() -> None:
    message = refused(lambda: OpTuningConfig("fc1", "Conv2d", "static", SPACE))
    assert message == "fc1 is no 'Conv2d'; the nearest is 'Linear'"


# --- the dict


def test_the_dict_holds_every_op_the_sample_size_and_the_recipes() -> None:
    body = as_dict(BASE.with_recipes({"smooth_quant": True}), SPACE)
    assert list(body) == [*((o.name, o.type) for o in NETWORK), "calib_sampling_size", "recipe_cfgs"]
    assert body[FC1].get_state() == STATIC_STATE
    assert (body["calib_sampling_size"], body["recipe_cfgs"]) == (100, {"smooth_quant": True})


def test_a_configuration_without_a_sample_size_has_the_first_of_the_space() -> None:
    config = initial(SPACE.capabilities)
    assert config.calib_sampling_size == 0
    assert as_dict(config, SPACE)["calib_sampling_size"] == 100
    assert from_dict(as_dict(config, SPACE), SPACE) == config.calibrated_with(100)


def test_the_dict_is_the_callers_own() -> None:
    config = BASE.with_recipes({"smooth_quant": True})
    body = as_dict(config, SPACE)
    body["recipe_cfgs"]["smooth_quant"] = False
    del body[FC1]
    assert config.recipes == {"smooth_quant": True}
    assert FC1 in as_dict(config, SPACE)


@pytest.mark.parametrize(
    ("value", "short"),
    [
        pytest.param(op("static", activation_scheme="sym"), "static/sym/kl", id="an op's configuration"),
        pytest.param(OpTuningConfig(*FC1, ("fp32",), SPACE), "fp32", id="a precision"),
        pytest.param(SPACE.get_default_config(FC1, "dynamic"), "dynamic/asym/minmax", id="the space's own default"),
        pytest.param(FP32, "fp32", id="a plain configuration"),
        pytest.param(STATIC_STATE, "static/asym/kl", id="a state"),
        pytest.param({"activation": {"quant_mode": "static", "scheme": "sym"}}, "static/sym/kl", id="part of a state"),
        pytest.param({"activation": {"dtype": "bf16", "quant_mode": "precision"}}, "bf16", id="a precision's state"),
        pytest.param({"activation": {"dtype": "fp32", "quant_mode": ("fp32",)}}, "fp32", id="a mode in a tuple"),
        pytest.param({"activation": {"dtype": "fp32"}}, "fp32", id="a data type alone"),
    ],
)
def test_an_op_may_be_given_in_every_form(value: Any, short: str) -> None:
    config = from_dict({FC1: value}, SPACE)
    assert config["fc1"].short() == short
    assert config.having({"fc1": BASE["fc1"]}) == BASE


def test_an_op_that_is_not_named_has_its_first_options() -> None:
    assert from_dict({}, SPACE) == BASE


def test_an_op_of_another_space_is_read_in_this_one() -> None:
    narrow = TuningSpace(space_of("static", names=(narrowing("fc1", activation_algorithm=("kl",)),)), SIZES)
    wide = OpTuningConfig(*FC1, "static", SPACE, {"activation_algorithm": "minmax"})
    assert "activation_algorithm cannot be 'minmax'" in refused(lambda: from_dict({FC1: wide}, narrow))


@pytest.mark.parametrize("key", ["calib_iteration", "approach", "trial_number", "advance"])
def test_what_a_search_says_itself_is_read_over(key: str) -> None:
    assert from_dict({key: 3}, SPACE) == BASE


@pytest.mark.parametrize(("size", "kept"), [(300, 300), ("300", 300), (0, 100), (None, 100)], ids=repr)
def test_a_sample_size_is_one_of_the_searchs(size: Any, kept: int) -> None:
    assert from_dict({"calib_sampling_size": size}, SPACE) == BASE.calibrated_with(kept)


def test_recipes_are_kept_as_they_are_given() -> None:
    recipes = {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.5}}
    assert from_dict({"recipe_cfgs": recipes}, SPACE) == BASE.with_recipes(recipes)
    assert from_dict({"recipe_cfgs": None}, SPACE) == BASE


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(
            {("fc3", "Linear"): STATIC_STATE},
            "the model has no op ('fc3', 'Linear'); the nearest is 'fc2'",
            id="an op that is not there",
        ),
        pytest.param(
            {("fc1", "Conv2d"): STATIC_STATE}, "the model has no op ('fc1', 'Conv2d'); the nearest is 'fc1'", id="type"
        ),
        pytest.param(
            {"fc1": STATIC_STATE},
            "a configuration has no key 'fc1': keys are (op name, op type) and model-wide ones; the nearest is ",
            id="a name without its type",
        ),
        pytest.param(
            {"calib_sampling_sizes": 100},
            "a configuration has no key 'calib_sampling_sizes': keys are (op name, op type) and model-wide ones; "
            "the nearest is 'calib_sampling_size'",
            id="a misspelt key",
        ),
        pytest.param(
            {"calib_sampling_size": 200}, "calib_sampling_size 200 is none of [100, 300]; give one of these", id="size"
        ),
        pytest.param(
            {FC1: 5}, "the configuration of fc1 must be an OpTuningConfig or its get_state(), not 5", id="no state"
        ),
        pytest.param(
            {FC1: {"weight": {"dtype": "int8"}}},
            "the configuration of fc1 must be an OpTuningConfig or its get_state(), not {'weight'",
            id="a state without an activation",
        ),
        pytest.param(
            {FC1: {"activation": {"dtype": "uint8"}}},
            "fc1: 'uint8' is no quantization mode or precision; the nearest is ",
            id="a quantized data type without its mode",
        ),
        pytest.param(
            {FC1: {"activation": {"quant_mode": "static", "bits": 4}}},
            "fc1: 'activation_bits' is no item of mode static; the nearest is ",
            id="an item that is not there",
        ),
        pytest.param(
            {FC1: {"activation": {"quant_mode": "static", "scheme": ["asym"]}}},
            "fc1: activation_scheme cannot be ['asym']; the nearest is 'asym'",
            id="a list, as a constraint has it",
        ),
        pytest.param(
            {FC1: OpConfig(Mode.FP16)}, "fc1 (Linear) has no mode 'fp16'; the nearest is 'bf16'", id="no such precision"
        ),
    ],
)
def test_what_a_dict_cannot_say_is_refused_with_the_nearest(body: dict[Any, Any], says: str) -> None:
    assert refused(lambda: from_dict(body, SPACE)).startswith(says)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param({FC1: {"activation": None}}, "fc1 must be an OpTuningConfig or its get_state(), not {", id="None"),
        pytest.param({FC1: {"activation": "int8"}}, "must be an OpTuningConfig or its get_state(), not {", id="text"),
        pytest.param(
            {FC1: {**STATIC_STATE, "weight": None}}, "must be an OpTuningConfig or its get_state()", id="weight"
        ),
        pytest.param({"calib_sampling_size": "many"}, "'many' is none of [100, 300]; give one", id="a size in words"),
        pytest.param({"calib_sampling_size": 300.5}, "300.5 is none of [100, 300]; give one", id="half a sample"),
        pytest.param(
            {"recipe_cfgs": ["smooth_quant"]}, "recipe_cfgs must be a dict of recipes", id="recipes in a list"
        ),
        pytest.param({"recipe_cfgs": []}, "recipe_cfgs must be a dict of recipes", id="recipes in an empty list"),
        pytest.param({(): STATIC_STATE}, "the model has no op (); the nearest is ", id="a key of nothing"),
    ],
)
def test_what_is_malformed_is_refused_as_what_is_misspelt(body: dict[Any, Any], says: str) -> None:
    assert says in refused(lambda: from_dict(body, SPACE))


def test_an_op_that_a_configuration_does_not_name_is_not_in_its_dict() -> None:
    part = TuneConfig({"fc1": FP32})
    assert [key for key in as_dict(part, SPACE) if isinstance(key, tuple)] == [FC1]


# --- the initial configuration


def test_static_claims_what_it_can_then_dynamic_then_precisions() -> None:
    convolution, second, linear, last = NETWORK
    space = TuningSpace(
        [
            capability_of(convolution, "dynamic"),
            capability_of(second, "static"),
            OpCapability(linear, {Mode.BF16: {}, Mode.FP32: {}}),
            capability_of(last, "auto"),
        ],
        SIZES,
    )
    modes, claimed, configs = initial_tuning_cfg(space)
    assert modes == {
        ("conv2", "Conv2d"): "static",
        ("fc2", "Linear"): "static",
        ("conv1", "Conv2d"): "dynamic",
        ("fc1", "Linear"): "bf16",
    }
    assert list(modes) == [("conv2", "Conv2d"), ("fc2", "Linear"), ("conv1", "Conv2d"), ("fc1", "Linear")]
    assert {mode: [item.name for item in items] for mode, items in claimed.items()} == {
        "static": [("conv2", "Conv2d"), ("fc2", "Linear")],
        "dynamic": [("conv1", "Conv2d")],
        "weight_only": [],
        "bf16": [("fc1", "Linear")],
        "fp16": [],
        "fp32": [],
    }
    assert list(claimed) == ["static", "dynamic", "weight_only", "bf16", "fp16", "fp32"]
    assert {key: config.config.short() for key, config in configs.items()} == {
        ("conv2", "Conv2d"): "static/asym/kl",
        ("fc2", "Linear"): "static/asym/kl",
        ("conv1", "Conv2d"): "dynamic/asym/minmax",
        ("fc1", "Linear"): "bf16",
    }


@pytest.mark.parametrize(
    ("approach", "mode"), [("static", "static"), ("dynamic", "dynamic"), ("auto", "static"), ("qat", "static")]
)
def test_the_initial_configuration_is_the_samplers(approach: str, mode: str) -> None:
    space = TuningSpace([capability_of(o, approach, PRECISIONS) for o in NETWORK], SIZES)
    modes, claimed, configs = initial_tuning_cfg(space)
    assert set(modes.values()) == {name for name, items in claimed.items() if items} == {mode}
    assert {key[0]: config.config for key, config in configs.items()} == dict(initial(space.capabilities))


# --- the capability

CONV_STATIC = {
    "activation": {
        "dtype": ["uint8"],
        "quant_mode": "static",
        "scheme": ["asym", "sym"],
        "granularity": ["per_tensor"],
        "algorithm": ["kl", "minmax"],
    },
    "weight": {"dtype": ["int8"], "scheme": ["sym"], "granularity": ["per_channel"], "algorithm": ["minmax"]},
}
"""As Neural Compressor's back end for PyTorch says it."""


def test_a_capability_has_a_dict_for_each_mode_as_in_the_reference() -> None:
    static, dynamic, bf16, fp32 = caps_of(capability_of(NETWORK[0], "auto", [Mode.BF16, Mode.FP32]))
    assert static == CONV_STATIC
    assert dynamic["activation"]["quant_mode"] == "dynamic"
    assert bf16 == {"activation": {"dtype": "bf16"}, "weight": {"dtype": "bf16"}}
    assert fp32 == {"activation": {"dtype": "fp32"}, "weight": {"dtype": "fp32"}}


def test_an_op_without_a_weight_has_none_in_its_capability() -> None:
    static, fp32 = caps_of(capability_of(Op("scores", "MatMul"), "static"))
    assert static == {"activation": CONV_STATIC["activation"]}
    assert fp32 == {"activation": {"dtype": "fp32"}}


def test_an_embedding_has_its_input_in_fp32_as_a_placeholder() -> None:
    static, _ = caps_of(capability_of(Op("words", "Embedding"), "static"))
    assert static["activation"] == {"dtype": ["fp32"], "quant_mode": "static"}
    assert static["weight"]["dtype"] == ["int8"]


def test_numbers_are_numbers_in_a_capability() -> None:
    weight_only, _ = caps_of(capability_of(Op("fc", "Linear"), "weight_only"))
    assert weight_only["activation"] == {"dtype": ["fp32"], "quant_mode": "weight_only"}
    assert (weight_only["weight"]["bits"], weight_only["weight"]["group_size"]) == ([4, 8], [32, -1, 64, 128])


def test_what_the_user_forbade_is_in_no_capability() -> None:
    (fc1,) = [c for c in space_of("static", names=(narrowing("fc1", weight_dtype=("fp32",)),)) if c.op.name == "fc1"]
    assert caps_of(fc1) == [{"activation": {"dtype": "fp32"}, "weight": {"dtype": "fp32"}}]
