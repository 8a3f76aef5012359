"""The resource's spec and the configuration objects say the same, field by field."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.errors import InvalidResourceError
from quantuner.api.spec import Objective, TaskRef, Tuning, snake_case
from quantuner.config import (
    AccuracyCriterion,
    Config,
    PostTrainingQuantConfig,
    QuantizationAwareTrainingConfig,
    TuningCriterion,
    config_of,
    tuning_of,
)
from quantuner.space import constraints
from tests.unit.records import tuning

CRD = yaml.safe_load((Path(__file__).parents[3] / "crds" / "quantizationtunings.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]["properties"]
PARTS = ("quantization", "accuracyCriterion", "tuningCriterion")

OVERRIDE = {"pattern": "Conv.*", "weight": {"dtype": ["int8"]}, "activation": {"scheme": ["sym", "asym"]}}
OVERRIDE_DICT = {"Conv.*": {"weight": {"dtype": ["int8"]}, "activation": {"scheme": ["sym", "asym"]}}}
OBJECTIVES = [{"name": "performance", "weight": 2}, {"name": "modelsize", "weight": 1}]

ROWS: list[tuple[str, str, Any, str, Any]] = [
    ("quantization", "approach", "dynamic", "approach", "dynamic"),
    ("quantization", "quantLevel", 1, "quant_level", 1),
    ("quantization", "quantLevel", "0", "quant_level", 0),
    ("quantization", "calibrationSamplingSizes", [7, 70], "calibration_sampling_size", [7, 70]),
    ("quantization", "recipes", {"smoothQuant": True}, "recipes", {"smooth_quant": True}),
    (
        "quantization",
        "recipes",
        {"smoothQuant": True, "smoothQuantArgs": {"alphas": [0.25, 0.75]}},
        "recipes",
        {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.25, 0.75]}},
    ),
    (
        "quantization",
        "recipes",
        {"smoothQuant": True, "smoothQuantArgs": {"autoAlpha": True}},
        "recipes",
        {"smooth_quant": True, "smooth_quant_args": {"alpha": "auto"}},
    ),
    (
        "quantization",
        "recipes",
        {"smoothQuant": True, "smoothQuantArgs": {"alphas": [0.25]}},
        "recipes",
        {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.25}},
    ),
    (
        "quantization",
        "recipes",
        {"smoothQuant": True, "smoothQuantArgs": {"folding": False}},
        "recipes",
        {"smooth_quant": True, "smooth_quant_args": {"folding": False}},
    ),
    (
        "quantization",
        "recipes",
        {
            "smoothQuant": True,
            "smoothQuantArgs": {
                "autoAlpha": True,
                "autoAlphaArgs": {"alphaMin": 0.3, "alphaMax": 0.7, "alphaStep": 0.2},
            },
        },
        "recipes",
        {
            "smooth_quant": True,
            "smooth_quant_args": {
                "alpha": "auto",
                "auto_alpha_args": {"alpha_min": 0.3, "alpha_max": 0.7, "alpha_step": 0.2},
            },
        },
    ),
    ("quantization", "recipes", {"fastBiasCorrection": True}, "recipes", {"fast_bias_correction": True}),
    ("quantization", "recipes", {"weightCorrection": True}, "recipes", {"weight_correction": True}),
    ("quantization", "recipes", {"dedicatedQdqPair": True}, "recipes", {"dedicated_qdq_pair": True}),
    (
        "quantization",
        "recipes",
        {"firstConvOrMatmulQuantization": False},
        "recipes",
        {"first_conv_or_matmul_quantization": False},
    ),
    (
        "quantization",
        "recipes",
        {"lastConvOrMatmulQuantization": False},
        "recipes",
        {"last_conv_or_matmul_quantization": False},
    ),
    (
        "quantization",
        "recipes",
        {"prePostProcessQuantization": False},
        "recipes",
        {"pre_post_process_quantization": False},
    ),
    ("quantization", "approach", "auto", "approach", "auto"),
    ("quantization", "excludedPrecisions", ["bf16"], "excluded_precisions", ["bf16"]),
    ("quantization", "excludedPrecisions", ["fp16", "bf16"], "excluded_precisions", ["fp16", "bf16"]),
    ("quantization", "precisions", ["fp32", "bf16"], "precisions", ["fp32", "bf16"]),
    ("quantization", "device", "cuda", "device", "cuda"),
    ("quantization", "reduceRange", True, "reduce_range", True),
    ("quantization", "opTypes", [OVERRIDE], "op_type_dict", OVERRIDE_DICT),
    ("quantization", "opNames", [OVERRIDE], "op_name_dict", OVERRIDE_DICT),
    ("accuracyCriterion", "criterion", "absolute", "accuracy_criterion.criterion", "absolute"),
    ("accuracyCriterion", "tolerableLoss", 0.25, "accuracy_criterion.tolerable_loss", 0.25),
    ("accuracyCriterion", "higherIsBetter", False, "accuracy_criterion.higher_is_better", False),
    ("tuningCriterion", "strategy", "mse_v2", "tuning_criterion.strategy", "mse_v2"),
    ("tuningCriterion", "strategyKwargs", {"seed": 3}, "tuning_criterion.strategy_kwargs", {"seed": 3}),
    ("tuningCriterion", "maxTrials", 9, "tuning_criterion.max_trials", 9),
    ("tuningCriterion", "timeoutSeconds", 60, "tuning_criterion.timeout", 60),
    ("tuningCriterion", "earlyAbandonment", False, "tuning_criterion.early_abandonment", False),
    (
        "tuningCriterion",
        "objectives",
        OBJECTIVES,
        "tuning_criterion.objective",
        {"objective": ["performance", "modelsize"], "weight": [2, 1]},
    ),
]


def attribute(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(
    ("part", "field", "value", "path", "expected"),
    [pytest.param(*row, id=f"{row[0]}.{row[1]}={row[2]}") for row in ROWS],
)
def test_a_field_of_the_resource_is_an_attribute_of_the_configuration(
    part: str, field: str, value: Any, path: str, expected: Any
) -> None:
    parsed = tuning({part: {field: value}})
    config = config_of(parsed)
    assert attribute(config, path) == expected
    assert attribute(config, path) != attribute(config_of(tuning()), path)
    assert tuning_of(config, parsed.name) == bare(parsed)


def bare(parsed: Tuning) -> Tuning:
    return replace(parsed, **without_cluster())


def without_cluster() -> Mapping[str, Any]:
    """What configuration objects do not say: where the search runs and whose code it is."""
    default = tuning_of(PostTrainingQuantConfig())
    assert default.task == TaskRef("")
    return {name: getattr(default, name) for name in vars(default) if name not in ("name", *LEVELS)}


LEVELS = ("quantization", "accuracy_criterion", "tuning_criterion")


@pytest.mark.parametrize("part", PARTS)
def test_no_field_of_the_resource_lacks_a_row(part: str) -> None:
    assert {field for p, field, *_ in ROWS if p == part} == set(SPEC[part]["properties"])


def values_of(field: str) -> list[Any]:
    return [value for part, name, value, *_ in ROWS if (part, name) == ("quantization", field)]


def test_no_recipe_of_the_resource_lacks_a_row() -> None:
    schema = SPEC["quantization"]["properties"]["recipes"]["properties"]
    assert {name for recipes in values_of("recipes") for name in recipes} == set(schema)
    arguments = [recipes["smoothQuantArgs"] for recipes in values_of("recipes") if "smoothQuantArgs" in recipes]
    assert {name for given in arguments for name in given} == set(schema["smoothQuantArgs"]["properties"])


ITEM_NAMES = ("dtype", "scheme", "granularity", "algorithm")


@pytest.mark.parametrize("field", ["opTypes", "opNames"])
@pytest.mark.parametrize(
    ("attribute_", "item"),
    [(attribute, item) for attribute in ("weight", "activation") for item in ITEM_NAMES]
    + [("weight", "bits"), ("weight", "groupSize")],
)
def test_every_item_of_a_constraint_takes_every_option_of_the_resource(field: str, attribute_: str, item: str) -> None:
    attributes = SPEC["quantization"]["properties"][field]["items"]["properties"]
    assert set(attributes) == {"pattern", "weight", "activation"}
    assert set(attributes["weight"]["properties"]) == {*ITEM_NAMES, "bits", "groupSize"}
    assert set(attributes["activation"]["properties"]) == set(ITEM_NAMES)
    schema = attributes[attribute_]["properties"][item]["items"]
    options = [*constraints.ITEMS["algorithm"], "percentile:99.9"] if item == "algorithm" else schema["enum"]
    quantization = {"approach": "weight_only", field: [{"pattern": ".*", attribute_: {item: options}}]}
    parsed = tuning({"quantization": quantization})
    config = config_of(parsed)
    said = {".*": {attribute_: {snake_case(item): options}}}
    assert (config.op_type_dict if field == "opTypes" else config.op_name_dict) == said
    assert tuning_of(config, "digits") == bare(parsed)


@pytest.mark.parametrize("algorithm", ["percentile:49", "percentile:100", "percentile:99.", "percentil", "max"])
def test_both_sides_refuse_the_same_algorithms(algorithm: str) -> None:
    entry = {"activation": {"algorithm": [algorithm]}}
    with pytest.raises(InvalidResourceError, match="does not match"):
        tuning({"quantization": {"opTypes": [{"pattern": ".*", **entry}]}})
    with pytest.raises(ValueError, match="there is no"):
        PostTrainingQuantConfig(op_type_dict={".*": entry})


def test_a_sequence_of_entries_keeps_its_order() -> None:
    patterns = ["b.*", "a", ".*", "c1"]
    entries = [{"pattern": pattern, "weight": {"dtype": ["fp32"]}} for pattern in patterns]
    parsed = tuning({"quantization": {"opNames": entries}})
    assert list(config_of(parsed).op_name_dict or {}) == patterns
    assert [o.pattern for o in tuning_of(config_of(parsed)).quantization.op_names] == patterns


def test_defaults_are_the_same_on_both_sides() -> None:
    assert tuning_of(PostTrainingQuantConfig(), "digits") == bare(tuning())


def test_the_name_is_local_where_none_is_given() -> None:
    assert tuning_of(PostTrainingQuantConfig()).name == "local"


def test_training_is_the_class_of_its_own() -> None:
    config = config_of(tuning({"quantization": {"approach": "qat", "calibrationSamplingSizes": [5]}}))
    assert isinstance(config, QuantizationAwareTrainingConfig)
    assert (
        tuning_of(config).quantization
        == tuning({"quantization": {"approach": "qat", "calibrationSamplingSizes": [5]}}).quantization
    )


@pytest.mark.parametrize(
    ("level", "named", "strategy"),
    [
        ("auto", None, "auto"),
        (0, None, "conservative"),
        (1, None, "basic"),
        ("auto", "mse", "mse"),
        (1, "tpe", "tpe"),
        (0, "conservative", "conservative"),
        (0, "basic", "conservative"),
    ],
    ids=str,
)
def test_the_strategy_that_searches(level: Any, named: str | None, strategy: str) -> None:
    config = PostTrainingQuantConfig(quant_level=level, tuning_criterion=TuningCriterion(strategy=named))
    assert tuning_of(config).strategy == strategy


def test_level_0_with_another_strategy_is_refused() -> None:
    config = PostTrainingQuantConfig(quant_level=0, tuning_criterion=TuningCriterion(strategy="mse"))
    with pytest.raises(ValueError, match="quant_level 0 is the conservative strategy, but strategy is 'mse'"):
        tuning_of(config)


def test_a_direction_that_an_objective_does_not_have_is_refused() -> None:
    criterion = TuningCriterion(objective={"objective": ["performance"], "higher_is_better": [True]})
    with pytest.raises(ValueError, match="performance is better low, but higher_is_better says True"):
        tuning_of(PostTrainingQuantConfig(tuning_criterion=criterion))


@pytest.mark.parametrize(
    ("criterion", "higher_is_better"),
    [
        pytest.param({"objective": ["performance", "accuracy"], "higher_is_better": [False, True]}, True, id="high"),
        pytest.param({"objective": ["performance", "accuracy"], "higher_is_better": [False, False]}, False, id="low"),
        pytest.param({"objective": "footprint", "higher_is_better": [False]}, True, id="one"),
    ],
)
def test_a_direction_that_an_objective_has_may_be_said(criterion: Mapping[str, Any], higher_is_better: bool) -> None:
    config = PostTrainingQuantConfig(
        accuracy_criterion=AccuracyCriterion(higher_is_better=higher_is_better),
        tuning_criterion=TuningCriterion(objective=criterion),
    )
    without = {"objective": criterion["objective"]}
    silent = PostTrainingQuantConfig(
        accuracy_criterion=config.accuracy_criterion, tuning_criterion=TuningCriterion(objective=without)
    )
    assert tuning_of(config) == tuning_of(silent)


def test_the_direction_of_accuracy_is_its_criterions() -> None:
    criterion = TuningCriterion(objective={"objective": ["accuracy"], "higher_is_better": [True]})
    lower = AccuracyCriterion(higher_is_better=False)
    with pytest.raises(ValueError, match="accuracy is better low, but higher_is_better says True; correct it or leave"):
        tuning_of(PostTrainingQuantConfig(accuracy_criterion=lower, tuning_criterion=criterion))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        pytest.param("accuracy", [("accuracy", 1)], id="a name"),
        pytest.param(["performance"], [("performance", 1)], id="a list of one"),
        pytest.param(("footprint", "accuracy"), [("footprint", 1), ("accuracy", 1)], id="several weigh the same"),
        pytest.param({"objective": "modelsize"}, [("modelsize", 1)], id="a dict with one"),
        pytest.param({"weight": [2]}, [("performance", 2)], id="the default with a weight"),
        pytest.param(
            {"objective": ["performance", "accuracy"], "weight": [0.25, 3]},
            [("performance", 0.25), ("accuracy", 3)],
            id="each with its weight, in their order",
        ),
    ],
)
def test_objectives_and_their_weights(objective: Any, expected: list[tuple[str, float]]) -> None:
    made = tuning_of(PostTrainingQuantConfig(tuning_criterion=TuningCriterion(objective=objective)))
    assert made.tuning_criterion.objectives == tuple(Objective(name, weight) for name, weight in expected)


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        pytest.param({"reduce_range": None}, PostTrainingQuantConfig(reduce_range=False), id="no range to reduce"),
        pytest.param({"op_type_dict": {}}, PostTrainingQuantConfig(), id="no entry"),
        pytest.param(
            {"op_type_dict": {"Linear": {"weight": {"dtype": "fp32"}}}},
            PostTrainingQuantConfig(op_type_dict={"Linear": {"weight": {"dtype": ["fp32"]}}}),
            id="a bare option is a list of one",
        ),
        pytest.param(
            {"tuning_criterion": TuningCriterion(strategy_kwargs={})}, PostTrainingQuantConfig(), id="no arguments"
        ),
        pytest.param(
            {"approach": "post_training_dynamic_quant"}, PostTrainingQuantConfig(approach="dynamic"), id="spelt out"
        ),
    ],
)
def test_what_means_the_same_is_the_same_resource(given_: dict[str, Any], kept: PostTrainingQuantConfig) -> None:
    assert tuning_of(PostTrainingQuantConfig(**given_)) == tuning_of(kept)


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        pytest.param("layer1.0.fc*", True, id="the name itself"),
        pytest.param("layer1.0.fcc", False, id="a star is no operator"),
        pytest.param("layer1.0.fc*.weight", False, id="a longer name"),
        pytest.param("layer1_0_fc*", False, id="another separator"),
    ],
)
def test_a_tuple_is_compared_for_equality(name: str, matches: bool) -> None:
    config = PostTrainingQuantConfig(op_name_dict={("layer1", 0, "fc*"): {"weight": {"dtype": "fp32"}}})
    pattern = tuning_of(config).quantization.op_names[0].pattern
    assert bool(re.fullmatch(pattern, name)) == matches


# --- there and back


def some(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=len(values), unique=True)


ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": some("int8", "uint8", "fp32", "bf16", "fp16"),
        "scheme": some("asym", "sym"),
        "granularity": some("per_channel", "per_tensor"),
        "algorithm": some("minmax", "kl"),
    },
).filter(bool)
ENTRIES = st.lists(
    st.fixed_dictionaries({"pattern": st.text("ab.*", min_size=1, max_size=4), "weight": ITEMS, "activation": ITEMS}),
    max_size=3,
    unique_by=lambda entry: str(entry["pattern"]),
)
FRACTION = st.floats(0, 1)
SMOOTH = st.fixed_dictionaries(
    {"smoothQuant": st.just(True)},
    optional={
        "smoothQuantArgs": st.fixed_dictionaries(
            {"alphas": st.lists(FRACTION, min_size=1, max_size=3, unique=True)}, optional={"folding": st.booleans()}
        )
        | st.just({"autoAlpha": True})
        | st.just({"autoAlpha": True, "folding": True, "autoAlphaArgs": {"alphaMin": 0.5}})
    },
)
PLAIN_RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "fastBiasCorrection": st.booleans(),
        "weightCorrection": st.booleans(),
        "dedicatedQdqPair": st.booleans(),
        "firstConvOrMatmulQuantization": st.booleans(),
        "lastConvOrMatmulQuantization": st.booleans(),
        "prePostProcessQuantization": st.booleans(),
    },
)


REFUSED = {"qat": ".*Correction", "weight_only": ".*Correction|smoothQuant.*"}
"""Approach to the recipes that do not go with it."""


def _fitting_recipes(body: dict[str, Any]) -> dict[str, Any]:
    approach = body.get("approach", "static")
    given, refused = body.get("recipes", {}), REFUSED.get(approach, "")
    recipes = {name: on for name, on in given.items() if not re.fullmatch(refused, name)}
    if approach == "weight_only":
        body = {**body, "opTypes": [{"pattern": "Linear", "weight": {"bits": [8, 4], "groupSize": [-1]}}]}
    return {**body, "recipes": recipes}


QUANTIZATION = st.fixed_dictionaries(
    {},
    optional={
        "approach": st.sampled_from(["static", "dynamic", "auto", "weight_only", "qat"]),
        "quantLevel": st.sampled_from(["auto", 0, 1, "0", "1"]),
        "calibrationSamplingSizes": st.lists(st.integers(1, 1_000_000), min_size=1, max_size=8, unique=True),
        "recipes": st.builds(lambda *parts: {**parts[0], **parts[1]}, PLAIN_RECIPES, SMOOTH | st.just({})),
        "excludedPrecisions": st.lists(st.sampled_from(["bf16", "fp16"]), max_size=2, unique=True),
        "precisions": st.sampled_from([["fp32"], ["bf16", "fp32"], ["fp32", "fp16", "bf16"]]),
        "device": st.sampled_from(["cpu", "cuda"]),
        "reduceRange": st.booleans(),
        "opTypes": ENTRIES,
        "opNames": ENTRIES,
    },
).map(_fitting_recipes)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
ACCURACY = st.one_of(
    st.fixed_dictionaries({"criterion": st.just("absolute")}, optional={"tolerableLoss": NUMBER}),
    st.fixed_dictionaries({}, optional={"tolerableLoss": st.floats(-1, 0.99)}),
).flatmap(lambda body: st.booleans().map(lambda higher: {**body, "higherIsBetter": higher}))
TUNING = st.fixed_dictionaries(
    {},
    optional={
        "strategy": st.sampled_from(["conservative", "basic", "mse_v2", "own_1"]),
        "strategyKwargs": st.dictionaries(
            st.text(max_size=3), st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3), max_size=2
        ),
        "maxTrials": st.integers(1, 2000),
        "timeoutSeconds": st.integers(0, 10**6),
        "objectives": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["performance", "accuracy", "modelsize", "footprint"])},
                optional={"weight": st.floats(0, 10)},
            ),
            min_size=1,
            max_size=4,
            unique_by=lambda objective: objective["name"],
        ),
    },
)


def _fitting(spec: dict[str, Any]) -> dict[str, Any]:
    """Quantization level 0 goes with the conservative strategy alone."""
    level = spec.get("quantization", {}).get("quantLevel")
    if str(level) == "0" and "strategy" in spec.get("tuningCriterion", {}):
        spec["tuningCriterion"]["strategy"] = "conservative"
    return spec


SPECS = st.fixed_dictionaries(
    {}, optional={"quantization": QUANTIZATION, "accuracyCriterion": ACCURACY, "tuningCriterion": TUNING}
).map(_fitting)


@given(SPECS)
def test_a_resource_comes_back_from_its_configuration(spec: dict[str, Any]) -> None:
    parsed = tuning(spec)
    assert tuning_of(config_of(parsed), parsed.name) == bare(parsed)


@given(SPECS)
def test_a_configuration_comes_back_from_its_resource(spec: dict[str, Any]) -> None:
    config = config_of(tuning(spec))
    assert config_of(tuning_of(config)) == config


@pytest.mark.parametrize("arguments", [{}, {"autoAlpha": False}], ids=["empty", "no auto alpha"])
def test_smooth_quant_arguments_without_an_alpha_come_back(arguments: dict[str, Any]) -> None:
    parsed = tuning({"quantization": {"recipes": {"smoothQuant": True, "smoothQuantArgs": arguments}}})
    assert tuning_of(config_of(parsed), parsed.name) == bare(parsed)
