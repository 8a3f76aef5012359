"""Admission of a resource: every bad value is refused with its field and what to do."""

import copy
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import quantuner.api
from quantuner.api.errors import InvalidResourceError, Problem
from quantuner.api.validation import admit
from tests.unit.records import manifest

REPOSITORY = Path(__file__).parents[3]


def refused(body: Any) -> dict[str, str]:
    """Path to message of every problem."""
    with pytest.raises(InvalidResourceError) as caught:
        admit(body)
    return {problem.path: problem.message for problem in caught.value.problems}


def nested(path: str, value: Any) -> dict[str, Any]:
    """`a.b` and 1 as {"a": {"b": 1}}."""
    for key in reversed(path.split(".")):
        value = {key: value}
    result: dict[str, Any] = value
    return result


OVERRIDE = {"pattern": "Conv2d", "weight": {"dtype": ["int8"]}}
CLAIM = {"persistentVolumeClaim": {"claimName": "models"}}


@pytest.mark.parametrize(
    ("path", "value", "where", "says"),
    [
        ("task", None, "spec.task", "not of type 'object'"),
        ("task", {}, "spec.task.entrypoint", "'entrypoint' is a required property"),
        ("task.entrypoint", "digits", "spec.task.entrypoint", "does not match"),
        ("task.entrypoint", "a b:task", "spec.task.entrypoint", "does not match"),
        ("task.source", {}, "spec.task.source.configMap", "'configMap' is a required property"),
        ("task.source.configMap.name", "", "spec.task.source.configMap.name", "should be non-empty"),
        ("quantization.approach", "int4", "spec.quantization.approach", "'static', 'dynamic', 'auto'"),
        ("quantization.calibrationSamplingSizes", [0], "spec.quantization.calibrationSamplingSizes[0]", "minimum of 1"),
        ("quantization.opTypes", [{"pattern": "Conv2d"}], "spec.quantization.opTypes[0]", "add one or remove"),
        ("quantization.opTypes", [OVERRIDE, OVERRIDE], "spec.quantization.opTypes[1]", "duplicate of an earlier"),
        ("quantization.opNames", [{**OVERRIDE, "weight": {}}], "spec.quantization.opNames[0].weight", "non-empty"),
        (
            "quantization.opNames",
            [{**OVERRIDE, "activation": {"bits": [4]}}],
            "spec.quantization.opNames[0].activation.bits",
            "unknown field; known here: algorithm, dtype, granularity, scheme",
        ),
        (
            "quantization.opNames",
            [{**OVERRIDE, "weight": {"bits": [4]}}],
            "spec.quantization.opNames",
            "options of approach: weight_only; set it, or remove them",
        ),
        (
            "quantization",
            {"approach": "weight_only", "opTypes": [{**OVERRIDE, "weight": {"bits": [3], "groupSize": [32]}}]},
            "spec.quantization.opTypes[0].weight.bits[0]",
            "3 is not one of [4, 8]",
        ),
        (
            "quantization",
            {"approach": "weight_only", "opTypes": [{**OVERRIDE, "weight": {"groupSize": [0]}}]},
            "spec.quantization.opTypes[0].weight.groupSize[0]",
            "0 is not one of [-1, 32, 64, 128]",
        ),
        (
            "quantization",
            {"approach": "weight_only", "opTypes": [{**OVERRIDE, "weight": {"algorithm": ["TEQ"]}}]},
            "spec.quantization.opTypes[0].weight.algorithm[0]",
            "'TEQ' does not match",
        ),
        (
            "quantization",
            {"approach": "weight_only", "recipes": {"smoothQuant": True}},
            "spec.quantization.recipes",
            "constrain weight.algorithm to AWQ or GPTQ",
        ),
        (
            "quantization.opNames",
            [{**OVERRIDE, "weight": {"dtype": ["nf4"]}}],
            "spec.quantization.opNames[0].weight.dtype[0]",
            "'int8', 'uint8', 'int4'",
        ),
        ("quantization.precisions", ["bf16"], "spec.quantization.precisions", "must have fp32 beside others"),
        ("quantization.precisions", [], "spec.quantization.precisions", "non-empty"),
        ("quantization.precisions", ["int8"], "spec.quantization.precisions[0]", "'bf16', 'fp16', 'fp32'"),
        ("quantization.precisions", ["fp32", "fp32"], "spec.quantization.precisions[1]", "duplicate of an earlier"),
        ("quantization.device", "gpu", "spec.quantization.device", "'cpu', 'cuda'"),
        ("accuracyCriterion.criterion", "both", "spec.accuracyCriterion.criterion", "'relative', 'absolute'"),
        ("accuracyCriterion.tolerableLoss", 5, "spec.accuracyCriterion.tolerableLoss", "divide by 100"),
        ("accuracyCriterion.tolerableLoss", "1%", "spec.accuracyCriterion.tolerableLoss", "not of type 'number'"),
        ("accuracyCriterion.tolerableLoss", float("nan"), "spec.accuracyCriterion.tolerableLoss", "finite number"),
        ("accuracyCriterion.higherIsBetter", "yes", "spec.accuracyCriterion.higherIsBetter", "not of type 'boolean'"),
        ("tuningCriterion.strategy", "Basic", "spec.tuningCriterion.strategy", "does not match"),
        ("tuningCriterion.maxTrials", 0, "spec.tuningCriterion.maxTrials", "minimum of 1"),
        ("tuningCriterion.maxTrials", 2001, "spec.tuningCriterion.maxTrials", "maximum of 2000"),
        (
            "tuningCriterion.maxTrial",
            5,
            "spec.tuningCriterion.maxTrial",
            "unknown field; known here: earlyAbandonment, maxTrials",
        ),
        ("tuningCriterion.timeoutSeconds", -1, "spec.tuningCriterion.timeoutSeconds", "minimum of 0"),
        ("tuningCriterion.objectives", [], "spec.tuningCriterion.objectives", "non-empty"),
        (
            "tuningCriterion.objectives",
            [{"name": "speed"}],
            "spec.tuningCriterion.objectives[0].name",
            "one of ['performance', ",
        ),
        ("tuningCriterion.objectives", [{"name": "modelsize"}] * 2, "spec.tuningCriterion.objectives[1]", "keep one"),
        ("workers", 0, "spec.workers", "minimum of 1"),
        ("workers", 1001, "spec.workers", "maximum of 1000"),
        ("workers", "2", "spec.workers", "not of type 'integer'"),
        ("workers", True, "spec.workers", "not of type 'integer'"),
        ("image", "", "spec.image", "non-empty"),
        ("suspend", 1, "spec.suspend", "not of type 'boolean'"),
        ("output", {}, "spec.output.persistentVolumeClaim", "'persistentVolumeClaim' is a required property"),
        ("output", {**CLAIM, "path": "/abs"}, "spec.output.path", "does not match"),
        ("output", {**CLAIM, "path": "a/../b"}, "spec.output.path", "must stay inside the volume: remove '..'"),
        (
            "template.volumeMounts",
            [{"name": "data", "mountPath": "/data"}],
            "spec.template.volumeMounts",
            "add the volume or correct the name",
        ),
        ("template.labels", {"quantuner.dev/tuning": "x"}, "spec.template.labels", "already; leave these out"),
        ("template.labels", {"training.kubeflow.org/job-role": "x"}, "spec.template.labels", "leave these out"),
        ("template.labels", {"batch.kubernetes.io/job-name": "x"}, "spec.template.labels", "leave these out"),
        ("template.labels", {"app.kubernetes.io/managed-by": "x"}, "spec.template.labels", "leave these out"),
        ("template.labels", {"job-name": "x"}, "spec.template.labels", "leave these out"),
        ("template.labels", {"a team": "x"}, "spec.template.labels", "rename it"),
        ("template.labels", {"a..b/team": "x"}, "spec.template.labels", "before it a domain; rename it"),
        ("template.labels", {"a.-b/team": "x"}, "spec.template.labels", "before it a domain; rename it"),
        ("template.labels", {f"{'a' * 254}/{'b' * 63}": "x"}, "spec.template.labels", "rename it"),
        ("template.labels", {"kueue.x-k8s.io/queue-name": "x"}, "spec.template.labels", "move them to metadata.labels"),
        ("template.labels", {"team": "a b"}, "spec.template.labels.team", "does not match"),
        ("template.annotations", {"quantuner.dev/image": "x"}, "spec.template.annotations", "leave them out"),
        ("template.annotations", {"a/b/c": "x"}, "spec.template.annotations", "rename it"),
        ("template.annotations", {"a": "x" * 4097}, "spec.template.annotations.a", "too long"),
        ("template.affinity", {"nodes": {}}, "spec.template.affinity.nodes", "known here: nodeAffinity, podAffinity"),
        (
            "template.topologySpreadConstraints",
            [{"maxSkew": 1, "topologyKey": "zone"}],
            "spec.template.topologySpreadConstraints[0].whenUnsatisfiable",
            "is a required property",
        ),
        (
            "template.topologySpreadConstraints",
            [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}],
            "spec.template.topologySpreadConstraints[0]",
            "minDomains counts for DoNotSchedule alone",
        ),
        (
            "template.topologySpreadConstraints",
            [{"maxSkew": n, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"} for n in (1, 2)],
            "spec.template.topologySpreadConstraints[1]",
            "duplicate of an earlier entry",
        ),
        ("template.priorityClassName", "Not A Name", "spec.template.priorityClassName", "does not match"),
        ("template.runtimeClassName", "gVisor", "spec.template.runtimeClassName", "does not match"),
        ("template.schedulerName", "", "spec.template.schedulerName", "non-empty"),
        ("template.env", [{"name": "A"}, {"name": "A"}], "spec.template.env[1]", "duplicate of an earlier entry"),
        ("nodes", 3, "spec.nodes", "unknown field; known here: accuracyCriterion"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("spec") else "",
)
def test_a_bad_value_is_refused_with_its_field_and_remedy(path: str, value: Any, where: str, says: str) -> None:
    base = manifest()["spec"]
    change = nested(path, value)
    spec = {**base, **change}
    if "task" in change and isinstance(change["task"], dict) and change["task"]:
        spec["task"] = {**base["task"], **change["task"]}
    problems = refused(manifest(spec))
    assert where in problems
    assert says in problems[where]


@pytest.mark.parametrize(
    ("metadata", "where", "says"),
    [
        pytest.param(None, "metadata.name", "name the resource", id="no metadata"),
        pytest.param({}, "metadata.name", "name the resource", id="no name"),
        pytest.param({"name": ""}, "metadata.name", "name the resource", id="an empty name"),
        pytest.param({"name": 5}, "metadata.name", "must be a string", id="a number"),
        pytest.param({"name": "Digits"}, "resource", "rename the resource", id="a capital letter"),
        pytest.param({"name": "7digits"}, "resource", "must start with a letter", id="a digit first"),
        pytest.param({"name": "d" * 41}, "resource", "choose a shorter name", id="41 characters"),
    ],
)
def test_a_bad_name_is_refused(metadata: Any, where: str, says: str) -> None:
    assert says in refused({**manifest(), "metadata": metadata})[where]


def test_a_resource_without_metadata_is_refused() -> None:
    body = manifest()
    del body["metadata"]
    assert "metadata.name" in refused(body)


@pytest.mark.parametrize("name", ["d", "d" * 40, "a-1"])
def test_a_good_name_is_taken(name: str) -> None:
    assert admit(manifest(name=name))["metadata"]["name"] == name


@pytest.mark.parametrize(
    ("body", "found"),
    [
        pytest.param(None, "NoneType", id="an empty file"),
        pytest.param("text", "str", id="text"),
        pytest.param([], "list", id="a list"),
        pytest.param({"apiVersion": "v1", "kind": "ConfigMap"}, "v1 ConfigMap", id="another kind"),
        pytest.param({**manifest(), "apiVersion": "quantuner.dev/v1"}, "quantuner.dev/v1", id="another version"),
    ],
)
def test_what_is_no_tuning_is_refused_by_kind(body: Any, found: str) -> None:
    assert found in refused(body)["kind"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param(datetime.date(2026, 1, 2), "which has no date; put 2026-01-02 in quotes", id="a date"),
        pytest.param(b"raw", "which has no bytes", id="bytes"),
        pytest.param({"a"}, "which has no set", id="a set"),
        pytest.param(float("inf"), "must be a finite number", id="infinity"),
        pytest.param(2**63, "must be an integer of 64 bits; write it as a float", id="an integer of more bits"),
        pytest.param(-(2**63) - 1, "must be an integer of 64 bits", id="one below zero"),
    ],
)
def test_what_yaml_can_say_and_json_cannot_is_refused(value: Any, says: str) -> None:
    task = {"entrypoint": "digits:task", "args": {"deep": [value]}}
    assert says in refused(manifest({"task": task}))["spec.task.args.deep[0]"]


def test_a_key_that_is_no_string_is_refused() -> None:
    assert "must be a string" in refused(manifest({"task": {"entrypoint": "d:t", "args": {1: 2}}}))["spec.task.args"]


def test_all_problems_are_reported_together() -> None:
    problems = refused(manifest({"workers": 0, "suspend": "no", "nodes": 3}))
    assert set(problems) == {"spec.workers", "spec.suspend", "spec.nodes"}


def test_the_error_names_every_field_in_its_text() -> None:
    with pytest.raises(InvalidResourceError, match=r"spec\.workers: .*; spec\.suspend: "):
        admit(manifest({"suspend": "no", "workers": 0}) | {})


def test_the_manifest_is_not_changed() -> None:
    body = manifest()
    before = copy.deepcopy(body)
    admit(body)
    assert body == before


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
fields = st.sampled_from(
    ["task", "quantization", "accuracyCriterion", "tuningCriterion", "workers", "image", "output", "template", "x"]
)


@given(st.dictionaries(fields, plain, max_size=3))
def test_whatever_json_a_user_writes_the_answer_is_a_resource_or_its_problems(spec: dict[str, Any]) -> None:
    problems: list[Problem] = []
    try:
        admitted = admit(manifest(spec))
        assert admit(admitted) == admitted
    except InvalidResourceError as error:
        problems = error.problems
    assert all(problem.path and problem.message for problem in problems)


def test_admitting_twice_changes_nothing() -> None:
    once = admit(manifest({"template": {"resources": {"limits": {"cpu": 2}}}}))
    assert admit(json.loads(json.dumps(once))) == once


def test_the_package_ships_the_repositorys_crd() -> None:
    shipped = Path(quantuner.api.__path__[0]) / "quantizationtunings.yaml"
    assert shipped.read_bytes() == (REPOSITORY / "crds" / "quantizationtunings.yaml").read_bytes()


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("examples/*/tuning.yaml")), ids=lambda path: path.parent.name)
def test_every_example_is_valid(path: Path) -> None:
    admit(yaml.safe_load(path.read_text()))
