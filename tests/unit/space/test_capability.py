"""What ops can do, in the order in which a search tries it."""

import pytest

from quantuner.space.capability import BY_TYPE, Mode, Op, capability_of
from quantuner.space.config import OpConfig

RECURRENT = ("GRU", "LSTM", "RNN")


@pytest.mark.parametrize(
    ("approach", "modes"),
    [
        ("static", [Mode.STATIC, Mode.FP32]),
        ("dynamic", [Mode.DYNAMIC, Mode.FP32]),
        ("auto", [Mode.STATIC, Mode.DYNAMIC, Mode.FP32]),
    ],
)
@pytest.mark.parametrize("type_", sorted({*BY_TYPE} - {"MatMul", *RECURRENT}))
def test_an_approach_gives_its_modes_in_order_and_fp32_last(approach: str, modes: list[Mode], type_: str) -> None:
    assert list(capability_of(Op("op", type_), approach).modes) == modes


@pytest.mark.parametrize("type_", sorted({*BY_TYPE} - {"MatMul", "Embedding", *RECURRENT}))
def test_activation_comes_before_weight_and_asymmetric_kl_first(type_: str) -> None:
    static = capability_of(Op("op", type_), "static").modes[Mode.STATIC]
    assert [attribute for attribute, _ in static] == ["activation"] * 4 + ["weight"] * 4
    assert static["activation", "scheme"] == ("asym", "sym")
    assert static["activation", "algorithm"] == ("kl", "minmax")
    assert static["weight", "granularity"] == ("per_channel",)


@pytest.mark.parametrize("approach", ["static", "dynamic", "auto", "qat"])
def test_an_embedding_has_a_weight_alone(approach: str) -> None:
    for mode in capability_of(Op("op", "Embedding"), approach).quantized_modes:
        options = capability_of(Op("op", "Embedding"), approach).modes[mode]
        assert [attribute for attribute, _ in options] == ["weight"] * 4
        assert OpConfig.first(mode, options).short() == f"{mode.value}/sym/minmax"


def test_a_product_of_activations_is_static_and_has_no_weight() -> None:
    capability = capability_of(Op("op", "MatMul"), "auto")
    assert list(capability.modes) == [Mode.STATIC, Mode.FP32]
    assert [attribute for attribute, _ in capability.modes[Mode.STATIC]] == ["activation"] * 4
    assert list(capability_of(Op("op", "MatMul"), "dynamic").modes) == [Mode.FP32]


@pytest.mark.parametrize("type_", RECURRENT)
def test_a_recurrent_op_is_dynamic_and_has_no_half_precision(type_: str) -> None:
    op = Op("op", type_)
    assert list(capability_of(op, "auto", (Mode.BF16, Mode.FP16, Mode.FP32)).modes) == [Mode.DYNAMIC, Mode.FP32]
    assert list(capability_of(op, "static").modes) == [Mode.FP32]


def test_fp32_is_no_quantized_mode() -> None:
    assert capability_of(Op("op", "Linear"), "auto").quantized_modes == (Mode.STATIC, Mode.DYNAMIC)
