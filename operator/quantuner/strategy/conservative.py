"""The conservative strategy (quantization level 0): start from full precision, quantize what accuracy allows."""

from collections.abc import Iterator

from quantuner.space.capability import PRECISIONS
from quantuner.space.config import OpConfig, TuneConfig, default_config
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.registry import strategy_registry

GROUPS = ("conv", "matmul", "bmm", "linear")
"""Prefixes of lower-case op types, in the order in which groups are tried."""


@strategy_registry
class ConservativeTuneStrategy(TuneStrategy):
    """Groups of like ops are quantized one group after the other; one that costs too much is tried op by op.

    Source: Neural Compressor 2.x's ConservativeTuneStrategy. There a group that fails is given up, although its
    description promises single ops.
    """

    accepts = ()
    refines = True

    def stages(self) -> Iterator[list[TuneConfig]]:
        kept = self.unquantized()
        for group in self.groups():
            whole = kept.having(self._quantized(group))
            yield [whole]
            if self.meets(whole):
                kept = whole
                continue
            for name in group if len(group) > 1 else []:
                single = kept.having(self._quantized([name]))
                yield [single]
                kept = single if self.meets(single) else kept

    def unquantized(self) -> TuneConfig:
        """Every op at the highest precision that the space holds, bf16 before fp16 before fp32."""
        base = self.start(self.tuning_space.calib_sampling_sizes[0])
        precisions = {
            c.op.name: OpConfig(next(mode for mode in PRECISIONS if mode in c.modes))
            for c in self.tuning_space.capabilities
            if any(mode in c.modes for mode in PRECISIONS)
        }
        return base.having(precisions)

    def groups(self) -> list[list[str]]:
        """Names of the quantizable ops by group; those of no group stay at high precision."""
        capable = [c for c in self.tuning_space.capabilities if c.quantized_modes and c.op.name not in self.recipes.off]
        found = [[c.op.name for c in capable if c.op.type.lower().startswith(prefix)] for prefix in GROUPS]
        return [group for group in found if group]

    def _quantized(self, names: list[str]) -> dict[str, OpConfig]:
        """The ops at their default, static where they can."""
        return {c.op.name: default_config(c) for c in self.tuning_space.capabilities if c.op.name in names}
