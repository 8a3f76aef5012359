"""What a search knows so far. Phases of one search share it."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantuner.api.journal import Trial
from quantuner.api.spec import AccuracyCriterion
from quantuner.api.trial import TrialResult
from quantuner.space.config import TuneConfig
from quantuner.strategy.objectives import Objectives, Result


@dataclass
class State:
    """Told results and what follows from them. Only the methods that take something change them."""

    objectives: Objectives
    criterion: AccuracyCriterion
    best_config: TuneConfig
    """The most accurate configuration told so far, the later one at a tie; before the first, the default one."""
    cur_best_acc: float
    re_quant: bool
    """While true, a success does not end the search."""
    has_refined: bool = False
    """Whether a strategy ever set `re_quant`."""
    winner_config: TuneConfig | None = None
    """Of `best_tune_result`."""
    best_tune_result: Result | None = None
    """The last one that met the criterion with no objective worse than the one before it; under `re_quant` the last."""
    last_config: TuneConfig | None = None
    last_tune_result: Result | None = None
    trials_count: int = 0
    metric_met_point: int = 0
    """Number of the trial that first met the criterion; 0 before."""
    told: dict[str, Trial] = field(default_factory=dict)
    """By the configuration's digest."""
    configs: dict[str, TuneConfig] = field(default_factory=dict)
    """Those that were told, by digest."""

    def begin_with(self, default: TuneConfig) -> None:
        """Takes another default configuration, as long as nothing is told."""
        if not self.trials_count:
            self.best_config = default

    def begin(self, baseline: TrialResult) -> None:
        """Takes the fp32 model's result, before the first stage is asked."""
        self.objectives.baseline = self.objectives.result(baseline)

    def tell(self, config: TuneConfig, trial: Trial) -> None:
        """Takes a told trial, live or from the journal. Whether it is the best, the strategy says by `keep_if_best`."""
        self.trials_count += 1
        self.told[config.digest], self.configs[config.digest] = trial, config
        self.recall(config)
        if trial.meets and (self.re_quant or self.objectives.is_no_worse(self.best_tune_result)):
            self.metric_met_point = self.metric_met_point or self.trials_count
            self.best_tune_result, self.winner_config = self.last_tune_result, config

    def recall(self, config: TuneConfig) -> None:
        """Makes a told configuration the last one: a strategy that asks again is answered from memory."""
        self.last_config = config
        self.last_tune_result = self.objectives.val = self._result(config)

    def win(self, config: TuneConfig) -> None:
        """Makes a told configuration the winner, which another rule may have chosen than `tell`'s."""
        self.winner_config, self.best_tune_result = config, self._result(config)

    def _result(self, config: TuneConfig) -> Result:
        trial = self.told[config.digest]
        objectives = dict(trial.objectives)
        return self.objectives.result(TrialResult(accuracy=trial.accuracy, is_bound=trial.bound, objectives=objectives))

    def keep_if_best(self, config: TuneConfig) -> None:
        """Compares the last result with the best so far; a tie goes to the later configuration."""
        result = self.last_tune_result
        failed = result is None or result.accuracy == self.objectives.worst
        if result is not None and not failed and not self.criterion.better(self.cur_best_acc, than=result.accuracy):
            self.cur_best_acc, self.best_config = result.accuracy, config
