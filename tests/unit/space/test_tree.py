"""The tuning space as a tree: its shape, its fields and every query.

Source: Neural Compressor 2.x, TuningSpace.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.space.capability import PRECISIONS, Mode, Op, OpCapability, capability_of
from quantuner.space.config import OpConfig, default_config
from quantuner.space.tree import OpKey, Path, TuningItem, TuningSpace, split_dtype
from tests.unit.space.spaces import APPROACHES, NETWORK, ops

CONV: OpKey = ("conv1", "Conv2d")
LINEAR: OpKey = ("fc1", "Linear")
ACTIVATION: Path = ("static", "activation", "int8", "unsigned")
WEIGHT: Path = ("static", "weight", "int8", "signed")


def tree(approach: str = "auto", *precisions: Mode, sizes: tuple[int, ...] = (100,)) -> TuningSpace:
    """The space of NETWORK on a machine that is fast at `precisions`, by default fp32 alone."""
    return TuningSpace([capability_of(op, approach, precisions or (Mode.FP32,)) for op in NETWORK], sizes)


def without_weight(name: str = "add") -> OpCapability:
    """An op with an activation alone; no type has one today."""
    options = {("activation", "dtype"): ("uint8", "int8"), ("activation", "scheme"): ("asym",)}
    return OpCapability(Op(name, "Add"), {Mode.STATIC: options, Mode.FP32: {}})


# --- items


@pytest.mark.parametrize(
    ("dtype", "name", "sign"), [("uint8", "int8", "unsigned"), ("int8", "int8", "signed"), ("fp32", "fp32", "signed")]
)
def test_a_data_types_name_splits_at_a_leading_u(dtype: str, name: str, sign: str) -> None:
    assert split_dtype(dtype) == (name, sign)


def test_an_option_is_found_by_its_name_or_as_itself() -> None:
    inner = TuningItem("int8", "data_type")
    item = TuningItem("activation", "attribute", (inner, "asym"))
    assert item.get_option_by_name("int8") is inner
    assert item.get_option_by_name(inner) is inner
    assert item.get_option_by_name("asym") == "asym"
    assert item.get_option_by_name("sym") is None


def test_a_plain_option_is_no_item() -> None:
    item = TuningItem("scheme", "method", ("asym",))
    assert item.item("asym") is None
    assert item.item("sym") is None


def test_a_tree_reads_an_item_a_line_with_the_plain_options() -> None:
    assert str(TuningSpace([capability_of(Op("fc", "Linear"), "static")], (10, 20))).splitlines() == [
        "root: root",
        "  calib_sampling_size: calib_sampling_size = 10, 20",
        "  op: ('fc', 'Linear')",
        "    quant_mode: precision",
        "      attribute: activation",
        "        data_type: fp32",
        "      attribute: weight",
        "        data_type: fp32",
        "    quant_mode: static",
        "      attribute: activation",
        "        data_type: int8",
        "          sign: unsigned",
        "            method: ('activation', 'scheme') = asym, sym",
        "            method: ('activation', 'granularity') = per_tensor",
        "            method: ('activation', 'algorithm') = kl, minmax",
        "      attribute: weight",
        "        data_type: int8",
        "          sign: signed",
        "            method: ('weight', 'scheme') = sym",
        "            method: ('weight', 'granularity') = per_channel",
        "            method: ('weight', 'algorithm') = minmax",
    ]


# --- fields


def test_the_root_holds_the_calibration_sizes_and_the_ops_in_the_models_order() -> None:
    space = tree(sizes=(100, 300))
    sizes, *items = space.root_item.options
    assert isinstance(sizes, TuningItem)
    assert (sizes.name, sizes.options) == ("calib_sampling_size", (100, 300))
    assert items == list(space.op_items.values())
    assert [item.name for item in space.op_items.values()] == [(op.name, op.type) for op in NETWORK]


def test_items_by_type_are_in_the_models_order() -> None:
    space = tree()
    assert {type_: [item.name for item in items] for type_, items in space.op_type_wise_items.items()} == {
        "Conv2d": [("conv1", "Conv2d"), ("conv2", "Conv2d")],
        "Linear": [("fc1", "Linear"), ("fc2", "Linear")],
    }


@pytest.mark.parametrize(
    ("approach", "precisions", "modes"),
    [
        pytest.param("static", (Mode.FP32,), ["fp32", "static"], id="static"),
        pytest.param("dynamic", (Mode.FP32,), ["fp32", "dynamic"], id="dynamic"),
        pytest.param("auto", PRECISIONS, ["bf16", "fp16", "fp32", "static", "dynamic"], id="everything"),
        pytest.param("qat", (Mode.BF16, Mode.FP32), ["bf16", "fp32", "static"], id="training"),
    ],
)
def test_precisions_precede_modes(approach: str, precisions: tuple[Mode, ...], modes: list[str]) -> None:
    space = tree(approach, *precisions)
    assert list(space.quant_mode_wise_items) == modes
    for items in space.quant_mode_wise_items.values():
        assert items == list(space.op_items.values())


def test_every_data_type_has_its_full_path() -> None:
    assert tree("auto", Mode.BF16, Mode.FP32).ops_data_type[LINEAR] == {
        ("static", "activation", "int8", "unsigned"): "uint8",
        ("static", "weight", "int8", "signed"): "int8",
        ("dynamic", "activation", "int8", "unsigned"): "uint8",
        ("dynamic", "weight", "int8", "signed"): "int8",
        ("precision", "activation", "bf16"): "bf16",
        ("precision", "weight", "bf16"): "bf16",
        ("precision", "activation", "fp32"): "fp32",
        ("precision", "weight", "fp32"): "fp32",
    }


def test_an_op_without_a_weight_has_none_anywhere() -> None:
    space = TuningSpace([capability_of(NETWORK[2], "static"), without_weight()], (100,))
    add = ("add", "Add")
    assert space.ops_attr == {"activation": {LINEAR, add}, "weight": {LINEAR}}
    assert space.ops_data_type[add] == {
        ("static", "activation", "int8", "unsigned"): "uint8",
        ("static", "activation", "int8", "signed"): "int8",
        ("precision", "activation", "fp32"): "fp32",
    }
    assert space.get_op_default_path_by_pattern(add, "static") == {"activation": ACTIVATION}
    assert space.query_quant_mode_item_by_full_path(add, ("precision", "weight")) is None


def test_an_op_has_a_weight_only_where_all_of_its_modes_have_one() -> None:
    options = {("activation", "dtype"): ("uint8",)}
    half = OpCapability(
        Op("half", "Half"), {Mode.STATIC: {**options, ("weight", "dtype"): ("int8",)}, Mode.DYNAMIC: options}
    )
    assert TuningSpace([half], (1,)).ops_attr["weight"] == set()


def test_an_op_that_cannot_fall_back_has_no_precision() -> None:
    alone = OpCapability(NETWORK[2], {Mode.STATIC: capability_of(NETWORK[2], "static").modes[Mode.STATIC]})
    space = TuningSpace([alone], (100,))
    assert space.op_items[LINEAR].item("precision") is None
    assert space.query_items_by_quant_mode("fp32") == []
    assert space.get_op_default_path_by_pattern(LINEAR, "fp32") == {}


def test_an_op_that_is_never_quantized_has_precision_alone() -> None:
    space = TuningSpace([OpCapability(NETWORK[2], {Mode.FP32: {}})], (100,))
    assert [getattr(option, "name", None) for option in space.op_items[LINEAR].options] == ["precision"]
    assert space.query_items_by_quant_mode("static") == []


# --- queries


@pytest.mark.parametrize(
    ("mode", "names"),
    [("static", ["conv1", "conv2", "fc1", "fc2"]), ("bf16", []), ("precision", []), ("nothing", [])],
)
def test_items_by_mode(mode: str, names: list[str]) -> None:
    space = tree("static")
    assert space.query_items_by_quant_mode(mode) == [space.op_items[n, t] for n, t in space.op_items if n in names]


def test_a_list_of_items_is_the_askers_own() -> None:
    space = tree("static")
    space.query_items_by_quant_mode("static").clear()
    assert len(space.query_items_by_quant_mode("static")) == 4


@pytest.mark.parametrize(
    ("path", "item_type", "name"),
    [
        pytest.param((), "op", CONV, id="the op itself"),
        pytest.param(("static",), "quant_mode", "static", id="a mode"),
        pytest.param(("static", "activation"), "attribute", "activation", id="an attribute"),
        pytest.param(("static", "activation", "int8"), "data_type", "int8", id="a data type"),
        pytest.param(ACTIVATION, "sign", "unsigned", id="a sign"),
        pytest.param((*ACTIVATION, ("activation", "scheme")), "method", ("activation", "scheme"), id="a method"),
        pytest.param(("precision",), "quant_mode", "precision", id="precisions"),
        pytest.param(("precision", "weight", "fp32"), "data_type", "fp32", id="a precision"),
    ],
)
def test_an_item_is_found_by_its_path(path: Path, item_type: str, name: object) -> None:
    item = tree().query_quant_mode_item_by_full_path(CONV, path)
    assert item is not None
    assert (item.item_type, item.name) == (item_type, name)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        pytest.param(CONV, ("fp32",), id="a precision is not below the op"),
        pytest.param(CONV, ("precision", "activation", "bf16"), id="a precision that the machine is slow at"),
        pytest.param(CONV, ("static", "bias"), id="no such attribute"),
        pytest.param(CONV, ("static", "activation", "int8", "signed"), id="no such sign"),
        pytest.param(CONV, ("nothing", "activation", "int8"), id="nothing goes on from nothing"),
        pytest.param(CONV, (*ACTIVATION, ("activation", "scheme"), "asym"), id="a plain option is no item"),
        pytest.param(("conv1", "Linear"), ("static",), id="the op has another type"),
        pytest.param(("conv9", "Conv2d"), (), id="no such op"),
    ],
)
def test_there_is_no_item_at_a_path_that_leads_nowhere(key: OpKey, path: Path) -> None:
    assert tree().query_quant_mode_item_by_full_path(key, path) is None


@pytest.mark.parametrize(
    ("path", "method", "value", "answer"),
    [
        pytest.param(ACTIVATION, ("activation", "algorithm"), "kl", True, id="an option"),
        pytest.param(ACTIVATION, ("activation", "algorithm"), "percentile", False, id="no option of this method"),
        pytest.param(("dynamic", *ACTIVATION[1:]), ("activation", "algorithm"), "kl", False, id="not in this mode"),
        pytest.param(WEIGHT, ("weight", "granularity"), "per_channel", True, id="of the weight"),
        pytest.param(WEIGHT, ("activation", "scheme"), "asym", None, id="no method of the weight"),
        pytest.param(("static", "activation"), ("activation", "scheme"), "asym", None, id="a path that ends early"),
        pytest.param(("qat",), ("activation", "scheme"), "asym", None, id="no such path"),
    ],
)
def test_whether_a_method_has_an_option(path: Path, method: tuple[str, str], value: str, answer: bool | None) -> None:
    assert tree().query_item_option(LINEAR, path, method, value) is answer


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        pytest.param("static", {"activation": ACTIVATION, "weight": WEIGHT}, id="a mode"),
        pytest.param(("static",), {"activation": ACTIVATION, "weight": WEIGHT}, id="a mode alone"),
        pytest.param(("static", "int8"), {"activation": ACTIVATION, "weight": WEIGHT}, id="a mode and its data type"),
        pytest.param(
            "bf16",
            {"activation": ("precision", "activation", "bf16"), "weight": ("precision", "weight", "bf16")},
            id="a precision",
        ),
        pytest.param(
            ("precision", "fp32"),
            {"activation": ("precision", "activation", "fp32"), "weight": ("precision", "weight", "fp32")},
            id="a precision spelt out",
        ),
        pytest.param(
            "precision",
            {"activation": ("precision", "activation", "bf16"), "weight": ("precision", "weight", "bf16")},
            id="any precision is the first",
        ),
        pytest.param("fp16", {}, id="a precision that the op has not"),
        pytest.param(("static", "int4"), {}, id="a data type that the mode has not"),
        pytest.param("weight_only", {}, id="a mode that the op has not"),
    ],
)
def test_the_first_paths_that_fit_a_pattern(pattern: str | tuple[str, ...], paths: dict[str, Path]) -> None:
    assert tree("auto", Mode.BF16, Mode.FP32).get_op_default_path_by_pattern(LINEAR, pattern) == paths


@pytest.mark.parametrize(
    ("mode", "short"), [("static", "static/asym/kl"), ("dynamic", "dynamic/asym/minmax"), ("fp32", "fp32")]
)
def test_a_modes_default_takes_the_first_options(mode: str, short: str) -> None:
    assert tree().get_default_config(CONV, mode).short() == short


@pytest.mark.parametrize("mode", ["bf16", "fp16"])
def test_there_is_no_default_of_a_mode_that_an_op_has_not(mode: str) -> None:
    with pytest.raises(KeyError):
        tree().get_default_config(CONV, mode)


# --- what holds for every space


@st.composite
def trees(draw: st.DrawFn) -> TuningSpace:
    approach = draw(st.sampled_from([*APPROACHES, "qat"]))
    precisions = draw(st.lists(st.sampled_from(PRECISIONS), min_size=1, unique=True))
    sizes = draw(st.lists(st.integers(1, 1000), min_size=1, max_size=3, unique=True))
    return TuningSpace([capability_of(op, approach, precisions) for op in draw(ops)], sizes)


@given(trees())
def test_every_path_leads_to_its_item_and_every_method_to_its_options(space: TuningSpace) -> None:
    assert space.ops_path_set == {key: set(paths) for key, paths in space.ops_data_type.items()}
    for capability in space.capabilities:
        key = capability.op.name, capability.op.type
        for path in space.ops_path_set[key]:
            assert space.query_quant_mode_item_by_full_path(key, path) is not None
        for mode, options in capability.modes.items():
            for (attribute, item), values in options.items():
                path = (mode.value, attribute, *split_dtype(options[attribute, "dtype"][0]))
                found = space.query_quant_mode_item_by_full_path(key, path)
                assert item == "dtype" or (found and found.item((attribute, item)) is not None)
                for value in values if item != "dtype" else ():
                    assert space.query_item_option(key, path, (attribute, item), value) is True


@given(trees())
def test_an_op_is_listed_under_exactly_its_modes(space: TuningSpace) -> None:
    for mode in Mode:
        listed = [item.name for item in space.query_items_by_quant_mode(mode.value)]
        assert listed == [(c.op.name, c.op.type) for c in space.capabilities if mode in c.modes]


@given(trees())
def test_default_configurations_are_the_searchs_own(space: TuningSpace) -> None:
    for capability in space.capabilities:
        key = capability.op.name, capability.op.type
        first, *_ = capability.modes
        assert space.get_default_config(key, first.value) == default_config(capability)
        assert space.get_default_config(key, first.value) == OpConfig.first(first, capability.modes[first])
        for mode, options in capability.modes.items():
            found = set(space.get_op_default_path_by_pattern(key, mode.value))
            assert found == {attribute for attribute, _ in options} or mode.is_precision
            assert "activation" in found or capability.op.type == "Embedding"
            assert "weight" in found or capability.op.type == "MatMul"
