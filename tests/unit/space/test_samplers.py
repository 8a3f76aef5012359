"""Which configurations a stage tries, in which order.

The orders are Neural Compressor 2.x's: nested loops with the last item
fastest, fallback from the output side, accumulated fallback best first.
"""

import itertools
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.spec import Quantization
from quantuner.space import samplers
from quantuner.space.capability import PRECISIONS, Mode, Op, OpCapability, capability_of
from quantuner.space.config import FP32, OpConfig, TuneConfig
from quantuner.space.constraints import constrain
from tests.unit.space.spaces import APPROACHES, NETWORK, narrowing, ops, quantizations, space_of

STATIC_ORDER = ("static/asym/kl", "static/asym/minmax", "static/sym/kl", "static/sym/minmax")


def spellings(config: TuneConfig) -> list[str]:
    return [op.short() for op in config.values()]


def inside(config: TuneConfig, space: tuple[OpCapability, ...]) -> bool:
    """Whether every op does what its capability allows, and every item is decided."""
    return list(config) == [c.op.name for c in space] and all(
        op.mode in c.modes
        and {item for item, _ in op.options} == set(c.modes[op.mode])
        and all(option in c.modes[op.mode][item] for item, option in op.options)
        for c, op in zip(space, config.values(), strict=True)
    )


@st.composite
def spaces(draw: st.DrawFn) -> tuple[OpCapability, ...]:
    """A space with each op's options narrowed on its own, as constraints by name do."""
    approach = draw(st.sampled_from(APPROACHES))
    space = []
    for op in draw(ops):
        full = capability_of(op, approach)
        kept = draw(st.integers(1, 2 ** len(full.modes) - 1))
        first_only, last_only = draw(st.sampled_from([(False, False), (True, False), (False, True)]))
        modes = {
            mode: {
                item: values[:1] if first_only else values[-1:] if last_only else values for item, values in o.items()
            }
            for bit, (mode, o) in enumerate(full.modes.items())
            if kept & (1 << bit)
        }
        space.append(OpCapability(op, modes))
    return tuple(space)


# --- the documented orders


def test_two_convolutions_and_two_linears_have_sixteen_op_type_wise_configurations_in_the_documented_order() -> None:
    tried = [spellings(config) for config in samplers.op_type_wise(space_of("static"))]
    assert tried == [[conv, conv, linear, linear] for conv in STATIC_ORDER for linear in STATIC_ORDER]


def test_the_first_configuration_is_the_default_of_every_op() -> None:
    space = space_of("static")
    first = next(samplers.op_type_wise(space))
    assert first == samplers.initial(space)
    assert spellings(first) == ["static/asym/kl"] * 4


def test_dynamic_leaves_nothing_to_choose() -> None:
    tried = list(samplers.op_type_wise(space_of("dynamic")))
    assert [spellings(config) for config in tried] == [["dynamic/asym/minmax"] * 4]


def test_auto_starts_static() -> None:
    assert list(samplers.op_type_wise(space_of("auto"))) == list(samplers.op_type_wise(space_of("static")))


def test_groups_come_in_the_order_of_first_appearance() -> None:
    space = space_of("static", Op("head", "Linear"), Op("conv", "Conv2d"), Op("tail", "Linear"))
    tried = [(config["head"].short(), config["conv"].short()) for config in samplers.op_type_wise(space)]
    assert tried == [(linear, conv) for linear in STATIC_ORDER for conv in STATIC_ORDER]


def test_an_op_that_lacks_the_groups_option_takes_its_own_default() -> None:
    space = space_of("static", names=(narrowing("fc2", activation_scheme=("sym",)),))
    tried = [(config["fc1"].short(), config["fc2"].short()) for config in samplers.op_type_wise(space)]
    assert tried[:4] == [
        ("static/asym/kl", "static/sym/kl"),
        ("static/asym/minmax", "static/sym/kl"),
        ("static/sym/kl", "static/sym/kl"),
        ("static/sym/minmax", "static/sym/minmax"),
    ]


def test_options_unite_in_the_order_first_seen() -> None:
    space = space_of("static", *NETWORK[2:], names=(narrowing("fc1", activation_algorithm=("minmax",)),))
    tried = [config["fc2"].short() for config in samplers.op_type_wise(space)]
    assert tried == ["static/asym/minmax", "static/asym/kl", "static/sym/minmax", "static/sym/kl"]


def test_an_op_kept_in_fp32_stays_there() -> None:
    space = space_of("static", names=(narrowing("conv1", weight_dtype=("fp32",)),))
    assert {config["conv1"] for config in samplers.op_type_wise(space)} == {FP32}


def test_static_becomes_dynamic_where_an_op_can_do_both() -> None:
    space = space_of(
        "auto", names=(narrowing("conv2", weight_dtype=("fp32",)), narrowing("fc1", activation_algorithm=("kl",)))
    )
    base = samplers.initial(space)
    assert spellings(samplers.dynamic_where_possible(space, base)) == [
        "dynamic/asym/minmax", "fp32", "static/asym/kl", "dynamic/asym/minmax"
    ]  # fmt: skip


def test_fallback_goes_from_the_output_side() -> None:
    space = space_of("static")
    assert samplers.fallback_candidates(space, samplers.initial(space)) == ["fc2", "fc1", "conv2", "conv1"]


def test_fallback_leaves_out_what_is_fp32_already_and_what_may_not_be() -> None:
    names = (narrowing("fc1", weight_dtype=("int8", "bf16")), narrowing("conv2", activation_dtype=("fp32",)))
    space = constrain(NETWORK, Quantization(op_names=names), PRECISIONS)
    assert samplers.fallback_candidates(space, samplers.initial(space)) == ["fc2", "conv1"]


def test_one_by_one_changes_one_op_of_the_same_base_each_time() -> None:
    base = samplers.initial(space_of("static"))
    tried = list(samplers.one_by_one(base, ["fc2", "conv1"]))
    assert tried == [base.having({"fc2": FP32}), base.having({"conv1": FP32})]


@pytest.mark.parametrize(
    ("accuracies", "higher_is_better", "steps"),
    [
        pytest.param({"a": 0.1, "b": 0.3, "c": 0.2}, True, ["bc", "abc"], id="best first, the first step skipped"),
        pytest.param({"a": 0.1, "b": 0.3, "c": 0.2}, False, ["ac", "abc"], id="lowest first where lower is better"),
        pytest.param({"c": 0.5, "a": 0.5, "b": 0.5}, True, ["ac", "abc"], id="ties keep their order"),
        pytest.param({"c": 0.5, "a": 0.5, "b": 0.5}, False, ["ac", "abc"], id="also where lower is better"),
        pytest.param({"a": -1.0, "b": -3.0, "c": -2.0}, True, ["ac", "abc"], id="negative accuracies"),
        pytest.param({"a": 0.1}, True, [], id="one op was tried alone"),
        pytest.param({}, True, [], id="nothing to fall back"),
    ],
)
def test_accumulated_fallback(accuracies: dict[str, float], higher_is_better: bool, steps: list[str]) -> None:
    base = samplers.initial(space_of("static", *(Op(name, "Linear") for name in "abc")))
    tried = samplers.accumulated(base, accuracies, higher_is_better=higher_is_better)
    assert ["".join(name for name, op in config.items() if op == FP32) for config in tried] == steps


# --- what holds for every space


def every_sampler(space: tuple[OpCapability, ...]) -> Iterator[tuple[str, list[TuneConfig]]]:
    base = samplers.initial(space)
    candidates = samplers.fallback_candidates(space, base)
    yield "op type wise", list(samplers.op_type_wise(space))
    yield "dynamic", [samplers.dynamic_where_possible(space, base)]
    yield "one by one", list(samplers.one_by_one(base, candidates))
    accuracies = {name: len(name) / 7 for name in candidates}
    yield "accumulated", list(samplers.accumulated(base, accuracies, higher_is_better=True))
    yield "model wise", list(samplers.model_wise(space))
    for precisions in (False, True):
        yield f"op wise, {precisions}", list(itertools.islice(samplers.op_wise(space, precisions=precisions), 200))
    for accumulate in (False, True):
        blocks = samplers.blocks_of(candidates)
        yield f"block wise, {accumulate}", list(samplers.block_wise(base, blocks, accumulate=accumulate))
    yield "sizes", list(samplers.calibration_sizes(base, [1, 2, 3]))


@given(spaces())
def test_every_configuration_is_inside_the_capability(space: tuple[OpCapability, ...]) -> None:
    for sampler, configs in every_sampler(space):
        assert all(inside(config, space) for config in configs), sampler


@given(spaces())
def test_no_sampler_repeats_a_configuration(space: tuple[OpCapability, ...]) -> None:
    for sampler, configs in every_sampler(space):
        assert len({config.digest for config in configs}) == len(configs), sampler


def every_option(capability: OpCapability) -> set[OpConfig]:
    """All that an op can do, written down anew: a mode and one option of each of its items."""
    found = set()
    for mode, items in capability.modes.items():
        chosen: list[tuple[tuple[tuple[str, str], str], ...]] = [()]
        for item, options in items.items():
            chosen = [(*before, (item, option)) for before in chosen for option in options]
        found |= {OpConfig(mode, options) for options in chosen}
    return found


@given(spaces().filter(lambda space: math.prod(len(every_option(c)) for c in space) <= 500))
def test_op_wise_gives_every_configuration_of_the_space_once(space: tuple[OpCapability, ...]) -> None:
    given_ = list(samplers.op_wise(space, precisions=True))
    expected = math.prod(len(every_option(c)) for c in space)
    assert len({config.digest for config in given_}) == len(given_) == expected
    for capability in space:
        name = capability.op.name
        assert {config[name] for config in given_} == every_option(capability)


@given(spaces())
def test_a_sampler_gives_the_same_each_time(space: tuple[OpCapability, ...]) -> None:
    assert list(every_sampler(space)) == list(every_sampler(space))


@given(spaces())
def test_accumulated_fallback_ends_with_every_candidate_in_fp32(space: tuple[OpCapability, ...]) -> None:
    base = samplers.initial(space)
    names = samplers.fallback_candidates(space, base)
    steps = list(samplers.accumulated(base, dict.fromkeys(names, 0.5), higher_is_better=True))
    assert len(steps) == max(0, len(names) - 1)
    if steps:
        assert {name for name in names if steps[-1][name] == FP32} == set(names)


@given(ops, quantizations.map(lambda q: q.approach))
def test_an_unconstrained_space_is_searched_whole_by_type(model: tuple[Op, ...], approach: str) -> None:
    space = space_of(Quantization(approach).approach, *model)
    types = {op.type for op in model if capability_of(op, approach).quantized_modes} - {"MatMul"}  # it is asked for
    choices, first = {"dynamic": (1, Mode.DYNAMIC), "weight_only": (16, Mode.WEIGHT_ONLY)}.get(
        approach, (4, Mode.STATIC)
    )
    assert len(list(samplers.op_type_wise(space))) == choices ** len(types - {"Embedding"})  # it has one way
    assert all(c.quantized_modes[0] is first for c in space if c.op.type in types)
