"""A configuration: how every op of a model computes. Immutable, comparable, and plain data at the edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from quantuner.api.conditions import shorten
from quantuner.api.spec import digest
from quantuner.space.capability import Mode, OpCapability, Options


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
            body.setdefault(attribute, {})[item] = option
        return body

    @classmethod
    def from_plain(cls, body: Mapping[str, Any]) -> OpConfig:
        options = tuple(
            ((attribute, item), option)
            for attribute in ("activation", "weight")
            for item, option in body.get(attribute, {}).items()
        )
        return cls(Mode(body["mode"]), options)

    def short(self) -> str:
        """What tells it from its siblings: `static/asym/kl`, `dynamic/asym/minmax`, `fp32`."""
        if self.mode is Mode.FP32:
            return self.mode.value
        return f"{self.mode.value}/{self.get('activation', 'scheme')}/{self.get('activation', 'algorithm')}"


FP32 = OpConfig(Mode.FP32)


@dataclass(frozen=True)
class TuneConfig(Mapping[str, OpConfig]):
    """Op name to its configuration, in the capability's order."""

    ops: Mapping[str, OpConfig] = field(default_factory=dict)

    def __getitem__(self, name: str) -> OpConfig:
        return self.ops[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ops)

    def __len__(self) -> int:
        return len(self.ops)

    def having(self, changes: Mapping[str, OpConfig]) -> TuneConfig:
        """A copy with the named ops changed."""
        return TuneConfig({name: changes.get(name, config) for name, config in self.ops.items()})

    def plain(self) -> dict[str, Any]:
        return {name: config.plain() for name, config in self.ops.items()}

    @classmethod
    def from_plain(cls, body: Mapping[str, Any]) -> TuneConfig:
        return cls({name: OpConfig.from_plain(op) for name, op in body.items()})

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
        """For people: `Conv2d static/asym/kl, Linear fp32`, or `fp32: conv1, fc`; at most `limit` characters."""
        summary = self.summary(types)
        by_spelling: dict[str, list[str]] = {}
        for name, short in summary["exceptions"].items():
            by_spelling.setdefault(short, []).append(name)
        parts = [f"{short}: {', '.join(names)}" for short, names in by_spelling.items()]
        if not set(by_spelling) - {Mode.FP32.value} and parts:  # a fallback: its ops say it all
            return shorten(parts[0], limit)
        parts.append(", ".join(f"{type_} {short}" for type_, short in summary["defaults"].items()))
        return shorten(" · ".join(parts), limit)


def default_config(capability: OpCapability) -> OpConfig:
    """The first option of every item of the op's first mode."""
    mode = next(iter(capability.modes))
    return OpConfig.first(mode, capability.modes[mode])
