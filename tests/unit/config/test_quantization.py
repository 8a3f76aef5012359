"""What a search quantizes: documented defaults, what is taken, and every refusal with rule, value and remedy.

Source of the defaults: Neural Compressor 2.x, config.PostTrainingQuantConfig and QuantizationAwareTrainingConfig.
Recipes that are not given are not filled in with their defaults: the resource tells a recipe that was set from one
that was not.
"""

import inspect
from typing import Any

import numpy as np
import pytest
import yaml

from quantuner.config import (
    AccuracyCriterion,
    PostTrainingQuantConfig,
    QuantizationAwareTrainingConfig,
    TuningCriterion,
)
from quantuner.config.quantization import APPROACHES
from quantuner.config.recipes import ELSEWHERE, RECIPES

CONFIGS = (PostTrainingQuantConfig, QuantizationAwareTrainingConfig)
Config = type[PostTrainingQuantConfig]

REFERENCE: dict[Config, dict[str, Any]] = {
    PostTrainingQuantConfig: {
        "device": "cpu",
        "backend": "default",
        "domain": "auto",
        "recipes": {},
        "quant_format": "default",
        "inputs": [],
        "outputs": [],
        "approach": "post_training_static_quant",
        "calibration_sampling_size": [100],
        "op_type_dict": None,
        "op_name_dict": None,
        "reduce_range": None,
        "example_inputs": None,
        "excluded_precisions": [],
        "quant_level": "auto",
        "accuracy_criterion": AccuracyCriterion(),
        "tuning_criterion": TuningCriterion(),
        "use_distributed_tuning": False,
        "diagnosis": False,
        "ni_workload_name": "quantization",
    },
    QuantizationAwareTrainingConfig: {
        "device": "cpu",
        "backend": "default",
        "inputs": [],
        "outputs": [],
        "op_type_dict": None,
        "op_name_dict": None,
        "reduce_range": None,
        "model_name": "",
        "quant_format": "default",
        "excluded_precisions": [],
        "quant_level": "auto",
        "accuracy_criterion": AccuracyCriterion(),
        "tuning_criterion": TuningCriterion(),
    },
}
"""Arguments and the values that a configuration has without them, 2.1 and 2.6 together."""

GONE = object()
DEVIATIONS: dict[tuple[Config, str], tuple[Any, str]] = {
    (PostTrainingQuantConfig, "approach"): ("static", "kept as it is given, which is how the resource spells it"),
    (PostTrainingQuantConfig, "use_distributed_tuning"): (GONE, "2.1 only: a search is distributed where ranks are"),
    (PostTrainingQuantConfig, "precisions"): (["fp32"], "bf16 and fp16 are asked for: a search is alike everywhere"),
    (QuantizationAwareTrainingConfig, "example_inputs"): (None, "the model is captured, which needs an input"),
    (QuantizationAwareTrainingConfig, "precisions"): (["fp32"], "as above"),
}
EXPECTED = {
    cls: {
        name: value
        for name, value in {
            **table,
            **{name: value for (of, name), (value, _) in DEVIATIONS.items() if of is cls},
        }.items()
        if value is not GONE
    }
    for cls, table in REFERENCE.items()
}


@pytest.mark.parametrize(
    ("cls", "attribute"),
    [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls, table in EXPECTED.items() for name in table],
)
def test_a_default_is_the_documented_one_or_a_listed_deviation(cls: Config, attribute: str) -> None:
    value, expected = getattr(cls(), attribute), EXPECTED[cls][attribute]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_arguments_are_the_documented_ones_in_their_order(cls: Config) -> None:
    assert list(inspect.signature(cls).parameters) == list(EXPECTED[cls])


@pytest.mark.parametrize(("cls", "name"), list(DEVIATIONS), ids=lambda part: getattr(part, "__name__", part))
def test_a_listed_deviation_is_one_and_has_its_reason(cls: Config, name: str) -> None:
    value, reason = DEVIATIONS[cls, name]
    assert reason
    assert name not in REFERENCE[cls] or REFERENCE[cls][name] != value


def test_what_the_approach_of_training_fixes_is_not_asked_for() -> None:
    config = QuantizationAwareTrainingConfig()
    assert config.approach == "quant_aware_training"
    assert (config.calibration_sampling_size, config.recipes) == ([100], {})


REFERENCE_RECIPES: dict[str, Any] = {
    "smooth_quant": False,
    "smooth_quant_args": {},
    "layer_wise_quant": False,
    "layer_wise_quant_args": {},
    "fast_bias_correction": False,
    "weight_correction": False,
    "first_conv_or_matmul_quantization": True,
    "last_conv_or_matmul_quantization": True,
    "pre_post_process_quantization": True,
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


def test_every_documented_recipe_is_here_or_elsewhere() -> None:
    assert {*RECIPES, *ELSEWHERE} == set(REFERENCE_RECIPES)


@pytest.mark.parametrize(
    "name",
    REFERENCE_RECIPES,
)
def test_a_recipe_may_be_given_at_its_documented_default(name: str) -> None:
    recipes = PostTrainingQuantConfig(recipes={name: REFERENCE_RECIPES[name]}).recipes
    assert recipes == ({} if name in ELSEWHERE else {name: REFERENCE_RECIPES[name]})


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_recipe_that_is_elsewhere_is_refused_at_any_other_value_with_its_default(name: str) -> None:
    with pytest.raises(ValueError, match=rf"the recipe '{name}' is not for PyTorch, or not there yet; leave it at "):
        PostTrainingQuantConfig(recipes={name: "other"})


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
        ("static", "static"),
        ("dynamic", "dynamic"),
        ("auto", "auto"),
    ],
)
def test_an_approach_may_be_spelt_out(given: str, kept: str) -> None:
    assert PostTrainingQuantConfig(approach=given).approach == kept


@pytest.mark.parametrize(
    ("given", "kept"),
    [(7, [7]), ([100, 300], [100, 300]), ((5,), [5]), (np.int64(7), [7]), ([np.int64(7)], [7])],
    ids=str,
)
def test_calibration_sizes_become_a_list(given: Any, kept: list[int]) -> None:
    sizes = PostTrainingQuantConfig(calibration_sampling_size=given).calibration_sampling_size
    assert sizes == kept
    assert {type(size) for size in sizes} == {int}


@pytest.mark.parametrize(
    "recipes",
    [
        {"smooth_quant": True},
        {"smooth_quant": True, "smooth_quant_args": {}},
        {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.3}},
        {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.3, 0.5]}},
        {"smooth_quant": True, "smooth_quant_args": {"alpha": "auto"}},
        {"smooth_quant": True, "smooth_quant_args": {"folding": True}},
        {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.3, "folding": False}},
        {"smooth_quant": True, "smooth_quant_args": {"alpha": "auto", "auto_alpha_args": {"alpha_step": 0.05}}},
        {"layer_wise_quant": True, "layer_wise_quant_args": {"path": "x"}, "dedicated_qdq_pair": True},
        {"layer_wise_quant": True, "smooth_quant": False, "first_conv_or_matmul_quantization": True},
        {"fast_bias_correction": True, "weight_correction": True},
        {"first_conv_or_matmul_quantization": False, "last_conv_or_matmul_quantization": False},
    ],
    ids=str,
)
def test_recipes_are_kept(recipes: dict[str, Any]) -> None:
    assert PostTrainingQuantConfig(recipes=recipes).recipes == recipes


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"alpha": list(np.arange(0.25, 0.75, 0.25))}, {"alpha": [0.25, 0.5]}),
        ({"alpha": np.float64(0.5)}, {"alpha": 0.5}),
        ({"alpha": "auto", "auto_alpha_args": {"alpha_min": np.float64(0.25)}},) * 2,
    ],
    ids=["alphas", "an alpha", "a range"],
)
def test_alphas_of_numpy_can_be_written_and_read(given: dict[str, Any], kept: dict[str, Any]) -> None:
    config = PostTrainingQuantConfig(recipes={"smooth_quant": True, "smooth_quant_args": given})
    assert config.recipes["smooth_quant_args"] == kept
    assert yaml.safe_load(yaml.safe_dump(config.recipes)) == config.recipes


def test_alphas_in_a_tuple_become_a_list_as_json_has_it() -> None:
    config = PostTrainingQuantConfig(recipes={"smooth_quant": True, "smooth_quant_args": {"alpha": (0, 0.5, 1)}})
    assert config.recipes["smooth_quant_args"] == {"alpha": [0, 0.5, 1]}


def test_a_size_that_is_given_twice_is_searched_once() -> None:
    assert PostTrainingQuantConfig(calibration_sampling_size=[100, 8, 100]).calibration_sampling_size == [100, 8]


def test_arguments_of_a_smooth_quant_that_is_off_are_taken_without_effect() -> None:
    config = PostTrainingQuantConfig(recipes={"smooth_quant": False, "smooth_quant_args": {"alpha": 0.5}})
    assert config.recipes == {"smooth_quant": False}


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        pytest.param("op_type_dict", {"Conv.*": {"weight": {"dtype": "int8"}}}, id="a bare option"),
        pytest.param("op_type_dict", {"Linear": {"activation": {"scheme": ["sym", "asym"]}}}, id="a list of options"),
        pytest.param("op_name_dict", {("a", "b"): {"weight": {"dtype": ["fp32", "bf16"]}}}, id="a tuple of names"),
        pytest.param("op_name_dict", {}, id="no entry"),
        pytest.param("reduce_range", True, id="reduced"),
        pytest.param("reduce_range", False, id="not reduced"),
        pytest.param("excluded_precisions", ["bf16", "fp16"], id="both precisions"),
        pytest.param("precisions", ["bf16", "fp32"], id="bf16 as well"),
        pytest.param("precisions", ["fp32", "fp16", "bf16"], id="all precisions, in any order"),
        pytest.param("device", "cuda", id="a GPU"),
        pytest.param("quant_level", 0, id="level 0"),
        pytest.param("quant_level", 1, id="level 1"),
        pytest.param("example_inputs", (1, 2), id="example inputs"),
        pytest.param("accuracy_criterion", AccuracyCriterion(tolerable_loss=0.5), id="accuracy"),
        pytest.param("tuning_criterion", TuningCriterion(max_trials=3), id="tuning"),
    ],
)
def test_what_is_given_is_kept_by_both_classes(cls: Config, attribute: str, value: Any) -> None:
    assert getattr(cls(**{attribute: value}), attribute) == value


def test_neural_compressors_name_of_a_gpu_is_torchs() -> None:
    assert PostTrainingQuantConfig(device="gpu").device == "cuda"


@pytest.mark.parametrize("domain", ["auto", "cv", "object_detection", "nlp", "recommendation_system"])
def test_a_documented_domain_is_taken(domain: str) -> None:
    assert vars(PostTrainingQuantConfig(domain=domain))["domain"] == domain


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"device": "xpu"}, "cannot be 'xpu', which is not there; use 'cpu', or 'gpu' for"),
    ({"device": "tpu"}, "must be one of 'cpu', 'gpu', 'cuda'"),
    ({"backend": "ipex"}, "is PyTorch's own alone; leave it at 'default'"),
    ({"quant_format": "QDQ"}, "is for ONNX's formats; leave it at 'default'"),
    ({"inputs": None}, r"is for TensorFlow's names of inputs; leave it at \[\]"),
    ({"inputs": ["x"]}, r"is for TensorFlow's names of inputs; leave it at \[\]"),
    ({"outputs": ["y"]}, r"is for TensorFlow's names of outputs; leave it at \[\]"),
    ({"domain": "npl"}, r"must be one of 'auto', 'cv'.*\(did you mean 'nlp'\?\)"),
    ({"approach": "qat"}, "belongs to training; use QuantizationAwareTrainingConfig, or 'static'"),
    ({"approach": "statc"}, r"must be one of .*\(did you mean 'static'\?\)"),
    ({"calibration_sampling_size": 0}, "must be an integer of at least 1"),
    ({"calibration_sampling_size": [100, 0]}, "must be an integer of at least 1"),
    ({"calibration_sampling_size": True}, "must be an integer of at least 1"),
    ({"calibration_sampling_size": 1.5}, "must be a number of samples, or a list of them"),
    ({"calibration_sampling_size": []}, "must be a number of samples, or a list of them"),
    ({"quant_level": 2}, "must be one of 'auto', 0, 1"),
    ({"quant_level": "1"}, "must be one of 'auto', 0, 1"),
    ({"quant_level": True}, "must be one of 'auto', 0, 1"),
    ({"reduce_range": "yes"}, "must be one of None, True, False"),
    ({"excluded_precisions": ["int8"]}, "must be one of 'bf16', 'fp16'"),
    ({"excluded_precisions": ["bf16", "bf16"]}, "must give each value once, but has 'bf16' twice; remove one"),
    ({"excluded_precisions": {"fp16"}}, "must be a list of 'bf16' and 'fp16'"),  # a set has no order of its own
    ({"excluded_precisions": "bf16"}, "must be a list of 'bf16' and 'fp16'"),
    ({"precisions": ["bf16"]}, "must have 'fp32' beside others, since every machine computes in it; add it"),
    ({"precisions": []}, "must have 'fp32' beside others"),
    ({"precisions": ["int8", "fp32"]}, "must be one of 'bf16', 'fp16', 'fp32'"),
    ({"precisions": ["fp32", "fp32"]}, "must give each value once, but has 'fp32' twice; remove one"),
    ({"precisions": {"fp32"}}, "must be a list of 'bf16' and 'fp16' and 'fp32'"),
    ({"diagnosis": True}, "`quantuner report` shows the trials"),
    ({"accuracy_criterion": 0.01}, "must be an instance of AccuracyCriterion"),
    ({"accuracy_criterion": 0}, "must be an instance of AccuracyCriterion"),
    ({"tuning_criterion": "basic"}, "must be an instance of TuningCriterion"),
    ({"tuning_criterion": {}}, "must be an instance of TuningCriterion"),
    ({"recipes": []}, "must be a dict of recipe names to values"),
    ({"recipes": ""}, "must be a dict of recipe names to values"),
    ({"recipes": ["smooth_quant"]}, "must be a dict of recipe names to values"),
    ({"recipes": {"smoothquant": True}}, r"has no recipe 'smoothquant' \(did you mean 'smooth_quant'\?\)"),
    ({"recipes": {"smooth_quant": 1}}, "must be one of True, False"),
    ({"recipes": {"smooth_quant_args": {"alpha": 0.5}}}, "set 'smooth_quant': True"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"alpha": 1.5}}}, r"no number in \[0, 1\] nor 'auto'"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.5, "auto"]}}}, r"no number in \[0, 1\]"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"alpha": True}}}, r"no number in \[0, 1\] nor 'auto'"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"alpha": []}}}, "give one, or a list of such numbers"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.5, 0.5]}}}, "but has 0.5 twice; remove one"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"beta": 1}}}, "is a dict with alpha, folding, auto_al"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": 0.5}}, "is a dict with alpha, folding, auto_al"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"folding": 1}}}, "must be one of True, False"),
    ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"weight_clip": False}}}, "leave it at True"),
    (
        {"recipes": {"smooth_quant": True, "smooth_quant_args": {"auto_alpha_args": {"alpha_min": 0.2}}}},
        "set 'alpha': 'auto'",
    ),
    *(
        ({"recipes": {"smooth_quant": True, "smooth_quant_args": {"alpha": "auto", "auto_alpha_args": given}}}, says)
        for given, says in [
            ({"alpha_min": 0.7, "alpha_max": 0.3}, "give 0 ≤ alpha_min ≤ alpha_max ≤ 1 and 0.01 ≤ alpha_step ≤ 1"),
            ({"alpha_step": 0}, "are no range"),
            ({"alpha_max": 1.5}, "are no range"),
            ({"beta": 1}, "is a dict with alpha_min, alpha_max, alpha_step"),
        ]
    ),
    (
        {"recipes": {"smooth_quant": True, "smooth_quant_args": {"alpha": np.ones(2)}}},
        r"has a smooth_quant alpha that is no number in \[0, 1\] nor 'auto'",
    ),
    ({"recipes": {3: True}}, "has no recipe 3; there are smooth_quant"),
    ({"recipes": {"layer_wise_quant_args": {"path": "x"}}}, "set 'layer_wise_quant': True"),
    ({"recipes": {"layer_wise_quant": True, "layer_wise_quant_args": {"model": "x"}}}, "is a dict with 'path'"),
    ({"recipes": {"layer_wise_quant": True, "layer_wise_quant_args": {"path": 3}}}, "is a dict with 'path'"),
    (
        {"recipes": {"layer_wise_quant": True, "smooth_quant": True, "weight_correction": True}},
        "has layer_wise_quant with smooth_quant and weight_correction, which want the whole model; leave one out",
    ),
    (
        {"recipes": {"layer_wise_quant": True, "first_conv_or_matmul_quantization": False}},
        "has layer_wise_quant with first_conv_or_matmul_quantization",
    ),
    ({"diagnosis": "yes"}, "is not there, but `quantuner report` shows the trials; leave it at False"),
    ({"op_name_dict": "fc"}, "op constraints are a dict of patterns, not str"),
    (
        {"op_name_dict": {"fc": ["int8"]}},
        r"op constraint 'fc' must be a dict with weight or activation, not \['int8'\]",
    ),
    ({"op_type_dict": ["Conv2d"]}, "op constraints are a dict of patterns, not list"),
    ({"op_type_dict": {"Conv2d": {}}}, "must be a dict with weight or activation"),
    ({"op_type_dict": {"Conv2d": {"weights": {}}}}, "there is no 'weights'; the nearest is 'weight'"),
    ({"op_name_dict": {"fc": {"weight": {"dtyp": "int8"}}}}, "there is no 'dtyp'; the nearest is 'dtype'"),
    ({"op_name_dict": {"fc": {"weight": {"dtype": ["int9"]}}}}, "there is no 'int9'; the nearest is 'int'"),
    ({"op_name_dict": {"fc": {"weight": {"bits": 3}}}}, "weight.bits must be one of 4, 8, or a list of them, not 3"),
    ({"op_name_dict": {"fc": {"weight": {"group_size": [16]}}}}, "weight.group_size: there is no '16'"),
    ({"op_name_dict": {"fc": {"activation": {"bits": 4}}}}, "activation: there is no 'bits'"),
    ({"op_name_dict": {"fc": {"weight": {"dtype": None}}}}, "must be one of int8, .*, or a list of them, not None"),
    ({"op_name_dict": {"fc": {"weight": {"dtype": 8}}}}, "must be one of int8, .*, or a list of them, not 8"),
    ({"op_type_dict": {"Conv2d": {"weight": {"dtype": []}}}}, r"must be one of int8, .*, or a list of them, not \[\]"),
    (
        {"op_type_dict": {"Conv2d": {"weight": ["int8"]}}},
        r"weight must be a dict with any of dtype, .*, not \['int8'\]",
    ),
    ({"op_type_dict": {"Conv2d": {"weight": {}}}}, "weight must be a dict with any of dtype, .*, not {}"),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSALS, ids=[str(arguments) for arguments, _ in REFUSALS])
def test_what_is_refused_is_named_with_its_rule_and_value(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        PostTrainingQuantConfig(**arguments)
    ((name, value),) = arguments.items()
    assert str(caught.value).startswith(f"PostTrainingQuantConfig.{name} ")
    assert str(caught.value).endswith(f"; it is {value!r:.100}")


@pytest.mark.parametrize(("arguments", "says"), REFUSALS, ids=[str(arguments) for arguments, _ in REFUSALS])
def test_training_refuses_what_post_training_refuses(arguments: dict[str, Any], says: str) -> None:
    ((name, value),) = arguments.items()
    config = QuantizationAwareTrainingConfig()
    rule = "is fixed by the class" if name == "approach" else says
    with pytest.raises(ValueError, match=rf"^QuantizationAwareTrainingConfig\.{name} .*{rule}"):
        setattr(config, name, value)
    assert config == QuantizationAwareTrainingConfig()


def test_every_attribute_that_is_checked_has_a_row_of_what_it_refuses() -> None:
    free = {"example_inputs", "ni_workload_name"}  # whatever they are, nothing or only the user's model reads them
    assert {name for arguments, _ in REFUSALS for name in arguments} == set(PostTrainingQuantConfig._checks) - free
    assert set(QuantizationAwareTrainingConfig._checks) == {*PostTrainingQuantConfig._checks, "model_name"}


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        pytest.param({"domain": "object_detect"}, "object_detection", id="domain"),
        pytest.param({"approach": "post_training_static"}, "post_training_static_quant", id="approach"),
        pytest.param({"excluded_precisions": ["bfloat16"]}, "bf16", id="precision"),
        pytest.param({"recipes": {"first_conv_quantization": False}}, "first_conv_or_matmul_quantization", id="recipe"),
        pytest.param({"recipes": {"weights_correction": True}}, "weight_correction", id="recipe in the plural"),
        pytest.param({"op_type_dict": {"Conv2d": {"activations": {}}}}, "activation", id="attribute"),
        pytest.param({"op_type_dict": {"Conv2d": {"weight": {"algo": "kl"}}}}, "algorithm", id="item"),
        pytest.param({"op_type_dict": {"Conv2d": {"weight": {"scheme": "symm"}}}}, "sym", id="option"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(arguments: dict[str, Any], nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"(did you mean|the nearest is) '{nearest}'"):
        PostTrainingQuantConfig(**arguments)


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_an_argument_that_is_not_there_is_refused(cls: Config) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'use_distributed_tuning'"):
        cls(use_distributed_tuning=True)  # type: ignore[call-arg]


def test_the_approach_of_training_is_fixed() -> None:
    config = QuantizationAwareTrainingConfig()
    with pytest.raises(ValueError, match="approach is fixed by the class"):
        config.approach = "static"
    with pytest.raises(ValueError, match="belongs to training; use QuantizationAwareTrainingConfig"):
        PostTrainingQuantConfig(approach="quant_aware_training")


def test_what_is_set_later_is_checked_too() -> None:
    config = PostTrainingQuantConfig()
    with pytest.raises(ValueError, match="must be one of 'auto', 0, 1"):
        config.quant_level = "2"
    with pytest.raises(AttributeError, match=r"has no 'op_types_dict' \(did you mean 'op_type_dict'\?\)"):
        config.op_types_dict = {}


def test_a_configuration_reads_as_its_attributes_in_their_order() -> None:
    text = repr(PostTrainingQuantConfig(calibration_sampling_size=7))
    assert text.startswith("PostTrainingQuantConfig(device='cpu', backend='default', ")
    assert "calibration_sampling_size=[7]" in text
    assert "tuning_criterion=TuningCriterion(strategy='basic', " in text


def test_configurations_are_equal_by_class_and_value() -> None:
    assert PostTrainingQuantConfig() == PostTrainingQuantConfig()
    assert PostTrainingQuantConfig() != PostTrainingQuantConfig(quant_level=1)
    assert PostTrainingQuantConfig() != QuantizationAwareTrainingConfig()


def test_every_spelt_out_approach_is_one_of_the_resources() -> None:
    assert set(APPROACHES.values()) == {"static", "dynamic", "auto", "weight_only", "qat"}


@pytest.mark.parametrize("recipe", ["smooth_quant", "fast_bias_correction", "weight_correction"])
def test_a_recipe_of_int8_is_refused_for_weights_in_few_bits(recipe: str) -> None:
    config = PostTrainingQuantConfig(approach="weight_only", recipes={recipe: False})
    with pytest.raises(ValueError, match=f"recipes weight_only has no int8 activations or weights for {recipe}; leave"):
        config.recipes = {recipe: True}
    with pytest.raises(ValueError, match="constrain the weight's algorithm to AWQ or GPTQ"):
        PostTrainingQuantConfig(approach="weight_only", recipes={recipe: True})


@pytest.mark.parametrize("recipe", ["fast_bias_correction", "weight_correction"])
def test_a_correction_of_what_is_trained_is_refused(recipe: str) -> None:
    config = QuantizationAwareTrainingConfig()
    config.recipes = {recipe: False}
    with pytest.raises(ValueError, match=f"recipes has {recipe}, which would take back what training has learnt"):
        config.recipes = {recipe: True}
    assert config.recipes == {recipe: False}
