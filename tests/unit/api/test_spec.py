"""The resource as frozen data: targets, digests, threads."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.spec import (
    AccuracyCriterion,
    Objective,
    Output,
    Override,
    TaskRef,
    Tuning,
    digest,
    manifest_kind,
    search_digest,
)
from quantuner.api.validation import admit
from tests.unit.records import manifest, tuning

RELATIVE, ABSOLUTE = "relative", "absolute"


@pytest.mark.parametrize(
    ("criterion", "loss", "higher_is_better", "baseline", "target"),
    [
        pytest.param(RELATIVE, 0.01, True, 0.8, 0.792, id="an accuracy may fall by a hundredth of itself"),
        pytest.param(RELATIVE, 0.01, False, 2.0, 2.02, id="an error may grow by a hundredth of itself"),
        pytest.param(ABSOLUTE, 0.5, True, 80.0, 79.5, id="points of accuracy"),
        pytest.param(ABSOLUTE, 0.5, False, 3.0, 3.5, id="points of error"),
        pytest.param(RELATIVE, 0.1, True, -2.0, -2.2, id="a negative score's target lies below it"),
        pytest.param(RELATIVE, 0.1, False, -2.0, -1.8, id="a negative loss's target lies above it"),
        pytest.param(RELATIVE, 0.1, True, 0.0, 0.0, id="of nothing nothing may be lost"),
        pytest.param(RELATIVE, -0.1, True, 0.5, 0.55, id="a negative loss asks for a gain"),
        pytest.param(ABSOLUTE, 0.0, True, 0.75, 0.75, id="no loss at all"),
    ],
)
def test_the_target(criterion: str, loss: float, higher_is_better: bool, baseline: float, target: float) -> None:
    assert AccuracyCriterion(criterion, loss, higher_is_better).target(baseline) == pytest.approx(target, rel=1e-12)


criteria = st.builds(
    AccuracyCriterion, st.sampled_from([RELATIVE, ABSOLUTE]), st.floats(0, 0.99), higher_is_better=st.booleans()
)
measured = st.floats(-1e6, 1e6)


@given(criteria, measured)
def test_an_accuracy_exactly_on_target_meets_it_and_the_next_worse_number_does_not(
    criterion: AccuracyCriterion, baseline: float
) -> None:
    target = criterion.target(baseline)
    worse = math.nextafter(target, -math.inf if criterion.higher_is_better else math.inf)
    assert criterion.meets(target, baseline)
    assert not criterion.meets(worse, baseline)


@given(criteria, measured)
def test_the_baseline_meets_its_own_target_whatever_its_sign(criterion: AccuracyCriterion, baseline: float) -> None:
    assert criterion.meets(baseline, baseline)


@given(criteria, measured, measured, measured)
def test_whatever_is_better_than_one_that_meets_meets_too(
    criterion: AccuracyCriterion, baseline: float, one: float, other: float
) -> None:
    better_than_one_that_meets = criterion.meets(one, baseline) and criterion.better(other, one)
    assert criterion.meets(other, baseline) or not better_than_one_that_meets


@given(st.sampled_from([RELATIVE, ABSOLUTE]), st.floats(0, 0.99), measured, measured)
def test_the_two_directions_are_mirror_images(criterion: str, loss: float, baseline: float, accuracy: float) -> None:
    upward, downward = AccuracyCriterion(criterion, loss, True), AccuracyCriterion(criterion, loss, False)
    assert upward.meets(accuracy, baseline) == downward.meets(-accuracy, -baseline)


def test_equal_is_not_better() -> None:
    assert not AccuracyCriterion().better(0.5, 0.5)
    assert not AccuracyCriterion(higher_is_better=False).better(0.5, 0.5)


# --- parsing


def test_a_minimal_resource_has_the_defaults_of_the_crd() -> None:
    assert tuning() == Tuning(name="digits", task=TaskRef("digits:task"))


def test_every_field_arrives() -> None:
    body = manifest(
        {
            "task": {
                "entrypoint": "pack.mod:make",
                "args": {"width": 8},
                "source": {"configMap": {"name": "code"}},
            },
            "quantization": {
                "approach": "auto",
                "calibrationSamplingSizes": [7],
                "opTypes": [{"pattern": "Conv.*", "activation": {"scheme": ["sym", "asym"]}}],
                "opNames": [{"pattern": "head", "weight": {"dtype": ["fp32"]}}],
            },
            "accuracyCriterion": {"criterion": "absolute", "tolerableLoss": 2, "higherIsBetter": False},
            "tuningCriterion": {
                "strategy": "mine",
                "maxTrials": 5,
                "timeoutSeconds": 60,
                "objectives": [{"name": "modelsize", "weight": 2}],
            },
            "workers": 3,
            "image": "tuner:1",
            "suspend": True,
            "output": {"persistentVolumeClaim": {"claimName": "models"}},
            "template": {"nodeSelector": {"disk": "fast"}},
        }
    )
    body["metadata"] |= {"namespace": "team", "uid": "u-1", "generation": 4}
    parsed = Tuning.from_body(admit(body))
    assert (parsed.namespace, parsed.uid, parsed.generation) == ("team", "u-1", 4)
    assert parsed.task == TaskRef("pack.mod:make", {"width": 8}, "code")
    assert (parsed.quantization.approach, parsed.quantization.calibration_sampling_sizes) == ("auto", (7,))
    assert parsed.quantization.op_types == (Override("Conv.*", {("activation", "scheme"): ("sym", "asym")}),)
    assert parsed.quantization.op_names == (Override("head", {("weight", "dtype"): ("fp32",)}),)
    assert parsed.accuracy_criterion == AccuracyCriterion("absolute", 2.0, False)
    assert parsed.tuning_criterion.objectives == (Objective("modelsize", 2),)
    assert (parsed.workers, parsed.image, parsed.suspend) == (3, "tuner:1", True)
    assert parsed.output == Output("models", "digits")
    assert parsed.template == {"nodeSelector": {"disk": "fast"}}


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        pytest.param({}, 1, id="nothing said"),
        pytest.param({"limits": {"cpu": "2"}}, 2, id="the limit"),
        pytest.param({"limits": {"cpu": 3}, "requests": {"cpu": 1}}, 3, id="the limit before the request"),
        pytest.param({"requests": {"cpu": "2500m"}}, 2, id="rounded down"),
        pytest.param({"limits": {"cpu": "100m"}}, 1, id="at least one"),
        pytest.param({"limits": {"memory": "1Gi"}, "requests": {"cpu": "4"}}, 4, id="a limit of memory alone"),
    ],
)
def test_threads_of_a_rank_come_from_the_resource(resources: dict[str, Any], threads: int) -> None:
    assert tuning({"template": {"resources": resources}}).threads_per_rank == threads


@pytest.mark.parametrize(
    ("spec", "threads"),
    [
        pytest.param({"slotsPerWorker": 2}, 2, id="slots share the pod's CPUs"),
        pytest.param({"slotsPerWorker": 3}, 1, id="rounded down"),
        pytest.param({"slotsPerWorker": 8}, 1, id="at least one"),
        pytest.param({"slotsPerWorker": 2, "threadsPerRank": 3}, 3, id="the user's own"),
        pytest.param({"threadsPerRank": "auto"}, None, id="left to the machines"),
    ],
)
def test_threads_of_a_rank_are_its_share_unless_the_user_sets_them(spec: dict[str, Any], threads: int | None) -> None:
    cpus = {"template": {"resources": {"limits": {"cpu": "4"}}}}
    assert tuning({**cpus, **spec}).threads_per_rank == threads


@pytest.mark.parametrize(
    ("spec", "workers", "ranks"),
    [
        pytest.param({}, 3, 4, id="the master and a rank a worker"),
        pytest.param({"slotsPerWorker": 4}, 3, 13, id="the master and the slots of the workers"),
        pytest.param({"runLauncherAsWorker": True}, 3, 4, id="rank 0 evaluates as well"),
        pytest.param({"slotsPerWorker": 4, "runLauncherAsWorker": True}, 3, 16, id="the launcher has as many slots"),
        pytest.param({"slotsPerWorker": 4, "runLauncherAsWorker": True}, 0, 1, id="without workers in series"),
    ],
)
def test_ranks_of_a_search(spec: dict[str, Any], workers: int, ranks: int) -> None:
    assert tuning(spec).ranks(workers) == ranks


# --- identity of a search


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({"workers": 7}, True, id="workers"),
        pytest.param({"slotsPerWorker": 4, "runLauncherAsWorker": True}, True, id="slots"),
        pytest.param({"threadsPerRank": 4}, True, id="threads, which the journal records"),
        pytest.param({"suspend": True}, True, id="suspend"),
        pytest.param({"image": "other"}, True, id="image"),
        pytest.param({"template": {"nodeSelector": {"a": "b"}}}, True, id="template"),
        pytest.param({"template": {"labels": {"team": "a"}, "schedulerName": "b"}}, True, id="template, for a cluster"),
        pytest.param({"output": {"persistentVolumeClaim": {"claimName": "c"}}}, True, id="output"),
        pytest.param({"tuningCriterion": {"maxTrials": 3, "timeoutSeconds": 9}}, True, id="limits"),
        pytest.param({"quantization": {}}, True, id="a default written out"),
        pytest.param({"tuningCriterion": {"strategy": "other"}}, False, id="strategy"),
        pytest.param({"tuningCriterion": {"objectives": [{"name": "modelsize"}]}}, False, id="objectives"),
        pytest.param({"quantization": {"approach": "dynamic"}}, False, id="approach"),
        pytest.param({"quantization": {"precisions": ["bf16", "fp32"]}}, False, id="precisions"),
        pytest.param({"quantization": {"device": "cuda"}}, False, id="device"),
        pytest.param({"accuracyCriterion": {"tolerableLoss": 0.02}}, False, id="criterion"),
        pytest.param({"task": {"entrypoint": "digits:other"}}, False, id="entrypoint"),
        pytest.param({"task": {"entrypoint": "digits:task", "args": {"a": 1}}}, False, id="arguments"),
        pytest.param(
            {"task": {"entrypoint": "digits:task", "source": {"configMap": {"name": "c"}}}}, True, id="source of code"
        ),
    ],
)
def test_what_may_change_while_a_search_goes_on(change: dict[str, Any], same: bool) -> None:
    assert (search_digest(admit(manifest(change))) == search_digest(admit(manifest()))) == same


def test_the_digest_leaves_the_resource_alone_and_ignores_its_name() -> None:
    body = admit(manifest())
    before = repr(body)
    assert search_digest(body) == search_digest(admit(manifest(name="other")))
    assert repr(body) == before


def test_a_search_keeps_its_identity_where_a_younger_field_has_its_default() -> None:
    older = admit(manifest())
    for field in ("precisions", "device"):
        del older["spec"]["quantization"][field]
    assert search_digest(older) == search_digest(admit(manifest()))


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(), min_size=2))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)
    assert len(digest(value)) == 16


def test_a_search_keeps_its_identity_on_a_server_that_writes_whole_numbers_without_a_point() -> None:
    here, there = admit(manifest()), admit(manifest())
    here["spec"]["accuracyCriterion"]["tolerableLoss"] = -1.0
    there["spec"]["accuracyCriterion"]["tolerableLoss"] = -1
    assert search_digest(here) == search_digest(there)
    there["spec"]["accuracyCriterion"]["tolerableLoss"] = -1.5
    assert search_digest(here) != search_digest(there)


@pytest.mark.parametrize(
    ("body", "kind"),
    [(None, "NoneType"), ([1], "list"), ({}, "? ?"), ({"apiVersion": "v1", "kind": "Pod"}, "v1 Pod")],
)
def test_the_kind_of_a_manifest_in_a_message(body: object, kind: str) -> None:
    assert manifest_kind(body) == kind
