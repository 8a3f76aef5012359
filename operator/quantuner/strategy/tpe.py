"""The tpe strategy: a tree-structured Parzen estimator trades accuracy against modelled latency."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from optuna.samplers import TPESampler

from quantuner.api.spec import AccuracyCriterion
from quantuner.space.config import TuneConfig
from quantuner.strategy import arguments
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.registry import strategy_registry
from quantuner.strategy.studies import Proposals, calm

STARTUP_TRIALS = 10
PENALTY = 80.0  # of a configuration that misses the criterion
RANGE = 10.0  # that a loss of 0 to 1 % and a speed-up of 1 to 2 are scaled to
WORST = 100.0  # loss relative to the baseline: the exponential of a perplexity's could leave the range of floats


def _latency_term(speedup: float) -> float:
    return math.log((1 / (1000 * speedup)) ** 8)


@dataclass(frozen=True)
class Loss:
    """What the estimator minimizes. Source: the loss of Neural Compressor 2.x's TpeTuneStrategy."""

    criterion: AccuracyCriterion
    accuracy_weight: float = 1.0
    latency_weight: float = 1.0

    def __call__(self, accuracy: float, baseline: float, cost: float) -> float:
        """`cost` is latency relative to fp32, so 1 / cost the speed-up."""
        drop = baseline - accuracy if self.criterion.higher_is_better else accuracy - baseline
        lost = drop / abs(baseline) if baseline else drop
        latency = RANGE / (_latency_term(1) - _latency_term(2)) * (_latency_term(1 / cost) - _latency_term(2))
        loss = self.latency_weight * latency
        if not self.criterion.meets(accuracy, baseline):
            scale = RANGE / (math.exp(0.01) - math.exp(0))
            loss += self.accuracy_weight * scale * (math.exp(min(lost, WORST)) - math.exp(0)) + PENALTY
        return loss


@strategy_registry
class TPETuneStrategy(TuneStrategy):
    """Minimizes a loss of accuracy and speed with Optuna's TPESampler.

    `strategy_kwargs.accuracy_weight` and `latency_weight` weigh the two. Source: Neural Compressor 2.x's
    TpeTuneStrategy, which measured latency; here it is modelled, so that the search is the same on any machine.
    """

    accepts = ("seed", "batch_size", "accuracy_weight", "latency_weight")
    checks: ClassVar[Mapping[str, arguments.Check]] = {
        "seed": arguments.seed,
        "batch_size": arguments.whole,
        "accuracy_weight": arguments.weight,
        "latency_weight": arguments.weight,
    }

    def stages(self) -> Iterator[list[TuneConfig]]:
        with calm():
            sampler = TPESampler(n_startup_trials=STARTUP_TRIALS, seed=self.seed)
        yield from Proposals(self, sampler, self._loss).stages()

    def _loss(self, config: TuneConfig) -> float | None:
        accuracy, baseline = self.accuracy_of(config), self.baseline
        if accuracy is None or baseline is None:
            return None
        given = self.tuning.tuning_criterion.strategy_kwargs
        weights = {key: float(given[key]) for key in ("accuracy_weight", "latency_weight") if key in given}
        loss = Loss(self.tuning.accuracy_criterion, **weights)
        return loss(accuracy, baseline.accuracy, self.engine.cost(config))
