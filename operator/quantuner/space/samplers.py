"""Samplers: which configurations a stage of a search tries, in which order.

Orders are those of Neural Compressor 2.x: nested loops with the last item fastest, fallback from the
output side. Each yields fresh immutable configurations, never twice the same.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from quantuner.space.capability import Mode, OpCapability
from quantuner.space.config import OpConfig, TuneConfig, default_config


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
        if not mode.is_precision:
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


def fallback_candidates(space: Sequence[OpCapability], base: TuneConfig, mode: Mode = Mode.FP32) -> list[str]:
    """Ops that are quantized in `base` and may fall back to `mode`, from the output side."""
    return [c.op.name for c in reversed(space) if mode in c.modes and not base[c.op.name].mode.is_precision]


def one_by_one(base: TuneConfig, names: Sequence[str], mode: Mode = Mode.FP32) -> Iterator[TuneConfig]:
    """`base` with one op at a high precision, for each name."""
    for name in names:
        yield base.having({name: OpConfig(mode)})


def accumulated(
    base: TuneConfig, accuracies: Mapping[str, float], *, higher_is_better: bool, mode: Mode = Mode.FP32
) -> Iterator[TuneConfig]:
    """`base` with ever more ops at a high precision, the op whose own fallback gave most accuracy first.

    Equal accuracies keep the order of `accuracies`. The first step is left out: it was tried alone.
    """
    ranked = sorted(accuracies, key=lambda name: accuracies[name], reverse=higher_is_better)
    for count in range(2, len(ranked) + 1):
        yield base.having(dict.fromkeys(ranked[:count], OpConfig(mode)))


def op_wise_candidates(space: Sequence[OpCapability], *, precisions: bool = False) -> dict[str, list[OpConfig]]:
    """Op name to its configurations in its first mode, options as nested loops with the last item fastest.

    `precisions` adds, at the end, those of its other modes: dynamic beside static, then what it may fall back to.
    """
    return {
        c.op.name: [config for mode in (c.modes if precisions else [*c.modes][:1]) for config in _of_mode(mode, c)]
        for c in space
    }


def _of_mode(mode: Mode, capability: OpCapability) -> list[OpConfig]:
    options = capability.modes[mode]
    return [OpConfig(mode, tuple(zip(options, picked, strict=True))) for picked in itertools.product(*options.values())]


def op_wise(space: Sequence[OpCapability], *, precisions: bool = False) -> Iterator[TuneConfig]:
    """The product over single ops, the last op fastest. Lazy: it is exponential in the number of ops."""
    candidates = op_wise_candidates(space, precisions=precisions)
    base = initial(space)
    for picked in itertools.product(*candidates.values()):
        yield base.having(dict(zip(candidates, picked, strict=True)))


def model_wise(space: Sequence[OpCapability]) -> Iterator[TuneConfig]:
    """Product over the united items of all ops, options in the order first seen, the last item fastest.

    An op that lacks any of the options takes its default.
    """
    base = initial(space)
    quantized = [c for c in space if not base[c.op.name].mode.is_precision]
    united: dict[tuple[str, str], dict[str, None]] = {}
    for capability in quantized:
        for item, values in capability.modes[base[capability.op.name].mode].items():
            united.setdefault(item, {}).update(dict.fromkeys(values))
    seen: set[str] = set()
    for picked in itertools.product(*united.values()):
        options = tuple(zip(united, picked, strict=True))
        wanted = {c.op.name: OpConfig(base[c.op.name].mode, options) for c in quantized}
        config = base.having({c.op.name: wanted[c.op.name] for c in quantized if _allows(c, wanted[c.op.name])})
        if config.digest not in seen:
            seen.add(config.digest)
            yield config


def blocks_of(names: Sequence[str]) -> list[list[str]]:
    """Ops grouped into the repeated blocks of a network, in the order in which the names come.

    A block is what its name says: the ops that share the longest prefix that ends in a number, as `layer2.1` of
    `layer2.1.conv1` or `encoder.layer.3` of `encoder.layer.3.attention.query`. Ops without one are in no block.
    """
    blocks: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")[:-1]
        while parts and not parts[-1].isdigit():
            parts.pop()
        if parts:
            blocks.setdefault(".".join(parts), []).append(name)
    return list(blocks.values())


def block_wise(
    base: TuneConfig, blocks: Sequence[Sequence[str]], mode: Mode = Mode.FP32, *, accumulate: bool = False
) -> Iterator[TuneConfig]:
    """`base` with all ops of one block at a high precision, or of ever more blocks."""
    config = base
    for block in blocks:
        config = (config if accumulate else base).having(dict.fromkeys(block, OpConfig(mode)))
        yield config


def calibration_sizes(base: TuneConfig, sizes: Sequence[int]) -> Iterator[TuneConfig]:
    """`base` with ranges of each number of calibration samples."""
    for size in sizes:
        yield base.calibrated_with(size)
