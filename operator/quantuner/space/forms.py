"""Configurations in the form that Neural Compressor's users know: a dict by (op name, op type)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.space.capability import PRECISIONS, Mode
from quantuner.space.config import OpConfig, TuneConfig
from quantuner.space.samplers import initial
from quantuner.space.tree import OpKey, TuningItem, TuningSpace

_MODEL_KEYS = ("calib_sampling_size", "recipe_cfgs")
_IGNORED_KEYS = ("calib_iteration", "approach", "trial_number", "advance")  # said by the search, not to it
_KEPT = ("dtype", "scheme", "granularity", "algorithm")


@dataclass(frozen=True)
class OpTuningConfig:
    """One op's configuration. Source: OpTuningConfig of Neural Compressor 2.x.

    `op_quant_mode` is a mode (`static`), a precision (`fp32`, or `("fp32",)`), or `precision` with the data type in
    `kwargs["activation_dtype"]`. `kwargs` may name options as `activation_scheme`; others are the op's first ones.
    """

    op_name: str
    op_type: str
    op_quant_mode: Any
    tuning_space: TuningSpace = field(repr=False, compare=False)
    kwargs: Mapping[str, Any] | None = None
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
        return self.config.mode.value if self.config.mode.is_precision else self.config.get(attribute, "dtype")

    def get_state(self) -> dict[str, Any]:
        """`{"activation": {"dtype": …, "quant_mode": …, "scheme": …}, "weight": {…}}`."""
        state: dict[str, Any] = {"activation": {"dtype": self.act_dtype, "quant_mode": self.config.mode.value}}
        if self.has_weight:
            state["weight"] = {"dtype": self.weight_dtype}
        for (attribute, item), option in self.config.options:
            if item in _KEPT:
                state.setdefault(attribute, {})[item] = option
        return state


def _op_config(op: OpTuningConfig) -> OpConfig:
    kwargs = dict(op.kwargs or {})
    mode = _mode(op.op_quant_mode, kwargs.get("activation_dtype"), op.op_name)
    capability = op.tuning_space.by_name.get(op.op_name)
    if capability is None:
        raise _refused(f"the model has no op {op.op_name!r}", op.op_name, op.tuning_space.by_name)
    if mode not in capability.modes:
        modes = [m.value for m in capability.modes]
        raise _refused(f"{op.op_name} ({op.op_type}) has no mode {mode.value!r}", mode.value, modes)
    if mode.is_precision:
        return OpConfig(mode)
    options = capability.modes[mode]
    named = {f"{attribute}_{item}": (attribute, item) for attribute, item in options}
    for key, value in kwargs.items():
        if key not in named:
            raise _refused(f"{op.op_name}: {key!r} is no item of mode {mode.value}", key, named)
        if value not in options[named[key]]:
            raise _refused(f"{op.op_name}: {key} cannot be {value!r}", str(value), options[named[key]])
    return OpConfig(mode, tuple((item, kwargs.get(name, options[item][0])) for name, item in named.items()))


def _mode(spelling: Any, dtype: Any, name: str) -> Mode:
    """The mode of any of the spellings of a high-precision op, or of a quantized one."""
    text = spelling[0] if isinstance(spelling, tuple) and spelling else spelling
    text = dtype if text == "precision" else text
    text = text.value if isinstance(text, Mode) else text
    known = [mode.value for mode in Mode]
    if text not in known:
        raise _refused(f"{name}: {text!r} is no quantization mode or precision", str(text), known)
    return Mode(text)


def _refused(problem: str, given: str, known: Iterable[str]) -> SearchError:
    names = [str(k) for k in known]
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.0)
    return SearchError(
        Failure.CONFIGURATION_INVALID, f"{problem}; {f'the nearest is {near[0]!r}' if near else 'there is none'}"
    )


def as_dict(config: TuneConfig, space: TuningSpace) -> dict[Any, Any]:
    """`{(op name, op type): OpTuningConfig, "calib_sampling_size": n, "recipe_cfgs": {…}}`; a fresh dict."""
    ops: dict[Any, Any] = {
        key: OpTuningConfig.of(key, config[key[0]], space) for key in space.op_items if key[0] in config
    }
    ops["calib_sampling_size"] = config.calib_sampling_size or space.calib_sampling_sizes[0]
    ops["recipe_cfgs"] = dict(config.recipes)
    return ops


def from_dict(body: Mapping[Any, Any], space: TuningSpace) -> TuneConfig:
    """The configuration that such a dict says; an op may also be given as its `get_state()`.

    An op that is not named has its first options. Raises `SearchError` (ConfigurationInvalid) with the nearest right
    name for an op, a key or an option that there is not.
    """
    changes = {}
    for key, value in body.items():
        if isinstance(key, tuple):
            if key not in space.op_items:
                known = [name for name, _ in space.op_items]
                raise _refused(f"the model has no op {key!r}", str(key[0]), known)
            changes[key[0]] = _from_value(key, value, space)
        elif key not in (*_MODEL_KEYS, *_IGNORED_KEYS):
            raise _refused(
                f"a configuration has no key {key!r}: keys are (op name, op type) and model-wide ones",
                str(key),
                _MODEL_KEYS,
            )
    size = int(body.get("calib_sampling_size") or space.calib_sampling_sizes[0])
    if size not in space.calib_sampling_sizes:
        raise SearchError(
            Failure.CONFIGURATION_INVALID,
            f"calib_sampling_size {size} is none of {list(space.calib_sampling_sizes)}; give one of these",
        )
    return initial(space.capabilities).having(changes).calibrated_with(size).with_recipes(body.get("recipe_cfgs") or {})


def _from_value(key: OpKey, value: Any, space: TuningSpace) -> OpConfig:
    if isinstance(value, OpTuningConfig):
        return OpTuningConfig(*key, value.op_quant_mode, space, value.kwargs).config
    if isinstance(value, OpConfig):
        return OpTuningConfig.of(key, value, space).config
    if not isinstance(value, Mapping) or "activation" not in value:
        raise SearchError(
            Failure.CONFIGURATION_INVALID,
            f"the configuration of {key[0]} must be an OpTuningConfig or its get_state(), not {value!r:.80}",
        )
    state = {attribute: dict(items) for attribute, items in value.items()}
    mode = state["activation"].pop("quant_mode", state["activation"].get("dtype"))
    kwargs = {f"{attribute}_{item}": option for attribute, items in state.items() for item, option in items.items()}
    return OpTuningConfig(*key, mode, space, kwargs).config


def initial_tuning_cfg(
    space: TuningSpace,
) -> tuple[dict[OpKey, str], dict[str, list[TuningItem]], dict[OpKey, OpTuningConfig]]:
    """(op to its first mode, mode to the items it claimed, op to its first options).

    Modes claim ops in the order static, dynamic, bf16, fp16, fp32; inside a mode the model's order holds.
    """
    modes: dict[OpKey, str] = {}
    claimed: dict[str, list[TuningItem]] = {}
    for mode in (Mode.STATIC, Mode.DYNAMIC, *PRECISIONS):
        for key, item in space.op_items.items():
            if key not in modes and mode in space.by_name[key[0]].modes:
                modes[key] = mode.value
                claimed.setdefault(mode.value, []).append(item)
    return modes, claimed, {key: OpTuningConfig(*key, mode, space) for key, mode in modes.items()}
