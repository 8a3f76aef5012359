"""The loop between a strategy and an executor: ask, replay what was told before, run, tell, record, end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantuner.api import names
from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import LABEL_LIMIT, Finished, History, Outcome, Record, Trial, TrialState
from quantuner.api.timestamps import utc_now
from quantuner.api.trial import TrialResult
from quantuner.distributed.executors import Executor, Told
from quantuner.space.config import TuneConfig

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy

BASELINE_DIGEST = "fp32"


class Recorder(Protocol):
    """Keeps what is told. Written by rank 0 alone."""

    history: History

    def append(self, record: Record) -> None:
        """Makes a record durable."""

    def describe_best(self, description: dict[str, Any]) -> None:
        """Keeps the full configuration of the best trial so far, before that trial is recorded."""


class MemoryRecorder:
    """Keeps a search for as long as the process lives."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.best: dict[str, Any] = {}

    def append(self, record: Record) -> None:
        self.history.apply(record)

    def describe_best(self, description: dict[str, Any]) -> None:
        self.best = description


class Search:
    """One search from its first unanswered question to its end."""

    def __init__(self, strategy: TuneStrategy, executor: Executor, recorder: Recorder) -> None:
        self.strategy = strategy
        self.executor = executor
        self.recorder = recorder
        self.configs: dict[int, TuneConfig] = {}
        """Configuration of every trial asked, by index."""
        self._last_traceback = ""

    def run(self, folder: Path) -> Finished:
        """Searches to the end, then saves, reloads and measures the best model in `folder`.

        Raises `SearchError` where no trial succeeded, the reloaded model's accuracy differs, or the history to
        resume is another search's.
        """
        self._baseline()
        outcome = self._stages()
        return self._finish(outcome, folder)

    def _baseline(self) -> None:
        known = self.recorder.history.baseline
        if known is None:
            result = self.strategy.engine.baseline()
            told = Told(names.BASELINE_TRIAL, result, rank=0, running=0)
            known = _trial(told, BASELINE_DIGEST, "fp32 baseline")
            self.recorder.append(known)
        self.strategy.baseline = TrialResult(accuracy=known.accuracy, seconds=known.seconds)

    def _stages(self) -> Outcome:
        for stage in self.strategy.stages():
            fresh = self._number(stage)
            outcome = self._replay(fresh) or self._execute(fresh)
            if outcome is not None:
                return outcome
        return Outcome.EXHAUSTED

    def _number(self, stage: Sequence[TuneConfig]) -> list[int]:
        """Indices of the stage's configurations that were not asked before, as far as the limit allows."""
        limit = self._limit()
        asked = {config.digest for config in self.configs.values()}
        indices = []
        for config in stage:
            if config.digest not in asked and len(self.configs) < limit:
                asked.add(config.digest)
                index = len(self.configs) + 1
                self.configs[index] = config
                indices.append(index)
        return indices

    def _replay(self, indices: list[int]) -> Outcome | None:
        """Tells the strategy what the journal knows already; only after the last told trial the search may end."""
        told = self.recorder.history.trials
        for index in indices:
            if index >= len(told):
                return None
            trial, config = told[index], self.configs[index]
            if trial.digest != config.digest:
                raise SearchError(
                    Failure.JOURNAL_MISMATCH,
                    f"the journal is of another search: trial {index} was configuration {trial.digest}, and is now "
                    f"{config.digest}; start a new search",
                )
            self.strategy.tell(config, trial)
            if index == len(told) - 1:
                return self._decide()
        return None

    def _execute(self, indices: list[int]) -> Outcome | None:
        remaining = [i for i in indices if i >= len(self.recorder.history.trials)]
        if not remaining:
            return self._exhausted_by_limit()
        decided: list[Outcome] = []

        def tell(told: Told) -> bool:
            outcome = self._tell(told)
            if outcome is not None:
                decided.append(outcome)
            return outcome is not None

        self.executor.run(remaining[0], [self.configs[i].plain() for i in remaining], tell)
        return decided[0] if decided else None

    def _exhausted_by_limit(self) -> Outcome | None:
        return Outcome.MAX_TRIALS if self.strategy.trials_count >= self._limit() else None

    def _limit(self) -> int:
        """maxTrials; one that was lowered while the search was away does not undo what was told."""
        return max(self.strategy.conf.tuning_criterion.max_trials, len(self.recorder.history.tried))

    def _tell(self, told: Told) -> Outcome | None:
        config = self.configs[told.index]
        meets = self.strategy.meet_acc_req(told.result)
        label = config.label(self.strategy.engine.types, LABEL_LIMIT)
        trial = _trial(told, config.digest, label, meets=meets, elapsed=self.strategy.elapsed())
        self._describe_if_best(trial, config)
        self.recorder.append(trial)
        self._last_traceback = told.result.traceback or self._last_traceback
        self.strategy.tell(config, trial)
        return self._decide()

    def _decide(self) -> Outcome | None:
        return self.strategy.stop(self.strategy.conf.tuning_criterion.timeout_seconds, self.strategy.trials_count)

    def _describe_if_best(self, trial: Trial, config: TuneConfig) -> None:
        """Before the trial is recorded, so that a reader of the journal finds the best configuration there."""
        after = History(trials=[*self.recorder.history.trials, trial])
        best = after.best(self.strategy.conf.accuracy_criterion.higher_is_better)
        if best is trial:
            self.recorder.describe_best(
                {
                    "trial": trial.index,
                    "accuracy": trial.accuracy,
                    "summary": config.summary(self.strategy.engine.types),
                    "config": config.plain(),
                }
            )

    def _finish(self, outcome: Outcome, folder: Path) -> Finished:
        history = self.recorder.history
        best = history.best(self.strategy.conf.accuracy_criterion.higher_is_better)
        if best is None:
            failed = history.tried
            last = failed[-1].error if failed else "no configuration was tried"
            message = f"all {len(failed)} trials failed; the last one: {last}"
            raise SearchError(Failure.ALL_TRIALS_FAILED, message, self._last_traceback)
        accuracy = self._save(self.configs[best.index], folder)
        if accuracy != best.accuracy:
            raise SearchError(
                Failure.VERIFICATION_FAILED,
                f"trial {best.index} had accuracy {best.accuracy!r}, but its saved and reloaded model has "
                f"{accuracy!r}; make eval_func deterministic (fixed data, no sampling), and give all "
                "pods nodes of one CPU kind (template.nodeSelector)",
            )
        return Finished(
            outcome=outcome,
            best=best.index,
            accuracy=accuracy,
            artifact=self.strategy.artifact_name or str(folder),
            time=utc_now(),
        )

    def _save(self, config: TuneConfig, folder: Path) -> float:
        try:
            return self.strategy.engine.save(config, folder)
        except OSError as error:
            raise SearchError(
                Failure.WRITE_FAILED,
                f"the best model cannot be kept in {folder}: {error}; "
                "give the volume space and uid 1000 the right to write",
            ) from error


def _trial(told: Told, digest: str, label: str, *, meets: bool = False, elapsed: float = 0.0) -> Trial:
    result = told.result
    return Trial(
        index=told.index,
        digest=digest,
        label=label,
        state=TrialState.FAILED if result.accuracy is None else TrialState.COMPLETE,
        accuracy=result.accuracy,
        objectives={name: _rounded(value) for name, value in result.objectives.items()},
        seconds=_rounded(result.seconds),
        rank=told.rank,
        error=result.error,
        meets=meets,
        running=told.running,
        elapsed=_rounded(elapsed),
    )


def _rounded(value: float) -> float:
    """A measured duration or size to a millionth: a journal line stays short."""
    return round(value, 6)
