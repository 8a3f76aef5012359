"""The basic strategy: the default first, then wider and deeper until accuracy is kept.

Source: the stages and their orders are those of Neural Compressor 2.x's BasicTuneStrategy: alpha list, op-type-wise
with all recipes after the first, static to dynamic, recipes one by one, fallback by block, one by one and accumulated.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from quantuner.space import samplers
from quantuner.space.capability import PRECISIONS, Mode
from quantuner.space.config import TuneConfig
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.registry import strategy_registry

Stages = Iterator[list[TuneConfig]]


@strategy_registry
class BasicTuneStrategy(TuneStrategy):
    """Op types first, then ops fall back: by block, each alone from the output side, then together, best first."""

    accepts: ClassVar[tuple[str, ...] | None] = ()

    def reads_accuracy(self, config: TuneConfig) -> bool:
        """Those that ops alone at high precision give rank them; an earlier stage may have asked for the same."""
        return self.has_fallen(config)

    def stages(self) -> Stages:
        for number, size in enumerate(self.tuning_space.calib_sampling_sizes):
            yield from self._smooth_quant_alphas(size)
            yield self.op_type_wise(size, with_recipes=number == 0)
            yield from self.static_to_dynamic(size)
            yield self.with_each_recipe(self.best_with(size))
            yield from self._fallback(self.best_with(size))

    def best_with(self, size: int) -> TuneConfig:
        """The best so far, calibrated with `size` samples: each size is searched as a whole."""
        return self.best_config.calibrated_with(size)

    def _smooth_quant_alphas(self, size: int) -> Stages:
        start = self.start(size)
        yield [self.recipes.with_alpha(start, alpha) for alpha in self.recipes.alphas]

    def op_type_wise(self, size: int, *, with_recipes: bool = False) -> list[TuneConfig]:
        """The product over op types; after its first configuration all tuned recipes on that one."""
        recipe = self.best_config.recipes
        first, *others = [
            self.recipes.keep(config.calibrated_with(size).with_recipes(recipe))
            for config in samplers.op_type_wise(self.tuning_space.capabilities)
        ]
        recipes = [self.with_all_recipes(first)] if with_recipes else []
        return [first, *(config for config in recipes if config != first), *others]

    def static_to_dynamic(self, size: int) -> Stages:
        """The best so far with every op that can be either in dynamic mode."""
        if self.tuning.quantization.approach == "auto":
            dynamic = samplers.dynamic_where_possible(self.tuning_space.capabilities, self.best_with(size))
            yield [self.recipes.keep(dynamic)]

    def _fallback(self, base: TuneConfig) -> Stages:
        for precision in PRECISIONS:
            names = samplers.fallback_candidates(self.tuning_space.capabilities, base, precision)
            yield list(samplers.block_wise(base, samplers.blocks_of(names), precision, accumulate=True))
            yield from self.one_by_one_then_together(base, names, precision)

    def one_by_one_then_together(self, base: TuneConfig, names: list[str], precision: Mode) -> Stages:
        """Each op alone at `precision`, in the order given; then together, the most accurate first."""
        alone = dict(zip(names, samplers.one_by_one(base, names, precision), strict=True))
        yield list(alone.values())
        higher = self.tuning.accuracy_criterion.higher_is_better
        yield list(samplers.accumulated(base, self._accuracies(alone), higher_is_better=higher, mode=precision))

    def _accuracies(self, alone: Mapping[str, TuneConfig]) -> dict[str, float]:
        """Those that succeeded; a search that reached its limit asks for none of the rest."""
        told = {name: self.accuracy_of(config) for name, config in alone.items() if self.has_told(config)}
        return {name: accuracy for name, accuracy in told.items() if accuracy is not None}
