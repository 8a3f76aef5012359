"""The conservative strategy (quantization level 0): start from full precision, quantize what accuracy allows."""

from collections.abc import Iterator

from quantuner.space.capability import PRECISIONS
from quantuner.space.config import OpConfig, TuneConfig, default_config
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.registry import strategy_registry

GROUPS = ("conv", "matmul", "bmm", "linear", "")
"""Prefixes of lower-case op types, in the order in which groups are tried; an op is of the first that fits."""


@strategy_registry
class ConservativeTuneStrategy(TuneStrategy):
    """Groups of like ops are quantized one group after the other; one that costs too much is tried op by op.

    Source: Neural Compressor 2.x's ConservativeTuneStrategy. There a group that fails is given up, although its
    description promises single ops, and ops of no group are never quantized.
    """

    accepts = ()
    refines = True

    def reads_accuracy(self, config: TuneConfig) -> bool:
        return False

    def stages(self) -> Iterator[list[TuneConfig]]:
        for start in self.unquantized():
            yield from self._quantize_groups(start)
            if self.winner_config is not None:
                return

    def _quantize_groups(self, kept: TuneConfig) -> Iterator[list[TuneConfig]]:
        groups = self.groups()
        if not groups:
            yield [kept]
        for group in groups:
            whole = kept.having(self._quantized(group))
            yield [whole]
            if self.meets(whole):
                kept = whole
                continue
            for name in group if len(group) > 1 else []:
                single = kept.having(self._quantized([name]))
                yield [single]
                kept = single if self.meets(single) else kept

    def unquantized(self) -> Iterator[TuneConfig]:
        """No op quantized: all in bf16, then all in fp16, then all in fp32, as far as the space has these.

        An op that lacks a precision has the next one that it can do, or its last.
        """
        base = self.start(self.tuning_space.calib_sampling_sizes[0])
        own = {c.op.name: [m for m in PRECISIONS if m in c.modes] for c in self.tuning_space.capabilities}
        seen = set[str]()
        for number in range(len(PRECISIONS)):
            modes = {name: [*(m for m in can if m in PRECISIONS[number:]), *can[-1:]] for name, can in own.items()}
            config = base.having({name: OpConfig(found[0]) for name, found in modes.items() if found})
            if config.digest not in seen:
                seen.add(config.digest)
                yield config

    def groups(self) -> list[list[str]]:
        """Names of the ops that may be quantized, by group."""
        found: dict[str, list[str]] = {prefix: [] for prefix in GROUPS}
        for capability in self.tuning_space.capabilities:
            if capability.quantized_modes and capability.op.name not in self.recipes.off:
                type_ = capability.op.type.lower()
                found[next(prefix for prefix in GROUPS if type_.startswith(prefix))].append(capability.op.name)
        return [group for group in found.values() if group]

    def _quantized(self, names: list[str]) -> dict[str, OpConfig]:
        """The ops at their default, static where they can."""
        return {c.op.name: default_config(c) for c in self.tuning_space.capabilities if c.op.name in names}
