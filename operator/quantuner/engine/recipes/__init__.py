"""Algorithms around quantization: what they are for, and which of them a configuration wants."""

from collections.abc import Mapping
from typing import Any

from torch.fx import GraphModule

from quantuner.engine.recipes.bias_correction import FastBiasCorrection
from quantuner.engine.recipes.pairs import dedicate
from quantuner.engine.recipes.scheduler import Algorithm
from quantuner.engine.recipes.smooth_quant import DEFAULT_ALPHA, SmoothQuant, alphas_between
from quantuner.engine.recipes.weight_correction import WeightCorrection

__all__ = [
    "FastBiasCorrection",
    "SmoothQuant",
    "WeightCorrection",
    "finished",
    "post_quantization",
    "pre_quantization",
]


def pre_quantization(recipes: Mapping[str, Any]) -> list[Algorithm]:
    """Algorithms on the fp32 model that a configuration's recipes name, in their order."""
    if not recipes.get("smooth_quant"):
        return []
    arguments = recipes.get("smooth_quant_args", {})
    alphas = alphas_between(**arguments.get("auto_alpha_args", {}))
    return [SmoothQuant(arguments.get("alpha", DEFAULT_ALPHA), folding=arguments.get("folding"), alphas=alphas)]


def post_quantization(recipes: Mapping[str, Any]) -> list[Algorithm]:
    """Algorithms on the quantized model, in their order."""
    found: list[Algorithm] = []
    if recipes.get("fast_bias_correction"):
        found.append(FastBiasCorrection())
    if recipes.get("weight_correction"):
        found.append(WeightCorrection())
    return found


def finished(model: GraphModule, recipes: Mapping[str, Any]) -> GraphModule:
    """The quantized model in the form that its recipes want; it computes the same bits. Changes the model in place."""
    if recipes.get("dedicated_qdq_pair"):
        dedicate(model)
    return model
