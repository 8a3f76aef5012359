"""Which recipes a search tries, and configurations with them applied. Pure functions over configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quantuner.space.config import FP32, TuneConfig

FALLBACK_RECIPES = (
    "first_conv_or_matmul_quantization",
    "last_conv_or_matmul_quantization",
    "pre_post_process_quantization",
)
"""True by default; False leaves the recipe's ops in fp32. In the order in which they are tried."""


DEFAULT_ALPHA = 0.5  # Xiao et al. 2022, section 5: a sweet spot for most models


@dataclass(frozen=True)
class Recipes:
    """A search's recipes: those the user fixed, and the ops of those it may try."""

    fixed: Mapping[str, Any]
    """Copied into every trial."""
    ops: Mapping[str, Sequence[str]]
    """Fallback recipe to the names of its ops."""

    @property
    def tuned(self) -> dict[str, Sequence[str]]:
        """Fallback recipes that the user left open and that have ops, with these."""
        return {name: self.ops[name] for name in FALLBACK_RECIPES if name not in self.fixed and self.ops.get(name)}

    @property
    def alphas(self) -> list[float]:
        """Smooth-quant alphas to try: those of a list with two or more."""
        alpha = self.fixed.get("smooth_quant_args", {}).get("alpha")
        several = isinstance(alpha, (list, tuple)) and len(alpha) > 1  # "auto" has a length, too
        return list(alpha) if self.fixed.get("smooth_quant") and several else []

    @property
    def off(self) -> list[str]:
        """Ops that the user's own recipes leave in fp32."""
        return self._left(self.fixed)

    def _left(self, recipes: Mapping[str, Any]) -> list[str]:
        """Ops that `recipes` leave in fp32."""
        return [op for name in FALLBACK_RECIPES if recipes.get(name) is False for op in self.ops.get(name, ())]

    def keep(self, config: TuneConfig) -> TuneConfig:
        """`config` with the user's fixed recipes; what it says of a recipe itself stays. Of alphas the first.

        The ops of a fallback recipe that is off, by either of them, are in fp32.
        """
        recipes = {name: value for name, value in self.fixed.items() if name not in FALLBACK_RECIPES and value}
        arguments = dict(recipes.pop("smooth_quant_args", {}))
        if recipes.get("smooth_quant"):
            alpha = arguments.get("alpha", DEFAULT_ALPHA)
            arguments["alpha"] = alpha[0] if isinstance(alpha, (list, tuple)) else alpha
            recipes["smooth_quant_args"] = arguments
        off = [*self.off, *self._left(config.recipes)]
        return in_fp32(config, off).with_recipes({**recipes, **config.recipes})

    def all_applied(self, config: TuneConfig) -> TuneConfig:
        """Every tuned recipe at its last option: the ops of all fallback recipes in fp32."""
        return in_fp32(config, [op for ops in self.tuned.values() for op in ops])

    def one_by_one(self, config: TuneConfig) -> Iterator[TuneConfig]:
        """For each tuned recipe, `config` with that recipe's ops in fp32."""
        for ops in self.tuned.values():
            yield in_fp32(config, ops)

    def with_alpha(self, config: TuneConfig, alpha: float) -> TuneConfig:
        arguments = {**self.fixed.get("smooth_quant_args", {}), "alpha": alpha}
        return config.with_recipes({"smooth_quant": True, "smooth_quant_args": arguments})


def of_one_trial(recipes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Recipes with one alpha. Raises `ValueError` for several: which of them is tried, who yields them says."""
    arguments = recipes.get("smooth_quant_args", {})
    alpha = arguments.get("alpha")
    if not isinstance(alpha, (list, tuple)):
        return recipes
    if len(alpha) > 1:
        raise ValueError(f"has alphas {list(alpha)}, and a trial takes one alpha; yield a configuration for each")
    return {**recipes, "smooth_quant_args": {**arguments, "alpha": alpha[0]}}


def said_by_ops(config: TuneConfig) -> TuneConfig:
    """`config` without the fallback recipes, whose ops it has in fp32: however it is said, it is one configuration."""
    others = {name: value for name, value in config.recipes.items() if name not in FALLBACK_RECIPES}
    return replace(config, recipes=others)


def in_fp32(config: TuneConfig, names: Sequence[str]) -> TuneConfig:
    return config.having(dict.fromkeys(names, FP32))
