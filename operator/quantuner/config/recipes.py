"""Recipes of a search: which there are, and what each may be set to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantuner.config.checks import each_once, near, one_of, only

RECIPES = (
    "smooth_quant",
    "smooth_quant_args",
    "fast_bias_correction",
    "weight_correction",
    "first_conv_or_matmul_quantization",
    "last_conv_or_matmul_quantization",
    "pre_post_process_quantization",
)
ELSEWHERE = {  # recipes of Neural Compressor 2.x that are not for PyTorch, or not here yet, at their defaults
    "layer_wise_quant": False,
    "layer_wise_quant_args": {},
    "gemm_to_matmul": True,
    "graph_optimization_level": None,
    "add_qdq_pair_to_weight": False,
    "dedicated_qdq_pair": False,
    "optypes_to_exclude_output_quant": [],
    "rtn_args": {},
    "awq_args": {},
    "gptq_args": {},
    "teq_args": {},
    "autoround_args": {},
}


def checked_recipes(value: Any) -> dict[str, Any]:
    """The recipes given, less those of other frameworks."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a dict of recipe names to values")
    kept = {}
    for name, setting in value.items():
        if name in ELSEWHERE:
            only(ELSEWHERE[name], f"the recipe {name!r} is not for PyTorch, or not there yet")(setting)
        elif name not in RECIPES:
            raise ValueError(f"has no recipe {name!r}{near(name, RECIPES)}; there are {', '.join(RECIPES)}")
        else:
            kept[name] = _smooth_quant_args(setting) if name == "smooth_quant_args" else one_of(True, False)(setting)
    if kept.get("smooth_quant_args") and not kept.get("smooth_quant"):
        raise ValueError("has smooth_quant_args without smooth_quant; set 'smooth_quant': True")
    return kept


def _smooth_quant_args(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or set(value) - {"alpha"}:
        raise ValueError("smooth_quant_args is a dict with the one key 'alpha': a number, a list of them, or 'auto'")
    return {"alpha": _alpha(value["alpha"])} if value else {}


def _alpha(value: Any) -> Any:
    """A number, a list of them, which are tried one by one, or `"auto"`."""
    if value == "auto":
        return value
    alphas = list(value) if isinstance(value, (list, tuple)) else [value]
    if not alphas or not all(_is_fraction(alpha) for alpha in alphas):
        raise ValueError(
            "has a smooth_quant alpha that is no number in [0, 1] nor 'auto'; give one, or a list of such numbers"
        )
    each_once(alphas)
    return alphas if isinstance(value, (list, tuple)) else value


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
