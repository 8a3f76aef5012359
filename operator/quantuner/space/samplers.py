"""Samplers: which configurations a stage of a search tries, in which order.

Orders are those of Neural Compressor 2.x: nested loops with the last item fastest, fallback from the
output side. Each yields fresh immutable configurations, never twice the same.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from quantuner.space.capability import Mode, OpCapability
from quantuner.space.config import FP32, OpConfig, TuneConfig, default_config


def initial(space: Sequence[OpCapability]) -> TuneConfig:
    """Every op in its first mode with the first option of every item."""
    return TuneConfig({capability.op.name: default_config(capability) for capability in space})


def op_type_wise(space: Sequence[OpCapability]) -> Iterator[TuneConfig]:
    """Product over (op type, mode) groups, groups in order of first appearance, the last one fastest.

    Inside a group all ops take the same options, from the union of their option lists in the order
    first seen; an op that lacks one of them takes its default.
    """
    base = initial(space)
    groups: dict[tuple[str, Mode], list[OpCapability]] = {}
    for capability in space:
        mode = base[capability.op.name].mode
        if mode is not Mode.FP32:
            groups.setdefault((capability.op.type, mode), []).append(capability)
    choices = [_group_options(mode, members) for (_, mode), members in groups.items()]
    seen: set[str] = set()
    for picked in itertools.product(*choices):
        changes: dict[str, OpConfig] = {}
        for option, ((_, mode), members) in zip(picked, groups.items(), strict=True):
            changes |= {
                m.op.name: option if _allows(m, option) else OpConfig.first(mode, m.modes[mode]) for m in members
            }
        config = base.having(changes)
        if config.digest not in seen:
            seen.add(config.digest)
            yield config


def _group_options(mode: Mode, members: Sequence[OpCapability]) -> list[OpConfig]:
    united: dict[tuple[str, str], dict[str, None]] = {}
    for member in members:
        for item, options in member.modes[mode].items():
            united.setdefault(item, {}).update(dict.fromkeys(options))
    items = list(united)
    return [OpConfig(mode, tuple(zip(items, options, strict=True))) for options in itertools.product(*united.values())]


def _allows(capability: OpCapability, config: OpConfig) -> bool:
    options = capability.modes[config.mode]
    return len(options) == len(config.options) and all(value in options.get(item, ()) for item, value in config.options)


def dynamic_where_possible(space: Sequence[OpCapability], base: TuneConfig) -> TuneConfig:
    """`base` with every op that can do both static and dynamic set to dynamic."""
    return base.having(
        {
            c.op.name: OpConfig.first(Mode.DYNAMIC, c.modes[Mode.DYNAMIC])
            for c in space
            if Mode.STATIC in c.modes and Mode.DYNAMIC in c.modes
        }
    )


def fallback_candidates(space: Sequence[OpCapability], base: TuneConfig) -> list[str]:
    """Ops that are quantized in `base` and may be fp32, from the output side."""
    return [c.op.name for c in reversed(space) if Mode.FP32 in c.modes and base[c.op.name].mode is not Mode.FP32]


def one_by_one(base: TuneConfig, names: Sequence[str]) -> Iterator[TuneConfig]:
    """`base` with one op in fp32, for each name."""
    for name in names:
        yield base.having({name: FP32})


def accumulated(base: TuneConfig, accuracies: Mapping[str, float], *, higher_is_better: bool) -> Iterator[TuneConfig]:
    """`base` with ever more ops in fp32, the op whose own fallback gave most accuracy first.

    Equal accuracies keep the order of `accuracies`. The first step is left out: it was tried alone.
    """
    ranked = sorted(accuracies, key=lambda name: accuracies[name], reverse=higher_is_better)
    for count in range(2, len(ranked) + 1):
        yield base.having(dict.fromkeys(ranked[:count], FP32))
