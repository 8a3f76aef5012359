"""The user's constraints applied to a capability: by op type first, then by op name; a later entry wins."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import Override, Quantization
from quantuner.space.capability import Mode, Op, OpCapability, Options, capability_of


def constrain(ops: Sequence[Op], quantization: Quantization) -> tuple[OpCapability, ...]:
    """Capability of every op under the approach and the constraints, in the ops' order.

    A constraint always filters the full capability of the approach, so that an op-name entry can widen
    what an op-type entry narrowed. Raises `SearchError` for a pattern that matches no op, one that is
    no regular expression, and options an op does not have.
    """
    full = {op.name: capability_of(op, quantization.approach) for op in ops}
    chosen = dict(full)
    for field, overrides, key in (
        ("opTypes", quantization.op_types, lambda op: op.type),
        ("opNames", quantization.op_names, lambda op: op.name),
    ):
        for override in overrides:
            matches = _matching(override, ops, key, field)
            for op in matches:
                chosen[op.name] = _filtered(full[op.name], chosen[op.name], override, field)
    return tuple(chosen[op.name] for op in ops)


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


def _filtered(full: OpCapability, current: OpCapability, override: Override, field: str) -> OpCapability:
    """`current` with the override's items replaced by what it allows of `full`."""
    dtypes = {a: set(v) for (a, item), v in override.options.items() if item == "dtype"}
    wants_fp32 = any(values == {"fp32"} for values in dtypes.values())
    if wants_fp32:
        return OpCapability(full.op, {Mode.FP32: {}})
    modes: dict[Mode, Options] = {}
    for mode, options in full.modes.items():
        if mode is Mode.FP32:
            if all("fp32" in values for values in dtypes.values()):  # no dtype given leaves fp32 allowed
                modes[mode] = {}
            continue
        base = current.modes.get(mode, options)
        kept = {
            item: tuple(o for o in values if o in override.options[item]) if item in override.options else base[item]
            for item, values in options.items()
        }
        if all(kept.values()):
            modes[mode] = kept
    if not any(mode is not Mode.FP32 for mode in modes):
        raise SearchError(
            Failure.OVERRIDE_MATCHES_NOTHING,
            f"quantization.{field}: the entry {override.pattern!r} leaves {full.op.name} ({full.op.type}) no option; "
            f"it can do {_spelled(full)}",
        )
    return OpCapability(full.op, modes)


def _spelled(capability: OpCapability) -> str:
    return "; ".join(
        f"{mode.value}: " + ", ".join(f"{a}.{i} {'|'.join(v)}" for (a, i), v in options.items())
        for mode, options in capability.modes.items()
        if options
    )
