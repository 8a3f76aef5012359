"""The resource as frozen data: parsed once at the boundary, after validation and defaulting."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quantuner.api import names

ATTRIBUTES = ("activation", "weight")
CORRECTIONS = ("fast_bias_correction", "weight_correction")
"""Recipes that change the weights or biases of a quantized model."""
INT8_RECIPES = ("smooth_quant", *CORRECTIONS)
"""Recipes for int8 activations or weights, which weight-only quantization has not."""


@dataclass(frozen=True)
class TaskRef:
    entrypoint: str
    """`module:callable`."""
    args: Mapping[str, Any] = field(default_factory=dict)
    configmap: str | None = None
    """ConfigMap with the code; None where the image has it."""


@dataclass(frozen=True)
class Override:
    """Constraint on every op whose type (or name) matches `pattern` as a whole."""

    pattern: str
    options: Mapping[tuple[str, str], tuple[str, ...]]
    """(attribute, item) to allowed options: `("activation", "scheme"): ("asym",)`."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Override:
        options = {
            (attribute, snake_case(item)): tuple(str(value) for value in values)
            for attribute in ATTRIBUTES
            for item, values in body.get(attribute, {}).items()
        }
        return cls(body["pattern"], options)


@dataclass(frozen=True)
class Quantization:
    approach: str = "static"
    """static, dynamic, auto, weight_only or qat."""
    quant_level: str = "auto"
    """auto, 0 (accuracy first) or 1 (the strategy as named)."""
    calibration_sampling_sizes: tuple[int, ...] = (100,)
    op_types: tuple[Override, ...] = ()
    op_names: tuple[Override, ...] = ()
    recipes: Mapping[str, Any] = field(default_factory=dict)
    """Those the user gave, by Neural Compressor's names: `smooth_quant`, `smooth_quant_args`, …"""
    precisions: tuple[str, ...] = ("fp32",)
    """What ops may fall back to, fp32 among them; bf16 and fp16 where the device is fast at them."""
    excluded_precisions: tuple[str, ...] = ()
    reduce_range: bool = False
    """Activations in 7 bits, for CPUs whose 8-bit products may overflow (no VNNI)."""
    device: str = "cpu"
    """cpu or cuda: where the model is calibrated and evaluated."""


@dataclass(frozen=True)
class AccuracyCriterion:
    """How much accuracy may be lost. Same meaning as Neural Compressor 2.x's class of this name."""

    criterion: str = "relative"
    tolerable_loss: float = 0.01
    higher_is_better: bool = True

    def target(self, baseline: float) -> float:
        """The accuracy at which the criterion is just met."""
        # Loss is taken from |baseline|, so that a negative metric's target lies below it, not above.
        loss = self.tolerable_loss * (abs(baseline) if self.criterion == "relative" else 1.0)
        return baseline - loss if self.higher_is_better else baseline + loss

    def meets(self, accuracy: float, baseline: float) -> bool:
        """Whether `accuracy` reaches the target; exactly on target counts."""
        target = self.target(baseline)
        return accuracy >= target if self.higher_is_better else accuracy <= target

    def better(self, accuracy: float, than: float) -> bool:
        return accuracy > than if self.higher_is_better else accuracy < than


@dataclass(frozen=True)
class Objective:
    """What is measured beside accuracy, and how much it counts."""

    name: str
    """performance, accuracy, modelsize or footprint."""
    weight: float = 1.0


@dataclass(frozen=True)
class TuningCriterion:
    strategy: str | None = None
    """None where the user named none: `Quantization.quant_level` decides then."""
    strategy_kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_trials: int = 100
    timeout_seconds: float = 0
    objectives: tuple[Objective, ...] = (Objective("performance"),)
    early_abandonment: bool = True
    """Whether trials that can no longer matter are abandoned, where a built-in metric judges."""


@dataclass(frozen=True)
class Output:
    claim: str
    path: str


@dataclass(frozen=True)
class Tuning:
    """One QuantizationTuning."""

    name: str
    task: TaskRef
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    queue_labels: Mapping[str, str] = field(default_factory=dict)
    """For Kueue; the MPIJob gets them."""
    quantization: Quantization = Quantization()
    accuracy_criterion: AccuracyCriterion = AccuracyCriterion()
    tuning_criterion: TuningCriterion = TuningCriterion()
    workers: int = 2
    slots_per_worker: int = 1
    """Ranks of a worker pod, each with its share of the pod's CPUs and devices."""
    run_launcher_as_worker: bool = False
    """Whether rank 0 evaluates trials too; the launcher pod then has as many slots as a worker."""
    threads: int | str | None = None
    """Threads of a rank as the user set them, or `auto`: what the hosts have; None: what the pods ask for."""
    image: str | None = None
    suspend: bool = False
    output: Output | None = None
    template: Mapping[str, Any] = field(default_factory=dict)
    """Pod parts as Kubernetes spells them; only the builders of pods look inside."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Tuning:
        """Parses a validated and defaulted resource (`quantuner.api.validation.admit`)."""
        meta, spec = body["metadata"], body["spec"]
        name = meta["name"]
        quantization, tuning = spec["quantization"], spec["tuningCriterion"]
        accuracy, output = spec["accuracyCriterion"], spec.get("output")
        return cls(
            name=name,
            namespace=meta.get("namespace", "default"),
            uid=meta.get("uid", ""),
            generation=meta.get("generation", 0),
            queue_labels={k: v for k, v in (meta.get("labels") or {}).items() if k.startswith(names.QUEUE_PREFIX)},
            task=TaskRef(
                entrypoint=spec["task"]["entrypoint"],
                args=spec["task"]["args"],
                configmap=spec["task"].get("source", {}).get("configMap", {}).get("name"),
            ),
            quantization=Quantization(
                approach=quantization["approach"],
                quant_level=str(quantization["quantLevel"]),
                calibration_sampling_sizes=tuple(quantization["calibrationSamplingSizes"]),
                op_types=tuple(Override.from_body(o) for o in quantization.get("opTypes", ())),
                op_names=tuple(Override.from_body(o) for o in quantization.get("opNames", ())),
                recipes=_recipes(quantization["recipes"]),
                precisions=tuple(quantization["precisions"]),
                excluded_precisions=tuple(quantization["excludedPrecisions"]),
                reduce_range=quantization["reduceRange"],
                device=quantization["device"],
            ),
            accuracy_criterion=AccuracyCriterion(
                accuracy["criterion"], float(accuracy["tolerableLoss"]), accuracy["higherIsBetter"]
            ),
            tuning_criterion=TuningCriterion(
                strategy=tuning.get("strategy"),
                strategy_kwargs=tuning["strategyKwargs"],
                max_trials=tuning["maxTrials"],
                timeout_seconds=tuning["timeoutSeconds"],
                objectives=tuple(Objective(o["name"], float(o["weight"])) for o in tuning["objectives"]),
                early_abandonment=tuning.get("earlyAbandonment", True),
            ),
            workers=spec["workers"],
            slots_per_worker=spec.get("slotsPerWorker", 1),
            run_launcher_as_worker=spec.get("runLauncherAsWorker", False),
            threads=spec.get("threadsPerRank"),
            image=spec.get("image"),
            suspend=spec["suspend"],
            output=Output(output["persistentVolumeClaim"]["claimName"], output.get("path", name)) if output else None,
            template=spec.get("template", {}),
        )

    @property
    def strategy(self) -> str:
        """Name of the strategy that searches: the one the user named, else that of the quantization level."""
        named = self.tuning_criterion.strategy
        return named or {"auto": "auto", "0": "conservative", "1": "basic"}[self.quantization.quant_level]

    @property
    def threads_per_rank(self) -> int | None:
        """Threads of one rank: those the user set, else its share of the pod's CPU limit or request, else 1.

        None where the user left it to the machines (`auto`). Otherwise it is taken from the resource alone, so
        that a laptop and a cluster, and any number of ranks, compute the same sums in the same order.
        """
        if self.threads is not None:
            return None if isinstance(self.threads, str) else self.threads
        resources = self.template.get("resources", {})
        cpu = resources.get("limits", {}).get("cpu", resources.get("requests", {}).get("cpu", 1))
        return max(1, math.floor(_cores(cpu) / self.slots_per_worker))

    @property
    def launcher_slots(self) -> int:
        """Ranks of the launcher pod: rank 0 alone, unless it evaluates trials as a worker's ranks do."""
        return self.slots_per_worker if self.run_launcher_as_worker else 1

    def ranks(self, workers: int) -> int:
        """Ranks of a search with so many workers, rank 0 included; without workers, one."""
        return self.launcher_slots + workers * self.slots_per_worker if workers else 1


_CPU_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3}


def _cores(quantity: int | float | str) -> float:
    """`2`, `"1.5"` or `"500m"` as cores."""
    text = str(quantity)
    unit = _CPU_UNITS.get(text[-1])
    return float(text) if unit is None else float(text[:-1]) * unit


# What may change while the search goes on (the CRD's CEL rules say the same); all else is its identity.
_MUTABLE = {
    "": ("suspend", "workers", "slotsPerWorker", "runLauncherAsWorker"),
    "tuningCriterion": ("maxTrials", "timeoutSeconds"),
}
_LATER = {"precisions": ["fp32"], "device": "cpu"}
"""Fields of quantization that are younger than journals, and their defaults: there they change no identity."""


def search_digest(body: Mapping[str, Any]) -> str:
    """Identifies the search that a validated resource defines: 16 hex digits of SHA-256.

    A journal carries it, so that it is never continued by another search. The fields which say where
    a search runs (image, template, output) are left out: a laptop and a cluster share the digest. So are the
    threads of a rank, which a journal records by themselves.
    """
    spec = json.loads(json.dumps(body["spec"]))
    for key in (*_MUTABLE[""], "threadsPerRank", "image", "template", "output"):
        spec.pop(key, None)
    spec["task"].pop("source", None)
    spec["quantization"]["quantLevel"] = str(spec["quantization"]["quantLevel"])  # 1 and "1" mean the same
    for key, default in _LATER.items():
        if spec["quantization"].get(key) == default:
            del spec["quantization"][key]
    for key in _MUTABLE["tuningCriterion"]:
        spec["tuningCriterion"].pop(key, None)
    if spec["tuningCriterion"].get("earlyAbandonment"):  # said or not, it means the same
        del spec["tuningCriterion"]["earlyAbandonment"]
    return digest(_as_kept(spec))


def _as_kept(value: Any) -> Any:
    """As an API server gives it back: it writes -1.0 as -1."""
    if isinstance(value, dict):
        return {key: _as_kept(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_kept(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def digest(value: Any) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of plain data."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _recipes(body: Mapping[str, Any]) -> dict[str, Any]:
    """Recipes by Neural Compressor's names; several alphas are a list, as there."""
    recipes = {snake_case(key): value for key, value in body.items()}
    if "smooth_quant_args" in recipes:
        arguments = recipes.pop("smooth_quant_args")
        alphas = list(arguments.get("alphas", ()))
        alpha: Any = "auto" if arguments.get("autoAlpha") else alphas if len(alphas) > 1 else next(iter(alphas), None)
        others = {snake_case(key): arguments[key] for key in ("folding", "autoAlphaArgs") if key in arguments}
        if "auto_alpha_args" in others:
            others["auto_alpha_args"] = {snake_case(key): value for key, value in arguments["autoAlphaArgs"].items()}
        recipes["smooth_quant_args"] = ({} if alpha is None else {"alpha": alpha}) | others
    return recipes


def snake_case(name: str) -> str:
    """`smoothQuantArgs` as `smooth_quant_args`: Kubernetes' spelling as Python's."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def camel_case(name: str) -> str:
    """`smooth_quant_args` as `smoothQuantArgs`: the other way."""
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def manifest_kind(body: Any) -> str:
    """`apiVersion/kind` of a manifest, for messages."""
    if not isinstance(body, Mapping):
        return type(body).__name__
    return f"{body.get('apiVersion', '?')} {body.get('kind', '?')}"


def is_tuning(body: Any) -> bool:
    return isinstance(body, Mapping) and (body.get("apiVersion"), body.get("kind")) == (
        names.API_VERSION,
        names.KIND,
    )
