"""A configuration: how every op of a model computes. Immutable, comparable, and plain data at the edges."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from quantuner.api.conditions import shorten
from quantuner.api.spec import digest
from quantuner.space.capability import NUMBERS, Mode, OpCapability, Options


@dataclass(frozen=True)
class OpConfig:
    """How one op computes."""

    mode: Mode
    options: tuple[tuple[tuple[str, str], str], ...] = ()
    """((attribute, item), option), in the order of the capability."""

    @classmethod
    def first(cls, mode: Mode, options: Options) -> OpConfig:
        """The first option of every item."""
        return cls(mode, tuple((item, values[0]) for item, values in options.items()))

    def get(self, attribute: str, item: str) -> str:
        return dict(self.options)[attribute, item]

    def plain(self) -> dict[str, Any]:
        """`{"mode": "static", "activation": {"scheme": "asym", …}, "weight": {…}}`."""
        body: dict[str, Any] = {"mode": self.mode.value}
        for (attribute, item), option in self.options:
            body.setdefault(attribute, {})[item] = int(option) if item in NUMBERS else option
        return body

    @classmethod
    def from_plain(cls, body: Mapping[str, Any]) -> OpConfig:
        options = tuple(
            ((attribute, item), str(option))
            for attribute in ("activation", "weight")
            for item, option in body.get(attribute, {}).items()
        )
        return cls(Mode(body["mode"]), options)

    def short(self) -> str:
        """What tells it from its siblings: `static/asym/kl`, `weight_only/4/32/sym/RTN`, `fp32`."""
        if self.mode.is_precision:
            return self.mode.value
        if self.mode is Mode.WEIGHT_ONLY:
            told = (option for (_, item), option in self.options if item != "dtype")
            return "/".join([self.mode.value, *told])
        items = dict(self.options)
        attribute = "activation" if ("activation", "scheme") in items else "weight"  # an embedding has no activation
        return f"{self.mode.value}/{items[attribute, 'scheme']}/{items[attribute, 'algorithm']}"


FP32 = OpConfig(Mode.FP32)


@dataclass(frozen=True)
class TuneConfig(Mapping[str, OpConfig]):
    """Op name to its configuration, in the capability's order, and what holds for the whole model."""

    ops: Mapping[str, OpConfig] = field(default_factory=dict)
    calib_sampling_size: int = 0
    """Calibration samples that ranges are made from; 0 takes the first size of the search."""
    recipes: Mapping[str, Any] = field(default_factory=dict)
    """Recipe to value, as `smooth_quant: True`; one that is not named has its default."""

    def __getitem__(self, name: str) -> OpConfig:
        return self.ops[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ops)

    def __len__(self) -> int:
        return len(self.ops)

    def having(self, changes: Mapping[str, OpConfig]) -> TuneConfig:
        """A copy with the named ops changed. Raises `KeyError` for a name that no op has."""
        unknown = next((name for name in changes if name not in self.ops), None)
        if unknown is not None:
            nearest = difflib.get_close_matches(unknown, self.ops, n=1, cutoff=0)
            raise KeyError(
                f"no op is named {unknown!r}; the nearest is {', '.join(nearest) or 'none: there are no ops'}"
            )
        return replace(self, ops={name: changes.get(name, config) for name, config in self.ops.items()})

    def calibrated_with(self, samples: int) -> TuneConfig:
        return replace(self, calib_sampling_size=samples)

    def with_recipes(self, recipes: Mapping[str, Any]) -> TuneConfig:
        """A copy with the named recipes set."""
        return replace(self, recipes={**self.recipes, **recipes})

    def plain(self) -> dict[str, Any]:
        """`{"calib_sampling_size": 100, "recipes": {…}, "ops": {"conv1": {…}, …}}`; what is not set is left out."""
        body: dict[str, Any] = {}
        if self.calib_sampling_size:
            body["calib_sampling_size"] = self.calib_sampling_size
        if self.recipes:
            body["recipes"] = dict(self.recipes)
        return {**body, "ops": {name: config.plain() for name, config in self.ops.items()}}

    @classmethod
    def from_plain(cls, body: Mapping[str, Any]) -> TuneConfig:
        ops = {name: OpConfig.from_plain(op) for name, op in body["ops"].items()}
        return cls(ops, body.get("calib_sampling_size", 0), dict(body.get("recipes", {})))

    @property
    def digest(self) -> str:
        """Equal for equal configurations, whatever the order of ops."""
        return digest(self.plain())

    def summary(self, types: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Compact form: by op type the most frequent spelling, and the ops that differ from it.

        `types` gives the type of each op. At equal frequency the spelling met first is the default.
        """
        spellings: dict[str, Counter[str]] = {}
        for name, config in self.ops.items():
            spellings.setdefault(types[name], Counter())[config.short()] += 1
        defaults = {type_: counter.most_common(1)[0][0] for type_, counter in spellings.items()}
        exceptions = {
            name: config.short() for name, config in self.ops.items() if config.short() != defaults[types[name]]
        }
        return {"defaults": defaults, "exceptions": exceptions}

    def label(self, types: Mapping[str, str], limit: int) -> str:
        """For people: `Conv2d static/asym/kl, Linear fp32`, or `fp32: conv1, fc`; at most `limit` characters.

        What fell back comes first; where names take too much room, spellings are counted.
        """
        recipes = [f"{name} {value}" for name, value in self.recipes.items() if not isinstance(value, Mapping)]
        summary = self.summary(types)
        defaults = ", ".join(f"{type_} {short}" for type_, short in summary["defaults"].items())
        if not summary["exceptions"]:
            return shorten(" · ".join([*recipes, defaults]), limit)
        fallen = _named({name: op.short() for name, op in self.ops.items() if op.mode.is_precision})
        quantized = TuneConfig({name: op for name, op in self.ops.items() if not op.mode.is_precision})
        others = _named(quantized.summary(types)["exceptions"])
        counts = Counter(op.short() for op in quantized.values()) if others else Counter[str]()
        forms = (
            [*fallen, *others, *([] if fallen else [defaults])],
            [*fallen, _counted(counts)],
            fallen,
            [_counted(Counter(op.short() for op in self.ops.values()))],
        )
        spelled = [" · ".join([*recipes, *filter(None, form)]) for form in forms if any(form)]
        return next((form for form in spelled if len(form) <= limit), shorten(spelled[-1], limit))


def _counted(spellings: Counter[str]) -> str:
    return ", ".join(f"{count} {short}" for short, count in spellings.most_common())


def _named(spellings: Mapping[str, str]) -> list[str]:
    """`fp32: conv1, fc` for every spelling among the ops given."""
    by_spelling: dict[str, list[str]] = {}
    for name, short in spellings.items():
        by_spelling.setdefault(short, []).append(name)
    return [f"{short}: {', '.join(names)}" for short, names in by_spelling.items()]


def default_config(capability: OpCapability) -> OpConfig:
    """The first option of every item of the op's first mode."""
    mode = next(iter(capability.modes))
    return OpConfig.first(mode, capability.modes[mode])
