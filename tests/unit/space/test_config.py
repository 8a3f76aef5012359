"""Configurations: plain data at the edges, equal where they say the same, short for people."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quantuner.space.capability import Mode, Op, capability_of
from quantuner.space.config import FP32, OpConfig, TuneConfig, default_config
from tests.unit.space.spaces import APPROACHES, NETWORK, ops

TYPES = {op.name: op.type for op in NETWORK}


@st.composite
def configs(draw: st.DrawFn) -> TuneConfig:
    chosen = {}
    for op in draw(ops):
        capability = capability_of(op, draw(st.sampled_from(APPROACHES)))
        mode = draw(st.sampled_from(list(capability.modes)))
        options = capability.modes[mode]
        chosen[op.name] = OpConfig(
            mode, tuple((item, draw(st.sampled_from(values))) for item, values in options.items())
        )
    return TuneConfig(chosen)


def static(scheme: str = "asym", algorithm: str = "kl", type_: str = "Conv2d") -> OpConfig:
    options = dict(default_config(capability_of(Op("x", type_), "static")).options)
    options |= {("activation", "scheme"): scheme, ("activation", "algorithm"): algorithm}
    return OpConfig(Mode.STATIC, tuple(options.items()))


def network(*configs_in_order: OpConfig) -> TuneConfig:
    return TuneConfig(dict(zip(TYPES, configs_in_order, strict=True)))


@given(configs())
def test_a_configuration_comes_back_from_plain_data(config: TuneConfig) -> None:
    again = TuneConfig.from_plain(json.loads(json.dumps(config.plain())))
    assert again == config
    assert list(again) == list(config)
    assert again.digest == config.digest


@given(configs())
def test_a_configuration_comes_back_from_its_yaml_file(config: TuneConfig) -> None:
    assert TuneConfig.from_plain(yaml.safe_load(yaml.safe_dump(config.plain(), sort_keys=False))) == config


@given(configs(), configs())
def test_digests_are_equal_where_configurations_are(one: TuneConfig, other: TuneConfig) -> None:
    assert (one.digest == other.digest) == (one == other)


@given(configs())
def test_a_digest_does_not_depend_on_the_order_of_ops(config: TuneConfig) -> None:
    assert TuneConfig(dict(reversed(list(config.items())))).digest == config.digest


@given(configs())
def test_the_summary_says_how_every_op_computes(config: TuneConfig) -> None:
    types = {name: "Conv2d" if len(name) % 2 else "Linear" for name in config}
    summary = config.summary(types)
    told = {name: summary["exceptions"].get(name, summary["defaults"][types[name]]) for name in config}
    assert told == {name: op.short() for name, op in config.items()}


@given(configs(), st.integers(5, 80))
def test_a_label_is_never_longer_than_its_limit(config: TuneConfig, limit: int) -> None:
    label = config.label(dict.fromkeys(config, "Linear"), limit)
    assert 0 < len(label) <= limit


def test_plain_data_reads_like_the_resource() -> None:
    assert static("sym", "minmax").plain() == {
        "mode": "static",
        "activation": {"dtype": "uint8", "scheme": "sym", "granularity": "per_tensor", "algorithm": "minmax"},
        "weight": {"dtype": "int8", "scheme": "sym", "granularity": "per_channel", "algorithm": "minmax"},
    }
    assert FP32.plain() == {"mode": "fp32"}


@pytest.mark.parametrize(
    ("config", "label"),
    [
        pytest.param([static()] * 4, "Conv2d static/asym/kl, Linear static/asym/kl", id="every op alike"),
        pytest.param(
            [static()] * 2 + [static("sym", "minmax")] * 2,
            "Conv2d static/asym/kl, Linear static/sym/minmax",
            id="by type",
        ),
        pytest.param([static(), FP32, static(), static()], "fp32: conv2", id="one op fell back"),
        pytest.param([static(), FP32, static(), FP32], "fp32: conv2, fc2", id="two ops fell back"),
        pytest.param([FP32] * 4, "Conv2d fp32, Linear fp32", id="nothing quantized"),
        pytest.param(
            [static(), static("sym"), static(), static()],
            "static/sym/kl: conv2 · Conv2d static/asym/kl, Linear static/asym/kl",
            id="one op differs",
        ),
    ],
)  # fmt: skip
def test_a_label_tells_what_is_special(config: list[OpConfig], label: str) -> None:
    assert network(*config).label(TYPES, 80) == label


def test_at_equal_frequency_the_spelling_met_first_is_the_default() -> None:
    summary = network(static("sym"), static(), FP32, static()).summary(TYPES)
    assert summary == {
        "defaults": {"Conv2d": "static/sym/kl", "Linear": "fp32"},
        "exceptions": {"conv2": "static/asym/kl", "fc2": "static/asym/kl"},
    }


def test_a_changed_copy_leaves_the_original() -> None:
    base = network(*[static()] * 4)
    changed = base.having({"fc1": FP32})
    assert (base["fc1"], changed["fc1"]) == (static(), FP32)
    assert list(changed) == list(base)


@pytest.mark.parametrize("named", [["fc3"], ["conv1", "Fc2 "]])
def test_a_change_of_an_op_that_is_not_there_is_refused_with_the_nearest(named: list[str]) -> None:
    with pytest.raises(KeyError, match=rf"no op is named '{named[-1]}'; the nearest is fc2"):
        network(*[static()] * 4).having(dict.fromkeys(named, FP32))


@pytest.mark.parametrize(
    ("approach", "short"),
    [("static", "static/asym/kl"), ("dynamic", "dynamic/asym/minmax"), ("auto", "static/asym/kl")],
)
def test_the_default_is_the_first_option_of_the_first_mode(approach: str, short: str) -> None:
    assert default_config(capability_of(NETWORK[0], approach)).short() == short
