"""The CRD on a real API server: what it refuses is what `quantuner.api.validation.admit` refuses, field by field.

Rules that compare with the old object are the server's alone: no single manifest breaks them.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from quantuner.api.errors import InvalidResourceError
from quantuner.api.validation import admit
from tests.e2e.kube import Kube, Object

pytestmark = pytest.mark.cluster

TASK = {"entrypoint": "task:make"}
OVERRIDE = {"pattern": "Conv2d", "weight": {"dtype": ["int8"]}}
NODES = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]}
OTHERS = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}
AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": NODES}}
SPREAD = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "ScheduleAnyway",
    "labelSelector": {"matchLabels": {"quantuner.dev/tuning": "digits"}},
}


def resource(name: str = "digits", **spec: Any) -> Object:
    return {
        "apiVersion": "quantuner.dev/v1alpha1",
        "kind": "QuantizationTuning",
        "metadata": {"name": name},
        "spec": {"task": TASK, **spec},
    }


def quantization(**fields: Any) -> Object:
    return resource(quantization=fields)


def template(**fields: Any) -> Object:
    return resource(template=fields)


VALID = {
    "the least": resource(),
    "args of any shape": resource(task={**TASK, "args": {"a": [1, {"b": None}], "c": 1.5, "n": None}}),
    "a loss that asks for a gain": resource(accuracyCriterion={"tolerableLoss": -0.01}),
    "an absolute loss above 1": resource(accuracyCriterion={"criterion": "absolute", "tolerableLoss": 2}),
    "overrides": quantization(opTypes=[OVERRIDE], opNames=[{**OVERRIDE, "pattern": r"layer1\..*"}]),
    "quantities as number and text": template(resources={"limits": {"cpu": 2, "memory": "1Gi"}}),
    "a volume of any kind with its mount": template(
        volumes=[{"name": "v", "emptyDir": {}}], volumeMounts=[{"name": "v", "mountPath": "/v"}]
    ),
    "what shared clusters want of pods": template(
        labels={"team": "a", "example.com/cost-centre": ""},
        annotations={"sidecar.istio.io/inject": "false", "note": "any text, of any length"},
        affinity=AFFINITY,
        topologySpreadConstraints=[SPREAD],
        priorityClassName="batch",
        schedulerName="volcano",
        runtimeClassName="gvisor",
    ),
    "recipes": quantization(recipes={"smoothQuant": True, "smoothQuantArgs": {"alphas": [0.3, 0.5]}}),
    "folding": quantization(recipes={"smoothQuant": True, "smoothQuantArgs": {"alphas": [0.3], "folding": True}}),
    "alphas to compare": quantization(
        recipes={"smoothQuant": True, "smoothQuantArgs": {"autoAlpha": True, "autoAlphaArgs": {"alphaMin": 0.3}}}
    ),
    "weights in few bits": quantization(
        approach="weight_only", opTypes=[{"pattern": "Linear", "weight": {"bits": [4], "groupSize": [-1, 32]}}]
    ),
    "training": quantization(approach="qat", recipes={"weightCorrection": False}),
    "precisions and a device": quantization(precisions=["fp32", "bf16"], device="cuda"),
    "levels as text and number": quantization(quantLevel="0"),
    "an output": resource(output={"persistentVolumeClaim": {"claimName": "c"}, "path": "a/b"}),
    "the longest name": resource("a" * 40),
    "slots and threads": resource(slotsPerWorker=4, runLauncherAsWorker=True, threadsPerRank=2),
    "threads left to the machines": resource(threadsPerRank="auto"),
    "a device a slot": resource(slotsPerWorker=2, template={"resources": {"limits": {"nvidia.com/gpu": "2"}}}),
    "devices of the one slot": template(resources={"limits": {"nvidia.com/gpu": 4}}),
}

INVALID = {
    "no task": {**resource(), "spec": {}},
    "no entrypoint": resource(task={}),
    "an entrypoint without a callable": resource(task={"entrypoint": "task"}),
    "args that are no object": resource(task={**TASK, "args": [1]}),
    "a source without a name": resource(task={**TASK, "source": {"configMap": {}}}),
    "a misspelt field": resource(worker=3),
    "a misspelt field below": resource(tuningCriterion={"maxTrial": 3}),
    "no workers": resource(workers=0),
    "too many workers": resource(workers=1001),
    "workers as text": resource(workers="2"),
    "half a worker": resource(workers=2.5),
    "no slots": resource(slotsPerWorker=0),
    "no threads": resource(threadsPerRank=0),
    "an unknown word for threads": resource(threadsPerRank="all"),
    "fewer devices than slots": resource(slotsPerWorker=3, template={"resources": {"limits": {"nvidia.com/gpu": "2"}}}),
    "no device for the one slot": template(resources={"limits": {"nvidia.com/gpu": 0}}),
    "an unknown approach": quantization(approach="int8"),
    "a correction of what is trained": quantization(approach="qat", recipes={"weightCorrection": True}),
    "smooth quant arguments alone": quantization(recipes={"smoothQuantArgs": {"autoAlpha": True}}),
    "alphas to compare without auto": quantization(
        recipes={"smoothQuant": True, "smoothQuantArgs": {"autoAlphaArgs": {"alphaMin": 0.3}}}
    ),
    "alphas to compare backwards": quantization(
        recipes={
            "smoothQuant": True,
            "smoothQuantArgs": {"autoAlpha": True, "autoAlphaArgs": {"alphaMin": 0.3, "alphaMax": 0.2}},
        }
    ),
    "the retired strategy": resource(tuningCriterion={"strategy": "sigopt"}),
    "no fp32 to fall back to": quantization(precisions=["bf16"]),
    "an unknown precision": quantization(precisions=["fp32", "int8"]),
    "an unknown device": quantization(device="tpu"),
    "no calibration": quantization(calibrationSamplingSizes=[0]),
    "an unknown dtype": quantization(opTypes=[{"pattern": "x", "weight": {"dtype": ["nf4"]}}]),
    "bits of int8 activations": quantization(opTypes=[{"pattern": "x", "weight": {"bits": [4]}}]),
    "bits that there are not": quantization(
        approach="weight_only", opTypes=[{"pattern": "x", "weight": {"bits": [3]}}]
    ),
    "a recipe of int8 activations": quantization(approach="weight_only", recipes={"smoothQuant": True}),
    "no dtype": quantization(opTypes=[{"pattern": "x", "weight": {"dtype": []}}]),
    "an empty override": quantization(opTypes=[{"pattern": "x"}]),
    "an override without a pattern": quantization(opNames=[{"weight": {"dtype": ["int8"]}}]),
    "an override twice": quantization(opTypes=[OVERRIDE, OVERRIDE]),
    "an empty constraint": quantization(opTypes=[{"pattern": "x", "weight": {}}]),
    "an unknown criterion": resource(accuracyCriterion={"criterion": "top1"}),
    "a percentage": resource(accuracyCriterion={"tolerableLoss": 1}),
    "a loss as text": resource(accuracyCriterion={"tolerableLoss": "1%"}),
    "no trials": resource(tuningCriterion={"maxTrials": 0}),
    "more trials than a journal holds": resource(tuningCriterion={"maxTrials": 2001}),
    "a negative timeout": resource(tuningCriterion={"timeoutSeconds": -1}),
    "a strategy with a capital": resource(tuningCriterion={"strategy": "Basic"}),
    "an unknown objective": resource(tuningCriterion={"objectives": [{"name": "energy"}]}),
    "an objective twice": resource(tuningCriterion={"objectives": [{"name": "performance"}, {"name": "performance"}]}),
    "no objective": resource(tuningCriterion={"objectives": []}),
    "an empty image": resource(image=""),
    "suspend as text": resource(suspend="yes"),
    "an output without a claim": resource(output={"path": "a"}),
    "an output outside the volume": resource(output={"persistentVolumeClaim": {"claimName": "c"}, "path": "a/../../b"}),
    "an absolute output": resource(output={"persistentVolumeClaim": {"claimName": "c"}, "path": "/a"}),
    "a mount without its volume": template(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
    "a volume of an unknown kind": template(volumes=[{"name": "v", "emptyDri": {}}]),
    "an env without a name": template(env=[{"value": "x"}]),
    "an env twice": template(env=[{"name": "A"}, {"name": "A"}]),
    "a toleration of an unknown effect": template(tolerations=[{"effect": "Never"}]),
    "a label of ours": template(labels={"quantuner.dev/tuning": "x"}),
    "a label of mpi-operator": template(labels={"training.kubeflow.org/job-role": "worker"}),
    "a label of Jobs": template(labels={"job-name": "x"}),
    "a label that is none": template(labels={"a team": "x"}),
    "a label with a value that is none": template(labels={"team": "a b"}),
    "an annotation of ours": template(annotations={"quantuner.dev/image": "x"}),
    "an annotation that is none": template(annotations={"a/b/c": "x"}),
    "an unknown affinity": template(affinity={"nodes": {}}),
    "a spread over nothing": template(topologySpreadConstraints=[{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]),
    "a spread of no skew": template(topologySpreadConstraints=[{**SPREAD, "maxSkew": 0}]),
    "an empty priority class": template(priorityClassName=""),
    "an unknown pull policy": template(imagePullPolicy="Sometimes"),
    "a name too long": resource("a" * 41),
    "a name that begins with a digit": resource("1st"),
    "a name with a dot": resource("a.b"),
}


def server_paths(kube: Kube, body: Object) -> set[str]:
    said = kube.run("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(body), ok=False)
    said = re.sub(r".*some validation rules were not checked.*\n?", "", said)  # said with the schema's problems
    unknown = re.findall(r'unknown field "([^"]+)"', said)
    invalid = re.findall(r"(?:^\* |is invalid: )([\w.\[\]<>]+): ", said, re.MULTILINE)
    assert unknown or invalid, f"not refused, or in an unknown form: {said}"
    return {"resource" if path == "<nil>" else path for path in (*unknown, *invalid)}


def our_paths(body: Object) -> set[str]:
    with pytest.raises(InvalidResourceError) as refused:
        admit(body)
    return {problem.path for problem in refused.value.problems}


@pytest.mark.parametrize("body", INVALID.values(), ids=INVALID.keys())
def test_server_and_admit_refuse_the_same_fields(admin: Kube, body: Object) -> None:
    assert our_paths(body) == server_paths(admin, body)


@pytest.mark.parametrize("body", VALID.values(), ids=VALID.keys())
def test_server_and_admit_take_and_default_alike(admin: Kube, body: Object) -> None:
    text = admin.run("create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", stdin=json.dumps(body))
    assert json.loads(text)["spec"] == admit(body)["spec"]


LINEAR = {**OVERRIDE, "pattern": "Linear"}
ARGUMENTS = {"alphas": [0.3, 0.5]}
OBJECTIVES = [{"name": "performance"}, {"name": "modelsize"}]
SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}
VARIABLES = [{"name": "A", "valueFrom": SECRET}, {"name": "B", "value": "$(A)/b"}]
VOLUMES = [{"name": "v", "hostPath": {"path": "/a"}}, {"name": "w", "emptyDir": {}}]

FULL = resource(
    task={**TASK, "args": {"a": 1, "b": {"c": [1, {"d": 2}]}}, "source": {"configMap": {"name": "code"}}},
    quantization={
        "calibrationSamplingSizes": [50, 100],
        "opTypes": [OVERRIDE, LINEAR],
        "opNames": [OVERRIDE, LINEAR],
        "recipes": {"smoothQuant": True, "smoothQuantArgs": ARGUMENTS},
        "precisions": ["bf16", "fp32"],
        "excludedPrecisions": ["bf16", "fp16"],
    },
    tuningCriterion={"objectives": OBJECTIVES},
    suspend=True,
    image="registry.test/tuner:1",
    threadsPerRank=2,
    output={"persistentVolumeClaim": {"claimName": "c"}},
    template={
        "env": VARIABLES,
        "volumes": VOLUMES,
        "resources": {"limits": {"cpu": "2"}},
        "labels": {"team": "a"},
        "affinity": AFFINITY,
    },
)


def variables(first: Object) -> Object:
    """The change to FULL that has another first variable."""
    return {"template": {"env": [first, *VARIABLES[1:]]}}


def volumes(first: Object) -> Object:
    return {"template": {"volumes": [first, *VOLUMES[1:]]}}


FROZEN: dict[str, tuple[str, Object]] = {
    "the entrypoint": ("task", {"task": {"entrypoint": "task:other"}}),
    "an argument": ("task", {"task": {"args": {"a": 2}}}),
    "an argument deep inside": ("task", {"task": {"args": {"b": {"c": [1, {"d": 3}]}}}}),
    "an argument more": ("task", {"task": {"args": {"e": 0}}}),
    "an argument less": ("task", {"task": {"args": {"a": None}}}),
    "an argument renamed": ("task", {"task": {"args": {"a": None, "e": 1}}}),
    "an argument renamed deep inside": ("task", {"task": {"args": {"b": {"c": None, "f": [1, {"d": 2}]}}}}),
    "the code's ConfigMap": ("task", {"task": {"source": {"configMap": {"name": "x"}}}}),
    "the approach": ("quantization", {"quantization": {"approach": "auto"}}),
    "an override more": (
        "quantization",
        {"quantization": {"opTypes": [OVERRIDE, LINEAR, {**LINEAR, "pattern": "LSTM"}]}},
    ),
    "the tolerable loss": ("accuracyCriterion", {"accuracyCriterion": {"tolerableLoss": 0.02}}),
    "the strategy": ("strategy", {"tuningCriterion": {"strategy": "random"}}),
    "the objectives": ("objectives", {"tuningCriterion": {"objectives": [{"name": "modelsize"}]}}),
    "whether trials are abandoned": ("earlyAbandonment", {"tuningCriterion": {"earlyAbandonment": False}}),
    "the image": ("image", {"image": "x"}),
    "no image": ("image", {"image": None}),
    "threads": ("threadsPerRank", {"threadsPerRank": 3}),
    "threads left to the machines": ("threadsPerRank", {"threadsPerRank": "auto"}),
    "threads left to the pod": ("threadsPerRank", {"threadsPerRank": None}),
    "the output": ("output", {"output": {"path": "x"}}),
    "a variable's source": ("template.env cannot", variables({"name": "A", "valueFrom": {"fieldRef": {}}})),
    "a volume's source": ("template.volumes cannot", volumes({"name": "v", "hostPath": {"path": "/b"}})),
    "another volume's source": ("template.volumes cannot", volumes({"name": "v", "emptyDir": {}})),
    "a volume's source renamed": ("template.volumes cannot", volumes({"name": "v", "hostPath": {"pth": "/a"}})),
    "a mount": ("template.volumeMounts cannot", {"template": {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}}),
    "the processors": ("template.resources cannot", {"template": {"resources": {"limits": {"cpu": "3"}}}}),
    "no template": ("template", {"template": None}),
}
REORDERED: dict[str, Object] = {
    "calibrationSamplingSizes": {"quantization": {"calibrationSamplingSizes": [100, 50]}},
    "opTypes": {"quantization": {"opTypes": [LINEAR, OVERRIDE]}},
    "opNames": {"quantization": {"opNames": [LINEAR, OVERRIDE]}},
    "alphas": {"quantization": {"recipes": {"smoothQuantArgs": {"alphas": [0.5, 0.3]}}}},
    "precisions": {"quantization": {"precisions": ["fp32", "bf16"]}},
    "excludedPrecisions": {"quantization": {"excludedPrecisions": ["fp16", "bf16"]}},
    "objectives": {"tuningCriterion": {"objectives": OBJECTIVES[::-1]}},
    "template.env": {"template": {"env": VARIABLES[::-1]}},
    "template.volumes": {"template": {"volumes": VOLUMES[::-1]}},
}
MUTABLE: dict[str, Object] = {
    "suspend": {"suspend": False},
    "workers": {"workers": 7},
    "slotsPerWorker": {"slotsPerWorker": 2},
    "runLauncherAsWorker": {"runLauncherAsWorker": True},
    "maxTrials": {"tuningCriterion": {"maxTrials": 7}},
    "timeoutSeconds": {"tuningCriterion": {"timeoutSeconds": 7}},
    "a label of the pods": {"template": {"labels": {"team": "b"}}},
    "a class of the pods": {"template": {"priorityClassName": "batch"}},
    "an affinity deep inside": {
        "template": {"affinity": {"nodeAffinity": {next(iter(AFFINITY["nodeAffinity"])): OTHERS}}}
    },
    "no affinity": {"template": {"affinity": None}},
    "a scheduler": {"template": {"schedulerName": "volcano"}},
    "a secret for the image": {"template": {"imagePullSecrets": [{"name": "x"}]}},
}


def patched(kube: Kube, spec: Object) -> str:
    return kube.run(
        "patch", "qtune", "digits", "--type=merge", "--dry-run=server", "-p", json.dumps({"spec": spec}), ok=False
    )


def test_what_defines_the_search_cannot_change_and_the_rest_can(kube: Kube) -> None:
    kube.apply(FULL)
    reordered = {field: (f"{field} cannot change, nor", spec) for field, spec in REORDERED.items()}
    for what, (word, spec) in {**FROZEN, **reordered}.items():
        said = patched(kube, spec)
        assert "is invalid" in said, what
        assert word in said, what
        assert "create a new QuantizationTuning" in said, what
    for what, spec in MUTABLE.items():
        assert "patched" in patched(kube, spec), what


def test_an_absent_image_cannot_be_added(kube: Kube) -> None:
    kube.apply(resource(suspend=True))
    assert "image defines the search" in patched(kube, {"image": "x"})


def test_kubectl_knows_the_short_name_the_category_and_the_columns(kube: Kube) -> None:
    kube.apply(resource(suspend=True))
    header = kube.run("get", "qtune").splitlines()[0].split()
    assert header == ["NAME", "PHASE", "BASELINE", "BEST", "TRIALS", "WORKERS", "AGE"]
    assert "quantizationtuning.quantuner.dev/digits" in kube.run("get", "all", "-o", "name")
