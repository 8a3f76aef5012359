"""One op's configuration in the form that Neural Compressor's users know."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.space.capability import NUMBERS, Mode, Options
from quantuner.space.config import OpConfig
from quantuner.space.tree import OpKey, TuningSpace

_KEPT = ("dtype", "scheme", "granularity", "algorithm", *NUMBERS)


@dataclass(frozen=True)
class OpTuningConfig:
    """One op's configuration. Source: OpTuningConfig of Neural Compressor 2.x.

    `op_quant_mode` is a mode (`static`), a precision (`fp32`, or `("fp32",)`), or `precision` with the data type in
    `kwargs["activation_dtype"]`. `kwargs` may name options as `activation_scheme`; others are the op's first ones.
    Two that spell the same `config` differently are equal.
    """

    op_name: str
    op_type: str
    op_quant_mode: Any = field(compare=False)
    tuning_space: TuningSpace = field(repr=False, compare=False)
    kwargs: Mapping[str, Any] | None = field(default=None, compare=False)
    config: OpConfig = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", _op_config(self))

    @classmethod
    def of(cls, key: OpKey, config: OpConfig, space: TuningSpace) -> OpTuningConfig:
        options = {f"{attribute}_{item}": option for (attribute, item), option in config.options}
        return cls(*key, config.mode.value, space, options)

    @property
    def act_dtype(self) -> str:
        return self._dtype("activation")

    @property
    def weight_dtype(self) -> str | None:
        return self._dtype("weight") if self.has_weight else None

    @property
    def has_weight(self) -> bool:
        return (self.op_name, self.op_type) in self.tuning_space.ops_attr["weight"]

    def _dtype(self, attribute: str) -> str:
        if self.config.mode.is_precision:
            return self.config.mode.value
        return dict(self.config.options).get((attribute, "dtype"), Mode.FP32.value)  # an embedding looks up in fp32

    def get_state(self) -> dict[str, Any]:
        """`{"activation": {"dtype": …, "quant_mode": …, "scheme": …}, "weight": {…}}`."""
        state: dict[str, Any] = {"activation": {"dtype": self.act_dtype, "quant_mode": self.config.mode.value}}
        if self.has_weight:
            state["weight"] = {"dtype": self.weight_dtype}
        for (attribute, item), option in self.config.options:
            if item in _KEPT:
                state.setdefault(attribute, {})[item] = int(option) if item in NUMBERS else option
        return state


def _op_config(op: OpTuningConfig) -> OpConfig:
    kwargs = {key: str(value) if isinstance(value, int) else value for key, value in (op.kwargs or {}).items()}
    mode = _mode(op.op_quant_mode, kwargs.get("activation_dtype"), op.op_name)
    options = _options(op, mode)
    if mode.is_precision:
        return OpConfig(mode)
    named = {f"{attribute}_{item}": (attribute, item) for attribute, item in options}
    for key, value in kwargs.items():
        if key not in named:
            raise not_there(f"{op.op_name}: {key!r} is no item of mode {mode.value}", key, named)
        if value not in options[named[key]]:
            raise not_there(f"{op.op_name}: {key} cannot be {value!r}", value, options[named[key]])
    return OpConfig(mode, tuple((item, kwargs.get(name, options[item][0])) for name, item in named.items()))


def _options(op: OpTuningConfig, mode: Mode) -> Options:
    """What the model's op can choose from in that mode."""
    capability = op.tuning_space.by_name.get(op.op_name)
    if capability is None:
        raise not_there(f"the model has no op {op.op_name!r}", op.op_name, op.tuning_space.by_name)
    if op.op_type != capability.op.type:
        raise not_there(f"{op.op_name} is no {op.op_type!r}", op.op_type, [capability.op.type])
    if mode not in capability.modes:
        raise not_there(f"{op.op_name} ({op.op_type}) has no mode {mode.value!r}", mode, map(str, capability.modes))
    return capability.modes[mode]


def _mode(spelling: Any, dtype: Any, name: str) -> Mode:
    """The mode of any of the spellings of a high-precision op, or of a quantized one."""
    text = spelling[0] if isinstance(spelling, tuple) and spelling else spelling
    text = dtype if text == "precision" else text
    text = text.value if isinstance(text, Mode) else text
    known = [mode.value for mode in Mode]
    if text not in known:
        raise not_there(f"{name}: {text!r} is no quantization mode or precision", text, known)
    return Mode(text)


def not_there(problem: str, given: object, known: Iterable[str]) -> SearchError:
    """The refusal of a name that is not among the known ones, with the nearest."""
    near = difflib.get_close_matches(str(given), list(known), n=1, cutoff=0.0)
    return SearchError(
        Failure.CONFIGURATION_INVALID, f"{problem}; {f'the nearest is {near[0]!r}' if near else 'there is none'}"
    )
