"""What a search quantizes and how: the configurations that `fit` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from quantuner.config.checks import Check, Checked, anything, near, number, one_of, only
from quantuner.config.criteria import AccuracyCriterion, TuningCriterion
from quantuner.space.constraints import overrides_of

APPROACHES = {"post_training_static_quant": "static", "post_training_dynamic_quant": "dynamic"}
APPROACHES |= {"post_training_auto_quant": "auto", "quant_aware_training": "qat"}
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


def _approach(value: Any) -> Any:
    known = [*APPROACHES.values(), *APPROACHES]
    if value == "weight_only":
        raise ValueError("weight_only is not there yet; use 'static', 'dynamic' or 'auto'")
    one_of(*known)(value)
    return APPROACHES.get(value, value)


def _sizes(value: Any) -> list[int]:
    sizes = [value] if isinstance(value, int) else value
    if not isinstance(sizes, (list, tuple)) or not sizes:
        raise ValueError("must be a number of samples, or a list of them")
    return [number(least=1, integer=True)(size) for size in sizes]


def _recipes(value: Any) -> dict[str, Any]:
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
    alpha = value.get("alpha", 0.5)
    if alpha != "auto":
        for a in alpha if isinstance(alpha, (list, tuple)) else [alpha]:
            if not isinstance(a, (int, float)) or isinstance(a, bool) or not 0 <= a <= 1:
                raise ValueError("has a smooth_quant alpha that is no number in [0, 1] nor 'auto'")
    return {"alpha": list(alpha)} if isinstance(alpha, (list, tuple)) else {"alpha": alpha}


def _ops(value: Any) -> Any:
    if value is not None:
        overrides_of(value)
    return value


def _precisions(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple, set)):
        raise ValueError("must be a list of 'bf16' and 'fp16'")
    return [one_of("bf16", "fp16")(precision) for precision in value]


def _instance(cls: type) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, cls):
            raise ValueError(f"must be a {cls.__name__}")
        return value

    return check


class PostTrainingQuantConfig(Checked):
    """What to search: the resource's spec.quantization, and both criteria."""

    approach: str
    calibration_sampling_size: Sequence[int]
    recipes: Mapping[str, Any]
    op_type_dict: Mapping[Any, Any] | None
    op_name_dict: Mapping[Any, Any] | None
    reduce_range: bool | None
    excluded_precisions: Sequence[str]
    example_inputs: Any
    quant_level: str | int
    accuracy_criterion: AccuracyCriterion
    tuning_criterion: TuningCriterion
    _checks: ClassVar[Mapping[str, Check]] = {
        "device": only("cpu", "other devices are not there yet"),
        "backend": only("default", "PyTorch's own backend is the one there is"),
        "domain": one_of("auto", "cv", "object_detection", "nlp", "recommendation_system"),
        "recipes": _recipes,
        "quant_format": only("default", "formats are ONNX's"),
        "inputs": only([], "names of inputs are TensorFlow's"),
        "outputs": only([], "names of outputs are TensorFlow's"),
        "approach": _approach,
        "calibration_sampling_size": _sizes,
        "op_type_dict": _ops,
        "op_name_dict": _ops,
        "reduce_range": one_of(None, True, False),
        "example_inputs": anything,
        "excluded_precisions": _precisions,
        "quant_level": one_of("auto", 0, 1),
        "accuracy_criterion": _instance(AccuracyCriterion),
        "tuning_criterion": _instance(TuningCriterion),
        "diagnosis": only(False, "diagnosis is not there; `quantuner report` shows the trials"),
        "ni_workload_name": anything,
    }

    def __init__(
        self,
        device: str = "cpu",
        backend: str = "default",
        domain: str = "auto",
        recipes: Mapping[str, Any] | None = None,
        quant_format: str = "default",
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        approach: str = "static",
        calibration_sampling_size: int | Sequence[int] = (100,),
        op_type_dict: Mapping[Any, Any] | None = None,
        op_name_dict: Mapping[Any, Any] | None = None,
        reduce_range: bool | None = None,
        example_inputs: Any = None,
        excluded_precisions: Sequence[str] = (),
        quant_level: str | int = "auto",
        accuracy_criterion: AccuracyCriterion | None = None,
        tuning_criterion: TuningCriterion | None = None,
        diagnosis: bool = False,
        ni_workload_name: str = "quantization",
    ) -> None:
        given = {name: value for name, value in locals().items() if name in self._checks}
        given |= {"recipes": recipes or {}, "inputs": list(inputs), "outputs": list(outputs)}
        given["accuracy_criterion"] = accuracy_criterion or AccuracyCriterion()
        given["tuning_criterion"] = tuning_criterion or TuningCriterion()
        for name, value in given.items():
            setattr(self, name, value)


class QuantizationAwareTrainingConfig(PostTrainingQuantConfig):
    """As PostTrainingQuantConfig, for a model that `q_func` trains while it is quantized."""

    _checks: ClassVar[Mapping[str, Check]] = {
        **PostTrainingQuantConfig._checks,
        "approach": only("quant_aware_training", "the approach of this class is fixed"),
        "model_name": anything,
    }

    def __init__(
        self,
        device: str = "cpu",
        backend: str = "default",
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        op_type_dict: Mapping[Any, Any] | None = None,
        op_name_dict: Mapping[Any, Any] | None = None,
        reduce_range: bool | None = None,
        model_name: str = "",
        quant_format: str = "default",
        excluded_precisions: Sequence[str] = (),
        quant_level: str | int = "auto",
        accuracy_criterion: AccuracyCriterion | None = None,
        tuning_criterion: TuningCriterion | None = None,
        example_inputs: Any = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "model_name", "__class__")}
        super().__init__(approach="quant_aware_training", **given)
        self.model_name = model_name


Config = PostTrainingQuantConfig | QuantizationAwareTrainingConfig
