"""The user's constraints applied to a capability: by op type first, then by op name; a later entry wins."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import ATTRIBUTES, Override, Quantization
from quantuner.space.capability import (
    NUMBERS,
    OPT_IN_TYPES,
    PERCENTILE,
    PRECISIONS,
    WEIGHT_ONLY,
    Mode,
    Op,
    OpCapability,
    Options,
    capability_of,
    narrowed,
    on_request,
)

_HIGH = {mode.value for mode in PRECISIONS}
ITEMS: Mapping[str, tuple[str, ...]] = {
    "dtype": ("int8", "uint8", "int4", "int", *sorted(_HIGH)),
    "scheme": ("asym", "sym"),
    "granularity": ("per_channel", "per_tensor"),
    "algorithm": ("minmax", "kl", "percentile", *WEIGHT_ONLY["weight", "algorithm"]),
    "bits": WEIGHT_ONLY["weight", "bits"],
    "group_size": WEIGHT_ONLY["weight", "group_size"],
}
"""What a constraint may name, and the options that an op can have there; `percentile:99.9` as well."""


def overrides_of(body: Mapping[Any, Any]) -> tuple[Override, ...]:
    """An op_type_dict or op_name_dict of Neural Compressor, in its order.

    `{pattern: {"weight": {item: option or [options]}, "activation": {…}}}`; a pattern that is a tuple is compared
    for equality. Raises `ValueError` that names the nearest right key for one that is wrong.
    """
    if not isinstance(body, Mapping):
        raise ValueError(f"op constraints are a dict of patterns, not {type(body).__name__}")
    return tuple(_override(pattern, constraint) for pattern, constraint in body.items())


def _override(pattern: Any, constraint: Any) -> Override:
    text = r"\.".join(re.escape(str(part)) for part in pattern) if isinstance(pattern, tuple) else str(pattern)
    where = f"op constraint {pattern!r}"
    if not isinstance(constraint, Mapping) or not constraint:
        raise ValueError(f"{where} must be a dict with weight or activation, not {constraint!r:.60}")
    options: dict[tuple[str, str], tuple[str, ...]] = {}
    for attribute, items in constraint.items():
        _known(attribute, ATTRIBUTES, where)
        if not isinstance(items, Mapping) or not items:
            raise ValueError(f"{where}, {attribute} must be a dict with any of {', '.join(ITEMS)}, not {items!r:.60}")
        for item, values in items.items():
            _known(item, [i for i in ITEMS if attribute == "weight" or i not in NUMBERS], f"{where}, {attribute}")
            options[attribute, item] = _options(values, ITEMS[item], f"{where}, {attribute}.{item}")
    return Override(text, options)


def _options(given: Any, known: Sequence[str], where: str) -> tuple[str, ...]:
    listed = [given] if isinstance(given, str) or str(given) in known else given
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ValueError(f"{where} must be one of {', '.join(known)}, or a list of them, not {given!r:.60}")
    texts = [str(option) if isinstance(option, int) else option for option in listed]
    for option in texts:
        if not ("percentile" in known and PERCENTILE.fullmatch(str(option))):
            _known(option, known, where)
    return tuple(texts)


def _known(given: Any, known: Iterable[str], where: str) -> None:
    names = list(known)
    if given not in names:
        nearest = difflib.get_close_matches(str(given), names, n=1, cutoff=0.0)[0]
        raise ValueError(f"{where}: there is no {given!r}; the nearest is {nearest!r}, of {', '.join(names)}")


def dict_of(overrides: Iterable[Override]) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """The op_type_dict or op_name_dict that says the same."""
    body: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for override in overrides:
        for (attribute, item), values in override.options.items():
            shown = [int(value) if item in NUMBERS else value for value in values]
            body.setdefault(override.pattern, {}).setdefault(attribute, {})[item] = shown
    return body


def constrain(
    ops: Sequence[Op],
    quantization: Quantization,
    precisions: Sequence[Mode] = (Mode.FP32,),
    left_out: Mapping[Mode, str] | None = None,
) -> tuple[OpCapability, ...]:
    """Capability of every op under the approach and the constraints, in the ops' order.

    `precisions` are those that ops may fall back to; the user's `excluded_precisions` are left out of them.
    `left_out` says of others why the machine does not offer them, for messages.

    A constraint always filters the full capability of the approach, so that an op-name entry can widen
    what an op-type entry narrowed. Raises `SearchError` for a pattern that matches no op, one that is
    no regular expression, and options an op does not have.
    """
    allowed = [mode for mode in precisions if mode.value not in quantization.excluded_precisions]
    full = {op.name: capability_of(op, quantization.approach, allowed) for op in ops}
    chosen = {name: narrowed(_unasked(capability)) for name, capability in full.items()}
    for field, overrides, key in (
        ("opTypes", quantization.op_types, lambda op: op.type),
        ("opNames", quantization.op_names, lambda op: op.name),
    ):
        for override in overrides:
            matches = _matching(override, ops, key, field)
            for op in matches:
                if not chosen[op.name].quantized_modes and not _means(override, op, matches):
                    continue
                found = _filtered(full[op.name], chosen[op.name], override)
                if not found.modes:
                    raise _nothing_left(full[op.name], override, field, left_out or {})
                chosen[op.name] = found
    return tuple(chosen[op.name] for op in ops)


def _opt_in(op: Op) -> bool:
    return op.type in OPT_IN_TYPES


def _unasked(capability: OpCapability) -> OpCapability:
    """What a user who asks for nothing gets of a capability."""
    if not _opt_in(capability.op):
        return capability
    precisions = [mode for mode in capability.modes if mode.is_precision]
    highest = precisions[-1] if precisions else Mode.FP32
    return OpCapability(capability.op, {highest: {}})


def _means(override: Override, op: Op, matches: Iterable[Op]) -> bool:
    """Whether a constraint means one of the ops that it matches: an opt-in op only where it is about no others, or
    names a data type.
    """
    return not _opt_in(op) or ("activation", "dtype") in override.options or all(map(_opt_in, matches))


def _matching(override: Override, ops: Iterable[Op], key: Callable[[Op], str], field: str) -> list[Op]:
    try:
        pattern = re.compile(override.pattern)
    except re.error as error:
        raise SearchError(
            Failure.OVERRIDE_MATCHES_NOTHING,
            f"quantization.{field}: the pattern {override.pattern!r} is no regular expression ({error}); correct it",
        ) from error
    matches = [op for op in ops if pattern.fullmatch(key(op))]
    if not matches:
        names = sorted({key(op) for op in ops})
        near = difflib.get_close_matches(override.pattern, names, n=1, cutoff=0.0)
        raise SearchError(
            Failure.OVERRIDE_MATCHES_NOTHING,
            f"quantization.{field}: the pattern {override.pattern!r} matches none of the {len(names)} names as a "
            f"whole; the nearest is {near[0] if near else 'none'}",
        )
    return matches


def _filtered(full: OpCapability, current: OpCapability, override: Override) -> OpCapability:
    """`current` with the override's items replaced by what it allows of `full` and of what is there on request.

    Without modes where that is nothing. Data types choose among the precisions where they name one, and leave them as
    they are where they do not: int8 weights are what an op has anyway, so that naming them forbids no fallback. Source:
    Neural Compressor 2.x.
    """
    allowed = _for_weight_only(override.options) if Mode.WEIGHT_ONLY in full.modes else override.options
    dtypes = {a: set(v) for (a, item), v in allowed.items() if item == "dtype"}
    if any(values <= _HIGH for values in dtypes.values()):  # an op cannot be quantized by half
        wanted = set.intersection(*(values & _HIGH for values in dtypes.values()))
        return OpCapability(full.op, {m: {} for m in full.modes if m.value in wanted})
    if not full.quantized_modes:  # the approach leaves such ops alone, whatever a wide pattern says of methods
        return current
    modes: dict[Mode, Options] = {}
    for mode, options in full.modes.items():
        if mode.is_precision:
            if all(mode.value in values for values in dtypes.values() if values & _HIGH):
                modes[mode] = {}
            continue
        base = current.modes.get(mode, narrowed(full).modes[mode])
        kept = {
            item: _allowed(item, values, allowed[item]) if item in allowed else base[item]
            for item, values in options.items()
        }
        fits = all(item in options for item in allowed if item[1] in NUMBERS)
        if fits and all(kept.values()):
            modes[mode] = kept
    if all(mode.is_precision for mode in modes):
        modes = {}
    return OpCapability(full.op, modes)


def _allowed(item: tuple[str, str], values: Sequence[str], asked: Sequence[str]) -> tuple[str, ...]:
    return (*(o for o in values if o in asked), *on_request(item, values, asked))


def _for_weight_only(options: Mapping[tuple[str, str], tuple[str, ...]]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The same said of bits: int4 and int8 are names of theirs, and fp32 activations are what the mode has."""
    said = dict(options)
    if said.get(("activation", "dtype")) == ("fp32",):
        del said["activation", "dtype"]
    named = said.get(("weight", "dtype"), ())
    sizes = tuple(dtype.removeprefix("int") for dtype in named if dtype in ("int4", "int8"))
    if sizes:
        said["weight", "bits"] = tuple(bits for bits in said.get(("weight", "bits"), sizes) if bits in sizes)
        said["weight", "dtype"] = ("int", *(dtype for dtype in named if dtype in _HIGH))
    return said


def _nothing_left(full: OpCapability, override: Override, field: str, left_out: Mapping[Mode, str]) -> SearchError:
    missing = _HIGH & {v for values in override.options.values() for v in values} - {m.value for m in full.modes}
    reasons = {mode.value: f"{mode.value} is left out: {why}" for mode, why in left_out.items()}
    whys = [reasons.get(name, f"{name} needs to be in quantization.precisions") for name in sorted(missing)]
    return SearchError(
        Failure.OVERRIDE_MATCHES_NOTHING,
        f"quantization.{field}: the entry {override.pattern!r} leaves {full.op.name} ({full.op.type}) no option; "
        + "; ".join([f"it can do {_spelled(full)}", *whys]),
    )


def _spelled(capability: OpCapability) -> str:
    return "; ".join(
        f"{mode.value}: " + ", ".join(f"{a}.{i} {'|'.join(v)}" for (a, i), v in options.items())
        if options
        else mode.value
        for mode, options in capability.modes.items()
    )
