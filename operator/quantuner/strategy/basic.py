"""The basic strategy: the default first, then wider and deeper until accuracy is kept.

Source: the stages and their orders are those of Neural Compressor 2.x's BasicTuneStrategy
(default configuration, op-type-wise, static to dynamic, fallback one by one, accumulated fallback).
"""

from collections.abc import Iterator

from quantuner.space import samplers
from quantuner.space.config import TuneConfig
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.registry import strategy_registry


@strategy_registry
class BasicTuneStrategy(TuneStrategy):
    """Op types first, then ops fall back to fp32: each alone from the output side, then together, best first."""

    def stages(self) -> Iterator[list[TuneConfig]]:
        yield list(samplers.op_type_wise(self.tuning_space))
        if self.conf.quantization.approach == "auto":
            yield [samplers.dynamic_where_possible(self.tuning_space, self.cur_best_tuning_cfg)]
        base = self.cur_best_tuning_cfg
        names = samplers.fallback_candidates(self.tuning_space, base)
        alone = dict(zip(names, samplers.one_by_one(base, names), strict=True))
        yield list(alone.values())
        accuracies = {name: acc for name, config in alone.items() if (acc := self.accuracy_of(config)) is not None}
        higher = self.conf.accuracy_criterion.higher_is_better
        yield list(samplers.accumulated(base, accuracies, higher_is_better=higher))
