"""Configurations in the form that Neural Compressor's users know: a dict by (op name, op type)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.space.capability import NUMBERS, PRECISIONS, Mode, OpCapability, Options
from quantuner.space.config import OpConfig, TuneConfig
from quantuner.space.op_tuning_config import OpTuningConfig, not_there
from quantuner.space.samplers import initial
from quantuner.space.tree import OpKey, TuningItem, TuningSpace

_MODEL_KEYS = ("calib_sampling_size", "recipe_cfgs")
_CLAIMING = (Mode.STATIC, Mode.DYNAMIC, Mode.WEIGHT_ONLY, *PRECISIONS)
_IGNORED_KEYS = ("calib_iteration", "approach", "trial_number", "advance")  # said by the search, not to it


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
                raise not_there(f"the model has no op {key!r}", key[0] if key else "", known)
            changes[key[0]] = _from_value(key, value, space)
        elif key not in (*_MODEL_KEYS, *_IGNORED_KEYS):
            raise not_there(
                f"a configuration has no key {key!r}: keys are (op name, op type) and model-wide ones",
                key,
                _MODEL_KEYS,
            )
    config = initial(space.capabilities).having(changes).calibrated_with(_sampling_size(body, space))
    return config.with_recipes(_recipes(body))


def _sampling_size(body: Mapping[Any, Any], space: TuningSpace) -> int:
    given = body.get("calib_sampling_size") or space.calib_sampling_sizes[0]
    for size in space.calib_sampling_sizes:
        if given in (size, str(size)):
            return size
    raise SearchError(
        Failure.CONFIGURATION_INVALID,
        f"calib_sampling_size {given!r:.80} is none of {list(space.calib_sampling_sizes)}; give one of these",
    )


def _recipes(body: Mapping[Any, Any]) -> Mapping[str, Any]:
    recipes = body.get("recipe_cfgs")
    if recipes is None:
        return {}
    if not isinstance(recipes, Mapping):
        raise SearchError(
            Failure.CONFIGURATION_INVALID, f"recipe_cfgs must be a dict of recipes to values, not {recipes!r:.80}"
        )
    return recipes


def _from_value(key: OpKey, value: Any, space: TuningSpace) -> OpConfig:
    if isinstance(value, OpTuningConfig):
        return OpTuningConfig(*key, value.op_quant_mode, space, value.kwargs).config
    if isinstance(value, OpConfig):
        return OpTuningConfig.of(key, value, space).config
    is_state = isinstance(value, Mapping) and all(isinstance(items, Mapping) for items in value.values())
    if not is_state or "activation" not in value:
        raise SearchError(
            Failure.CONFIGURATION_INVALID,
            f"the configuration of {key[0]} must be an OpTuningConfig or its get_state(), not {value!r:.80}",
        )
    state = {attribute: dict(items) for attribute, items in value.items()}
    mode = state["activation"].pop("quant_mode", state["activation"].get("dtype"))
    if state["activation"].get("dtype") == Mode.FP32 and mode != Mode.FP32:  # of an embedding, whose input is indices
        del state["activation"]
    kwargs = {f"{attribute}_{item}": option for attribute, items in state.items() for item, option in items.items()}
    return OpTuningConfig(*key, mode, space, kwargs).config


def initial_tuning_cfg(
    space: TuningSpace,
) -> tuple[dict[OpKey, str], dict[str, list[TuningItem]], dict[OpKey, OpTuningConfig]]:
    """(op to its first mode, mode to the items it claimed, op to its first options).

    Modes claim ops in the order static, dynamic, weight_only, bf16, fp16, fp32; inside a mode the model's order holds.
    A mode that claims nothing has an empty list.
    """
    modes: dict[OpKey, str] = {}
    claimed: dict[str, list[TuningItem]] = {mode.value: [] for mode in _CLAIMING}
    for mode in _CLAIMING:
        for key, item in space.op_items.items():
            if key not in modes and mode in space.by_name[key[0]].modes:
                modes[key] = mode.value
                claimed[mode.value].append(item)
    return modes, claimed, {key: OpTuningConfig(*key, mode, space) for key, mode in modes.items()}


def caps_of(capability: OpCapability) -> list[dict[str, dict[str, Any]]]:
    """`[{"activation": {"dtype": ["uint8"], "quant_mode": "static", …}, "weight": {…}}, …]`: a dict for each mode.

    A precision is one without `quant_mode`, whose dtype is text. Source: the capability of Neural Compressor 2.x.
    """
    weighted = all(("weight", "dtype") in capability.modes[mode] for mode in capability.quantized_modes)
    attributes = ("activation", "weight") if weighted else ("activation",)
    return [
        {attribute: {"dtype": mode.value} for attribute in attributes}
        if mode.is_precision
        else _quantized_cap(mode, options)
        for mode, options in capability.modes.items()
    ]


def _quantized_cap(mode: Mode, options: Options) -> dict[str, dict[str, Any]]:
    cap: dict[str, dict[str, Any]] = {"activation": {"dtype": [Mode.FP32.value], "quant_mode": mode.value}}
    for (attribute, item), values in options.items():
        listed = [int(value) if item in NUMBERS else value for value in values]
        cap.setdefault(attribute, {})[item] = listed
    return cap
