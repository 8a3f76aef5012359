"""What ops can do, in the order in which a search tries it."""

import pytest

from quantuner.space.capability import BY_TYPE, Mode, Op, capability_of


@pytest.mark.parametrize(
    ("approach", "modes"),
    [
        ("static", [Mode.STATIC, Mode.FP32]),
        ("dynamic", [Mode.DYNAMIC, Mode.FP32]),
        ("auto", [Mode.STATIC, Mode.DYNAMIC, Mode.FP32]),
    ],
)
@pytest.mark.parametrize("type_", sorted(BY_TYPE))
def test_an_approach_gives_its_modes_in_order_and_fp32_last(approach: str, modes: list[Mode], type_: str) -> None:
    assert list(capability_of(Op("op", type_), approach).modes) == modes


@pytest.mark.parametrize("type_", sorted(BY_TYPE))
def test_activation_comes_before_weight_and_asymmetric_kl_first(type_: str) -> None:
    static = capability_of(Op("op", type_), "static").modes[Mode.STATIC]
    assert [attribute for attribute, _ in static] == ["activation"] * 4 + ["weight"] * 4
    assert static["activation", "scheme"] == ("asym", "sym")
    assert static["activation", "algorithm"] == ("kl", "minmax")
    assert static["weight", "granularity"] == ("per_channel",)


def test_fp32_is_no_quantized_mode() -> None:
    assert capability_of(Op("op", "Linear"), "auto").quantized_modes == (Mode.STATIC, Mode.DYNAMIC)
