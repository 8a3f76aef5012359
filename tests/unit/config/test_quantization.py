"""What a search quantizes: documented defaults, and every refusal.

Source of the defaults: Neural Compressor 2.x, config.PostTrainingQuantConfig and QuantizationAwareTrainingConfig.
"""

from typing import Any

import pytest

from quantuner.config import (
    AccuracyCriterion,
    PostTrainingQuantConfig,
    QuantizationAwareTrainingConfig,
    TuningCriterion,
)

SHARED: dict[str, Any] = {
    "device": "cpu",
    "backend": "default",
    "inputs": [],
    "outputs": [],
    "op_type_dict": None,
    "op_name_dict": None,
    "reduce_range": None,
    "quant_format": "default",
    "excluded_precisions": [],
    "quant_level": "auto",
    "accuracy_criterion": AccuracyCriterion(),
    "tuning_criterion": TuningCriterion(),
    "example_inputs": None,
}
DEFAULTS: dict[type, dict[str, Any]] = {
    PostTrainingQuantConfig: {
        **SHARED,
        "domain": "auto",
        "recipes": {},
        "approach": "static",
        "calibration_sampling_size": [100],
        "diagnosis": False,
        "ni_workload_name": "quantization",
    },
    QuantizationAwareTrainingConfig: {**SHARED, "approach": "quant_aware_training", "model_name": ""},
}


@pytest.mark.parametrize(
    ("cls", "attribute"),
    [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls, table in DEFAULTS.items() for name in table],
)
def test_defaults(cls: type, attribute: str) -> None:
    assert getattr(cls(), attribute) == DEFAULTS[cls][attribute]


def test_default_criteria_are_each_configs_own() -> None:
    """Neural Compressor's were shared by all configurations."""
    one, other = PostTrainingQuantConfig(), PostTrainingQuantConfig()
    one.tuning_criterion.max_trials = 1
    assert other.tuning_criterion.max_trials == 100


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("post_training_static_quant", "static"),
        ("post_training_dynamic_quant", "dynamic"),
        ("post_training_auto_quant", "auto"),
        ("dynamic", "dynamic"),
    ],
)
def test_an_approach_may_be_spelt_out(given: str, kept: str) -> None:
    assert PostTrainingQuantConfig(approach=given).approach == kept


@pytest.mark.parametrize(("given", "kept"), [(7, [7]), ([100, 300], [100, 300]), ((5,), [5])], ids=str)
def test_calibration_sizes_become_a_list(given: Any, kept: list[int]) -> None:
    assert PostTrainingQuantConfig(calibration_sampling_size=given).calibration_sampling_size == kept


@pytest.mark.parametrize(
    "recipes",
    [
        {"smooth_quant": True},
        {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.3}},
        {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.3, 0.5]}},
        {"smooth_quant": True, "smooth_quant_args": {"alpha": "auto"}},
        {"fast_bias_correction": True, "weight_correction": True},
        {"first_conv_or_matmul_quantization": False, "last_conv_or_matmul_quantization": False},
    ],
    ids=str,
)
def test_recipes_are_kept(recipes: dict[str, Any]) -> None:
    assert PostTrainingQuantConfig(recipes=recipes).recipes == recipes


def test_recipes_of_other_frameworks_may_be_given_at_their_default() -> None:
    assert PostTrainingQuantConfig(recipes={"gemm_to_matmul": True, "graph_optimization_level": None}).recipes == {}


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"device": "gpu"}, r"PostTrainingQuantConfig\.device other devices are not there yet; leave it at 'cpu'"),
    ({"backend": "ipex"}, "leave it at 'default'; it is 'ipex'"),
    ({"quant_format": "QDQ"}, "formats are ONNX's"),
    ({"inputs": ["x"]}, "names of inputs are TensorFlow's"),
    ({"outputs": ["y"]}, "names of outputs are TensorFlow's"),
    ({"domain": "npl"}, r"must be one of 'auto', 'cv'.*\(did you mean 'nlp'\?\)"),
    ({"approach": "weight_only"}, "weight_only is not there yet; use 'static', 'dynamic' or 'auto'"),
    ({"approach": "statc"}, r"must be one of .*\(did you mean 'static'\?\)"),
    ({"calibration_sampling_size": 0}, "must be an integer of at least 1"),
    ({"calibration_sampling_size": []}, "must be a number of samples, or a list of them"),
    ({"quant_level": 2}, "quant_level must be one of 'auto', 0, 1; it is 2"),
    ({"quant_level": "1"}, "quant_level must be one of 'auto', 0, 1"),
    ({"reduce_range": "yes"}, "must be one of None, True, False"),
    ({"excluded_precisions": ["int8"]}, "must be one of 'bf16', 'fp16'"),
    ({"excluded_precisions": "bf16"}, "must be a list of 'bf16' and 'fp16'"),
    ({"diagnosis": True}, "`quantuner report` shows the trials"),
    ({"accuracy_criterion": 0.01}, "must be a AccuracyCriterion"),
    ({"tuning_criterion": "basic"}, "must be a TuningCriterion"),
    ({"recipes": ["smooth_quant"]}, "must be a dict of recipe names to values"),
    ({"recipes": {"smoothquant": True}}, r"has no recipe 'smoothquant' \(did you mean 'smooth_quant'\?\)"),
    ({"recipes": {"smooth_quant": 1}}, "must be one of True, False"),
    ({"recipes": {"smooth_quant_args": {"alpha": 0.5}}}, "set 'smooth_quant': True"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"alpha": 1.5}}}, r"no number in \[0, 1\] nor 'auto'"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"beta": 1}}}, "the one key 'alpha'"),
    ({"recipes": {"layer_wise_quant": True}}, "'layer_wise_quant' is not for PyTorch, or not there yet"),
    ({"op_type_dict": ["Conv2d"]}, "op constraints are a dict of patterns, not list"),
    ({"op_type_dict": {"Conv2d": {}}}, "must be a dict with weight or activation"),
    ({"op_type_dict": {"Conv2d": {"weights": {}}}}, "there is no 'weights'; the nearest is 'weight'"),
    ({"op_name_dict": {"fc": {"weight": {"dtyp": "int8"}}}}, "there is no 'dtyp'; the nearest is 'dtype'"),
    ({"op_name_dict": {"fc": {"weight": {"dtype": ["int9"]}}}}, "there is no 'int9'; the nearest is 'int8'"),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSALS, ids=[str(arguments) for arguments, _ in REFUSALS])
def test_what_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PostTrainingQuantConfig(**arguments)


def test_the_approach_of_training_is_fixed() -> None:
    config = QuantizationAwareTrainingConfig()
    with pytest.raises(ValueError, match="the approach of this class is fixed"):
        config.approach = "static"


def test_what_is_set_later_is_checked_too() -> None:
    config = PostTrainingQuantConfig()
    with pytest.raises(ValueError, match="must be one of 'auto', 0, 1"):
        config.quant_level = "2"
    with pytest.raises(AttributeError, match=r"has no 'op_types_dict' \(did you mean 'op_type_dict'\?\)"):
        config.op_types_dict = {}
