"""Which recipes a search fixes, which it tries, and configurations with them applied.

Matrix: every recipe given, left open, and switched off, for a model with ops of all three fallback recipes, of two
that share one op, and of none. Left out: what the algorithms do, which is the engine's.
"""

from typing import Any

import pytest

from quantuner.space.capability import Mode
from quantuner.space.config import FP32, OpConfig, TuneConfig
from quantuner.strategy.recipes import Recipes

FIRST = "first_conv_or_matmul_quantization"
LAST = "last_conv_or_matmul_quantization"
BODY = "pre_post_process_quantization"
OPS = {FIRST: ["a"], LAST: ["d"], BODY: ["b", "c"]}
STATIC = OpConfig(Mode.STATIC)
ALL = TuneConfig(dict.fromkeys("abcd", STATIC))


def smooth(alpha: Any) -> dict[str, Any]:
    return {"smooth_quant": True, "smooth_quant_args": {"alpha": alpha}}


def fallen(config: TuneConfig) -> str:
    """Names of the ops in fp32, one letter each."""
    return "".join(name for name, op in config.items() if op == FP32)


@pytest.mark.parametrize(
    ("fixed", "ops", "tuned", "off"),
    [
        pytest.param({}, OPS, [FIRST, LAST, BODY], [], id="all open, tried in this order"),
        pytest.param({}, {BODY: ["b"], LAST: ["d"], FIRST: ["a"]}, [FIRST, LAST, BODY], [], id="in any order given"),
        pytest.param({FIRST: True}, OPS, [LAST, BODY], [], id="on is settled"),
        pytest.param({FIRST: False}, OPS, [LAST, BODY], ["a"], id="off is settled, and leaves its ops in fp32"),
        pytest.param({LAST: False, BODY: False}, OPS, [FIRST], ["d", "b", "c"], id="two off"),
        pytest.param({}, {FIRST: ["a"], LAST: ["a"], BODY: []}, [FIRST, LAST], [], id="one without ops is not tried"),
        pytest.param({BODY: False}, {}, [], [], id="no op has any"),
        pytest.param(smooth(0.5), OPS, [FIRST, LAST, BODY], [], id="smooth quant settles no other"),
    ],
)
def test_recipes_that_the_user_left_open_are_tuned_and_those_switched_off_are_off(
    fixed: dict[str, Any], ops: dict[str, list[str]], tuned: list[str], off: list[str]
) -> None:
    recipes = Recipes(fixed, ops)
    assert list(recipes.tuned) == tuned
    assert recipes.tuned == {name: ops[name] for name in tuned}
    assert recipes.off == off


@pytest.mark.parametrize(
    ("fixed", "alphas"),
    [
        pytest.param({}, [], id="no smooth quant"),
        pytest.param({"smooth_quant": True}, [], id="the default"),
        pytest.param(smooth(0.3), [], id="a number"),
        pytest.param(smooth("auto"), [], id="auto"),
        pytest.param(smooth([0.3]), [], id="a list of one"),
        pytest.param(smooth([0.7, 0.3]), [0.7, 0.3], id="a list, in its order"),
        pytest.param(smooth((0.7, 0.3)), [0.7, 0.3], id="a tuple"),
        pytest.param({**smooth([0.7, 0.3]), "smooth_quant": False}, [], id="a list, but smooth quant is off"),
    ],
)
def test_only_a_list_of_alphas_is_tried(fixed: dict[str, Any], alphas: list[float]) -> None:
    assert Recipes(fixed, OPS).alphas == alphas


@pytest.mark.parametrize(
    ("fixed", "own", "kept", "in_fp32"),
    [
        pytest.param({}, {}, {}, "", id="nothing given"),
        pytest.param({"weight_correction": True}, {}, {"weight_correction": True}, "", id="a fixed one is copied"),
        pytest.param({"weight_correction": False}, {}, {}, "", id="off is the default and needs no word"),
        pytest.param({FIRST: False}, {}, {}, "a", id="a fallback recipe is said by its ops"),
        pytest.param({FIRST: True}, {}, {}, "", id="one that is on changes nothing"),
        pytest.param({"smooth_quant": True}, {}, smooth(0.5), "", id="the default alpha is written out"),
        pytest.param(smooth("auto"), {}, smooth("auto"), "", id="auto"),
        pytest.param(smooth([0.7, 0.3]), {}, smooth(0.7), "", id="of alphas the first"),
        pytest.param(smooth([0.7, 0.3]), smooth(0.3), smooth(0.3), "", id="a configuration's own alpha stays"),
        pytest.param(
            {"weight_correction": True},
            {"weight_correction": False},
            {"weight_correction": False},
            "",
            id="a configuration's own choice stays",
        ),
        pytest.param({}, {LAST: False}, {LAST: False}, "d", id="a configuration may switch a fallback recipe off"),
        pytest.param({FIRST: False}, {LAST: False}, {LAST: False}, "ad", id="both"),
    ],
)
def test_a_configuration_keeps_the_users_recipes_and_what_it_says_itself(
    fixed: dict[str, Any], own: dict[str, Any], kept: dict[str, Any], in_fp32: str
) -> None:
    recipes = Recipes(fixed, OPS)
    config = recipes.keep(ALL.with_recipes(own))
    assert (dict(config.recipes), fallen(config)) == (kept, in_fp32)
    assert recipes.keep(config) == config


@pytest.mark.parametrize(
    ("fixed", "together", "one_by_one"),
    [
        pytest.param({}, "abcd", ["a", "d", "bc"], id="all open"),
        pytest.param({LAST: True}, "abc", ["a", "bc"], id="one settled"),
        pytest.param({FIRST: True, LAST: False, BODY: True}, "", [], id="none open"),
    ],
)
def test_tuned_recipes_are_applied_together_or_each_alone(
    fixed: dict[str, Any], together: str, one_by_one: list[str]
) -> None:
    recipes = Recipes(fixed, OPS)
    assert fallen(recipes.all_applied(ALL)) == together
    assert [fallen(config) for config in recipes.one_by_one(ALL)] == one_by_one
    assert fallen(ALL) == ""  # the argument stays as it was


def test_applied_recipes_leave_what_is_in_fp32_already_and_all_else_as_it_is() -> None:
    config = ALL.having({"b": FP32}).calibrated_with(7).with_recipes({"weight_correction": True})
    applied = Recipes({BODY: True}, OPS).all_applied(config)
    assert fallen(applied) == "abd"
    assert (applied.calib_sampling_size, applied.recipes) == (7, config.recipes)


def test_an_alpha_is_set_with_the_users_other_arguments() -> None:
    fixed = {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.1, 0.9], "folding": True}}
    config = Recipes(fixed, OPS).with_alpha(ALL, 0.9)
    assert config.recipes == {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.9, "folding": True}}
    assert ALL.recipes == {}
