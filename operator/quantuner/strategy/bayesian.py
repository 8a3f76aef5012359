"""The bayesian strategy: a Gaussian process over the ops' configurations proposes the next ones."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from optuna.samplers import GPSampler

from quantuner.space.config import TuneConfig
from quantuner.strategy import arguments
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.registry import strategy_registry
from quantuner.strategy.studies import Proposals, calm


@strategy_registry
class BayesianTuneStrategy(TuneStrategy):
    """Maximizes accuracy (minimizes it where lower is better) with Optuna's GPSampler.

    Source: Neural Compressor 2.x's BayesianTuneStrategy. There lower-is-better metrics are maximized too, and ops
    never fall back; here fp32 is one of each op's choices.
    """

    accepts = ("seed", "batch_size")
    checks: ClassVar[Mapping[str, arguments.Check]] = {"seed": arguments.seed, "batch_size": arguments.whole}

    def stages(self) -> Iterator[list[TuneConfig]]:
        with calm():
            sampler = GPSampler(seed=self.seed, deterministic_objective=True)
        yield from Proposals(self, sampler, self._loss).stages()

    def _loss(self, config: TuneConfig) -> float | None:
        accuracy = self.accuracy_of(config)
        higher = self.tuning.accuracy_criterion.higher_is_better
        return -accuracy if accuracy is not None and higher else accuracy
