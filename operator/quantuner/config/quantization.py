"""What a search quantizes and how: the configurations that `fit` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from quantuner.api.spec import CORRECTIONS, INT8_RECIPES
from quantuner.config.checks import Check, Checked, anything, each_once, number, one_of, only, unboxed
from quantuner.config.criteria import AccuracyCriterion, TuningCriterion
from quantuner.config.recipes import checked_recipes
from quantuner.space.constraints import overrides_of

POST_TRAINING = {
    "post_training_static_quant": "static",
    "post_training_dynamic_quant": "dynamic",
    "post_training_auto_quant": "auto",
    "post_training_weight_only": "weight_only",
}
APPROACHES = {**POST_TRAINING, "quant_aware_training": "qat"}


def _approach(value: Any) -> Any:
    if value in ("qat", "quant_aware_training"):
        raise ValueError(
            "belongs to training; use QuantizationAwareTrainingConfig, or 'static', 'dynamic', 'auto' or 'weight_only'"
        )
    one_of(*POST_TRAINING.values(), *POST_TRAINING)(value)
    return POST_TRAINING.get(value, value)


def _sizes(value: Any) -> list[int]:
    value = unboxed(value)
    sizes = [value] if isinstance(value, int) else value
    if not isinstance(sizes, (list, tuple)) or not sizes:
        raise ValueError("must be a number of samples, or a list of them")
    kept = [number(least=1, integer=True)(size) for size in sizes]
    return list(dict.fromkeys(kept))  # what was tried with a size is not tried with it again


def _ops(value: Any) -> Any:
    if value is not None:
        overrides_of(value)
    return value


def _excluded(value: Any) -> list[str]:
    return _precisions(value, "bf16", "fp16")


def _fallback(value: Any) -> list[str]:
    precisions = _precisions(value, "bf16", "fp16", "fp32")
    if "fp32" not in precisions:
        raise ValueError("must have 'fp32' beside others, since every machine computes in it; add it")
    return precisions


def _precisions(value: Any, *known: str) -> list[str]:
    if not isinstance(value, (list, tuple)):  # a set has another order in every process
        raise ValueError(f"must be a list of {' and '.join(map(repr, known))}")
    for precision in value:
        one_of(*known)(precision)
    each_once(value)
    return list(value)


def _device(value: Any) -> Any:
    if value in ("npu", "xpu"):
        raise ValueError(f"cannot be {value!r}, which is not there; use 'cpu', or 'gpu' for one of NVIDIA's or AMD's")
    one_of("cpu", "gpu", "cuda")(value)
    return "cuda" if value == "gpu" else value


def _instance(cls: type) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, cls):
            raise ValueError(f"must be an instance of {cls.__name__}")
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
    device: str
    precisions: Sequence[str]
    excluded_precisions: Sequence[str]
    example_inputs: Any
    quant_level: str | int
    accuracy_criterion: AccuracyCriterion
    tuning_criterion: TuningCriterion
    _checks: ClassVar[Mapping[str, Check]] = {
        "device": _device,
        "backend": only("default", "is PyTorch's own alone"),
        "domain": one_of("auto", "cv", "object_detection", "nlp", "recommendation_system"),
        "recipes": checked_recipes,
        "quant_format": only("default", "is for ONNX's formats"),
        "inputs": only([], "is for TensorFlow's names of inputs"),
        "outputs": only([], "is for TensorFlow's names of outputs"),
        "approach": _approach,
        "calibration_sampling_size": _sizes,
        "op_type_dict": _ops,
        "op_name_dict": _ops,
        "reduce_range": one_of(None, True, False),
        "example_inputs": anything,
        "precisions": _fallback,
        "excluded_precisions": _excluded,
        "quant_level": one_of("auto", 0, 1),
        "accuracy_criterion": _instance(AccuracyCriterion),
        "tuning_criterion": _instance(TuningCriterion),
        "diagnosis": only(False, "is not there, but `quantuner report` shows the trials"),
        "ni_workload_name": anything,
    }

    def _check_together(self, values: Mapping[str, Any]) -> None:
        given = [name for name in INT8_RECIPES if values.get("recipes", {}).get(name)]
        if values.get("approach") == "weight_only" and given:
            raise ValueError(
                f"weight_only has no int8 activations or weights for {' and '.join(given)}; leave it out, or constrain "
                "the weight's algorithm to AWQ or GPTQ"
            )

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
        precisions: Sequence[str] = ("fp32",),
    ) -> None:
        given = {name: value for name, value in locals().items() if name in self._checks}
        own = {"recipes": dict, "accuracy_criterion": AccuracyCriterion, "tuning_criterion": TuningCriterion}
        given |= {name: make() for name, make in own.items() if given[name] is None}
        given |= {name: [] for name in ("inputs", "outputs") if given[name] == ()}
        for name, value in given.items():
            setattr(self, name, value)


class QuantizationAwareTrainingConfig(PostTrainingQuantConfig):
    """As PostTrainingQuantConfig, for a model that `q_func` trains while it is quantized."""

    _checks: ClassVar[Mapping[str, Check]] = {
        **PostTrainingQuantConfig._checks,
        "approach": only("quant_aware_training", "is fixed by the class"),
        "model_name": anything,
    }

    def _check_together(self, values: Mapping[str, Any]) -> None:
        corrections = [name for name in CORRECTIONS if values.get("recipes", {}).get(name)]
        if corrections:
            raise ValueError(
                f"has {' and '.join(corrections)}, which would take back what training has learnt; leave it out"
            )

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
        precisions: Sequence[str] = ("fp32",),
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "model_name", "__class__")}
        super().__init__(approach="quant_aware_training", **given)
        self.model_name = model_name


Config = PostTrainingQuantConfig | QuantizationAwareTrainingConfig
