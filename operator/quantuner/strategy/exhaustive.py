"""The exhaustive strategy: every configuration of the space, op by op."""

from collections.abc import Iterable, Iterator

from quantuner.space import samplers
from quantuner.space.config import TuneConfig
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.registry import strategy_registry


@strategy_registry
class ExhaustiveTuneStrategy(TuneStrategy):
    """The product over all ops, the last op fastest: first of their quantized options, then with fallback as well.

    Source: Neural Compressor 2.x's ExhaustiveTuneStrategy, which ends after the quantized options and so cannot
    reach a target that needs an op in fp32.
    """

    accepts = ()

    def reads_accuracy(self, config: TuneConfig) -> bool:
        return False

    def stages(self) -> Iterator[Iterable[TuneConfig]]:
        for precisions in (False, True):
            for size in self.tuning_space.calib_sampling_sizes:
                yield self._all(size, precisions)

    def _all(self, size: int, precisions: bool) -> Iterator[TuneConfig]:
        """With precisions those that the first stage had are left out: repeats in a row would end the search."""
        start, off = self.start(size), self.recipes.off
        space = [c for c in self.tuning_space.capabilities if c.op.name not in off]
        first = {c.op.name: next(iter(c.modes)) for c in space}
        for config in samplers.op_wise(space, precisions=precisions):
            if not precisions or any(config[name].mode is not mode for name, mode in first.items()):
                yield start.having(config)
