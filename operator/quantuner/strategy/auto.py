"""The auto strategy (quantization level auto): the default configuration, then the strategies that deserve it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from quantuner.space.config import TuneConfig
from quantuner.strategy import arguments
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.registry import strategy_class, strategy_registry

PHASES = ("sensitivity", "basic")


@strategy_registry
class AutoTuneStrategy(TuneStrategy):
    """The default configuration, then one phase after the other on the same search; the first that succeeds ends it.

    `basic` follows `sensitivity` where no set of ops in fp32 meets the criterion, or a time limit is set. Source:
    Neural Compressor 2.x's AutoTuneStrategy, whose phases after the default configuration are conservative and basic.
    """

    accepts = ("metric",)
    checks: ClassVar[Mapping[str, arguments.Check]] = {"metric": arguments.distance}
    refines = True
    _last: TuneStrategy | None = None

    def reads_accuracy(self, config: TuneConfig) -> bool:
        """The last phase meets configurations again that earlier ones asked, and reads what it reads."""
        return self._last is None or self._last.reads_accuracy(config)

    def stages(self) -> Iterator[Iterable[TuneConfig]]:
        self.re_quant = False  # nothing is cheaper than the default configuration
        yield [self.start(self.tuning_space.calib_sampling_sizes[0])]
        for name in PHASES:
            phase = self._phase(strategy_class(name))
            phase.state, phase.recorder = self.state, self.recorder
            self.engine.algorithms = self
            self.re_quant = phase.refines
            self._last = phase if name == PHASES[-1] else None
            yield from phase.asked()
            if self.winner_config is not None and not self.tuning.tuning_criterion.timeout_seconds:
                return

    def _phase(self, cls: type[TuneStrategy]) -> TuneStrategy:
        """A strategy on this one's engine, with those of its arguments that it reads."""
        criterion = self.tuning.tuning_criterion
        given = {key: value for key, value in criterion.strategy_kwargs.items() if key in (cls.accepts or ())}
        tuning = replace(self.tuning, tuning_criterion=replace(criterion, strategy_kwargs=given))
        phase = cls(
            self.engine,
            tuning,
            q_dataloader=self.calib_dataloader,
            q_func=self.q_func,
            eval_dataloader=self.eval_dataloader,
            eval_func=self.eval_func,
            q_hooks=self.q_hooks,
            eval_metric=self.eval_metric,
        )
        phase.tuning_space, phase.recipes = self.tuning_space, self.recipes  # which set_tuning_space may have changed
        return phase
