"""Recipes of a search: which there are, and what each may be set to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantuner.config.checks import each_once, near, one_of, only, unboxed

RECIPES = (
    "smooth_quant",
    "smooth_quant_args",
    "fast_bias_correction",
    "weight_correction",
    "first_conv_or_matmul_quantization",
    "last_conv_or_matmul_quantization",
    "pre_post_process_quantization",
    "dedicated_qdq_pair",
    "layer_wise_quant",
    "layer_wise_quant_args",
)
ELSEWHERE: dict[
    str, Any
] = {  # recipes of Neural Compressor 2.x that are not for PyTorch, or not here yet, at their defaults
    "gemm_to_matmul": True,
    "graph_optimization_level": None,
    "add_qdq_pair_to_weight": False,
    "optypes_to_exclude_output_quant": [],
    "rtn_args": {},
    "awq_args": {},
    "gptq_args": {},
    "teq_args": {},
    "autoround_args": {},
}
LEAST_STEP = 0.01  # a hundred alphas; a finer step is below what int8 can tell


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
            kept[name] = _ARGUMENTS.get(name, one_of(True, False))(setting)
    if kept.get("smooth_quant") is False:
        kept.pop("smooth_quant_args", None)
    _check_together(kept)
    return kept


def _check_together(kept: Mapping[str, Any]) -> None:
    if kept.get("smooth_quant_args") and not kept.get("smooth_quant"):
        raise ValueError("has smooth_quant_args without smooth_quant; set 'smooth_quant': True")
    if kept.get("layer_wise_quant_args") and not kept.get("layer_wise_quant"):
        raise ValueError("has layer_wise_quant_args without layer_wise_quant; set 'layer_wise_quant': True")
    others = [name for name, setting in kept.items() if name not in LAYER_WISE and not _is_default(name, setting)]
    if kept.get("layer_wise_quant") and others:
        raise ValueError(f"has layer_wise_quant with {' and '.join(others)}, which want the whole model; leave one out")


LAYER_WISE = ("layer_wise_quant", "layer_wise_quant_args", "dedicated_qdq_pair")
"""Recipes that go together with layer_wise_quant."""
OPEN = {name: True for name in RECIPES if name.endswith("_quantization")}
"""Recipes whose default is True."""


def _is_default(name: str, setting: Any) -> bool:
    return setting in (OPEN.get(name, False), {})


def _layer_wise_quant_args(value: Any) -> dict[str, Any]:
    if (
        not isinstance(value, Mapping)
        or set(value) - {"path"}
        or not all(isinstance(v, (str, Path)) for v in value.values())
    ):
        raise ValueError("layer_wise_quant_args is a dict with 'path': a safetensors file, or the folder that holds it")
    return {key: str(path) for key, path in value.items()}


SMOOTH_QUANT_ARGS = ("alpha", "folding", "auto_alpha_args", "weight_clip")
AUTO_ALPHA_ARGS = {"alpha_min": 0.0, "alpha_max": 1.0, "alpha_step": 0.1}
"""Which alphas "auto" compares, at their defaults."""


def _smooth_quant_args(value: Any) -> dict[str, Any]:
    """What is given, less what is the default."""
    if not isinstance(value, Mapping) or set(value) - set(SMOOTH_QUANT_ARGS):
        raise ValueError(f"smooth_quant_args is a dict with {', '.join(SMOOTH_QUANT_ARGS)}")
    kept: dict[str, Any] = {"alpha": _alpha(value["alpha"])} if "alpha" in value else {}
    if value.get("folding") is not None:
        kept["folding"] = one_of(True, False)(value["folding"])
    only(True, "weight_clip keeps a scale from exploding, always")(value.get("weight_clip", True))
    if value.get("auto_alpha_args"):
        if kept.get("alpha") != "auto":
            raise ValueError("has auto_alpha_args without alpha 'auto'; set 'alpha': 'auto'")
        kept["auto_alpha_args"] = _auto_alpha_args(value["auto_alpha_args"])
    return kept


def _auto_alpha_args(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or set(value) - set(AUTO_ALPHA_ARGS):
        raise ValueError(f"auto_alpha_args is a dict with {', '.join(AUTO_ALPHA_ARGS)}")
    kept = {name: unboxed(alpha) for name, alpha in value.items()}
    low, high, step = ({**AUTO_ALPHA_ARGS, **kept}[name] for name in AUTO_ALPHA_ARGS)
    if not all(_is_fraction(number) for number in (low, high, step)) or low > high or step < LEAST_STEP:
        raise ValueError(
            "has auto_alpha_args that are no range; give 0 ≤ alpha_min ≤ alpha_max ≤ 1 and "
            f"{LEAST_STEP} ≤ alpha_step ≤ 1"
        )
    return kept


def _alpha(value: Any) -> Any:
    """A number, a list of them, which are tried one by one, or `"auto"`."""
    if isinstance(value, str) and value == "auto":  # an array has no one answer
        return value
    alphas = [unboxed(alpha) for alpha in (value if isinstance(value, (list, tuple)) else [value])]
    if not alphas or not all(_is_fraction(alpha) for alpha in alphas):
        raise ValueError(
            "has a smooth_quant alpha that is no number in [0, 1] nor 'auto'; give one, or a list of such numbers"
        )
    each_once(alphas)
    return alphas if isinstance(value, (list, tuple)) else alphas[0]


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


_ARGUMENTS = {"smooth_quant_args": _smooth_quant_args, "layer_wise_quant_args": _layer_wise_quant_args}
