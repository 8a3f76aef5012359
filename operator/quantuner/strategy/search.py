"""The loop between a strategy and an executor: ask, replay what was told before, run, tell, record, end."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantuner.api import names
from quantuner.api.conditions import Failure
from quantuner.api.errors import ArtifactError, SearchError
from quantuner.api.journal import LABEL_LIMIT, Finished, History, Outcome, Record, Trial, TrialState
from quantuner.api.selection import choose
from quantuner.api.timeline import Kind
from quantuner.api.timestamps import utc_now
from quantuner.api.trial import TrialResult
from quantuner.distributed.executors import Executor, Told
from quantuner.distributed.timeline import observed
from quantuner.engine.entrypoint import users_code
from quantuner.space.config import TuneConfig
from quantuner.strategy.abandoning import Abandonment, Payloads, abandonment
from quantuner.strategy.objectives import Result

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy

logger = logging.getLogger(__name__)

BASELINE_DIGEST = "fp32"
ACCURACY = "accuracy"  # the objective that is compared as closely as the accuracy itself
REPEATS_LIMIT = 1000  # repeats in a row, of stages or in one, after which a strategy is taken to have no more


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
        self.criterion = strategy.tuning.tuning_criterion
        self.configs: dict[int, TuneConfig] = {}
        """Configuration of every trial asked, by index."""
        self.abandonment: Abandonment | None = None
        """Known once the baseline is told; None where no trial is abandoned."""
        self._asked: set[str] = set()
        self._described: int | None = None
        self._last_traceback = ""

    def run(self, folder: Path) -> Finished:
        """Searches to the end, then saves, reloads and measures the best model in `folder`.

        Raises `SearchError` where no trial succeeded, the reloaded model's accuracy differs, or the history to
        resume is another search's.
        """
        self._baseline()
        untried = not self.recorder.history.tried
        late = untried and self.strategy.is_late(self.criterion.timeout_seconds)  # the baseline alone took that long
        return self._finish(Outcome.TIMEOUT if late else self._stages(), folder)

    def _baseline(self) -> None:
        known = self.recorder.history.baseline
        if known is None:
            told = Told(names.BASELINE_TRIAL, self.strategy.head_start.baseline(), rank=0, running=0)
            size, elapsed = self.strategy.engine.size(TuneConfig()), _rounded(self.strategy.elapsed())
            known = _trial(told, BASELINE_DIGEST, "fp32 baseline", size=size, elapsed=elapsed)
            self.recorder.append(known)
        self.abandonment = abandonment(self.strategy, known)
        self.strategy.state.begin(
            TrialResult(accuracy=known.accuracy, objectives=known.objectives, seconds=known.seconds)
        )
        self.strategy.show_baseline_info()

    def _stages(self) -> Outcome:
        repeats = 0
        stages = iter(self.strategy.asked())
        while (fresh := self._next(stages)) is not None:
            repeats = 0 if fresh else repeats + 1
            outcome = self._replay(fresh) or self._execute(fresh)
            if outcome is not None:
                return outcome
            if repeats > REPEATS_LIMIT:
                logger.warning("the strategy asked %d times for configurations that were told; it ends here", repeats)
                break
        return Outcome.EXHAUSTED if self.strategy.winner_config is None else Outcome.TARGET_MET

    def _next(self, stages: Iterator[Iterable[TuneConfig]]) -> list[int] | None:
        """Indices of the next stage's new configurations; None where the strategy has ended."""
        with users_code(Failure.STRATEGY_RAISED, type(self.strategy).__name__):
            stage = next(stages, None)
            return None if stage is None else self._number(stage)

    def _number(self, stage: Iterable[TuneConfig]) -> list[int]:
        """Indices of the stage's configurations that were not asked before, as far as the limit allows."""
        limit, repeats = self._limit(), 0
        indices = []
        for config in stage:
            if config.digest in self._asked:
                if self.strategy.has_told(config):
                    self.strategy.state.recall(config)
                repeats += 1
                if repeats > REPEATS_LIMIT:
                    break  # and may repeat itself for ever
                continue
            repeats = 0
            if len(self.configs) >= limit:
                break  # a lazy stage may be endless
            self._asked.add(config.digest)
            index = len(self.configs) + 1
            self.configs[index] = config
            indices.append(index)
        return indices

    def _replay(self, indices: list[int]) -> Outcome | None:
        """Tells the strategy what the journal knows already; only after the last told trial the search may end.

        It is asked after each all the same, since a stop rule of the user's may remember what it saw.
        """
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
            self._take(config, trial)
            outcome = self._decide()
            if index == len(told) - 1:
                return outcome
        return None

    def _execute(self, indices: list[int]) -> Outcome | None:
        remaining = [i for i in indices if i >= len(self.recorder.history.trials)]
        if not remaining:
            return self._exhausted_by_limit()
        if self.strategy.is_late(self.criterion.timeout_seconds):  # the strategy itself took what was left
            return Outcome.TIMEOUT
        decided: list[Outcome] = []

        def tell(told: Told) -> bool:
            outcome = self._tell(told)
            if outcome is not None:
                decided.append(outcome)
            return outcome is not None

        self.strategy.answered.expect({index: self.configs[index].digest for index in remaining})
        self.executor.run(remaining[0], Payloads([self.configs[i] for i in remaining], self._payload), tell)
        return decided[0] if decided else None

    def _exhausted_by_limit(self) -> Outcome | None:
        return Outcome.MAX_TRIALS if self.strategy.trials_count >= self._limit() else None

    def _limit(self) -> int:
        """maxTrials; one that was lowered while the search was away does not undo what was told."""
        return max(self.criterion.max_trials, len(self.recorder.history.tried))

    def _tell(self, told: Told) -> Outcome | None:
        config, engine = self.configs[told.index], self.strategy.engine
        told = self._settled(told)
        result = self.strategy.objectives.result(told.result)
        trial = _trial(
            told,
            config.digest,
            config.label(engine.types, LABEL_LIMIT),
            meets=self._meets(result) if told.result.accuracy is not None else False,
            elapsed=_rounded(self.strategy.elapsed()),
            cost=_rounded(engine.cost(config)),
            size=_rounded(engine.size(config)),
        )
        self._describe(self._best(trial))  # before the trial, so that a reader of the journal finds it there
        self.recorder.append(trial)
        self._last_traceback = told.result.traceback or self._last_traceback
        self._take(config, trial)
        return self._decide()

    def _meets(self, result: Result) -> bool:
        with users_code(Failure.STRATEGY_RAISED, type(self.strategy).__name__):
            return bool(self.strategy.meet_acc_req(result))

    def _take(self, config: TuneConfig, trial: Trial) -> None:
        """Takes a told trial, live or from the journal."""
        self.strategy.state.tell(config, trial)
        with users_code(Failure.STRATEGY_RAISED, type(self.strategy).__name__):
            self.strategy.keep_if_best(config)
        if self.abandonment is not None:
            self.abandonment.tell(trial)

    def _payload(self, config: TuneConfig) -> dict[str, Any]:
        """What a rank is given now to evaluate `config`."""
        body = config.plain()
        if self.abandonment is not None and self.strategy.may_abandon(config):
            body["limit"] = self.abandonment.limit.plain()
        return body

    def _settled(self, told: Told) -> Told:
        """`told` as it is recorded, whatever the rank knew when it began."""
        if self.abandonment is None or not self.strategy.may_abandon(self.configs[told.index]):
            return told
        return dataclasses.replace(told, result=self.abandonment.settled(told.result))

    def _decide(self) -> Outcome | None:
        timeout = self.criterion.timeout_seconds
        with users_code(Failure.STRATEGY_RAISED, type(self.strategy).__name__):
            stopped = self.strategy.stop(timeout, self.strategy.trials_count)
            return self.strategy.outcome(timeout) if stopped else None

    def _best(self, *more: Trial) -> Trial | None:
        trials = [*self.recorder.history.trials, *more]
        accuracy = self.strategy.tuning.accuracy_criterion
        return choose(trials, self.strategy.selection, self.criterion.objectives, accuracy)

    def _describe(self, best: Trial | None) -> None:
        if best is not None and best.index != self._described:
            config = self.configs[best.index]
            self.recorder.describe_best(
                {
                    "trial": best.index,
                    "accuracy": best.accuracy,
                    "summary": config.summary(self.strategy.engine.types),
                    "config": config.plain(),
                }
            )
            self._described = best.index

    def _finish(self, outcome: Outcome, folder: Path) -> Finished:
        best = self._best()
        if best is None:
            return self._without_best(outcome)
        self._describe(best)  # a search that was resumed at its end has told nothing since
        config = self.configs[best.index]
        if best.meets:
            self.strategy.state.win(config)
        with observed(self.strategy.observer, Kind.VERIFY, best.index):
            accuracy = self._save(config, folder)
        if accuracy != best.accuracy:
            raise SearchError(
                Failure.VERIFICATION_FAILED,
                f"trial {best.index} had accuracy {best.accuracy!r}, but its saved and reloaded model has "
                f"{accuracy!r}; make eval_func deterministic (fixed data, no sampling), leave torch's "
                "global settings alone, and give all pods nodes of one CPU kind (template.nodeSelector)",
            )
        return Finished(
            outcome=outcome,
            best=best.index,
            accuracy=accuracy,
            artifact=self.strategy.artifact_name or str(folder),
            time=utc_now(),
        )

    def _without_best(self, outcome: Outcome) -> Finished:
        failed = self.recorder.history.tried
        if not failed and outcome is Outcome.TIMEOUT:  # the baseline alone took that long
            return Finished(outcome=outcome, best=None, accuracy=None, artifact="", time=utc_now())
        if not failed:
            message = f"{type(self.strategy).__name__} asked for no configuration; let it yield one, or take another"
            raise SearchError(Failure.STRATEGY_RAISED, message)
        message = f"all {len(failed)} trials failed; the last one: {failed[-1].error}"
        raise SearchError(Failure.ALL_TRIALS_FAILED, message, self._last_traceback)

    def _save(self, config: TuneConfig, folder: Path) -> float:
        try:
            return self.strategy.engine.save(config, folder)
        except OSError as error:
            raise SearchError(
                Failure.WRITE_FAILED,
                f"the best model cannot be kept in {folder}: {error}; "
                "give the volume space and uid 1000 the right to write",
            ) from error
        except ArtifactError as error:  # another launch would find the same model and end here again
            raise SearchError(Failure.MODEL_NOT_CAPTURABLE, f"the best model cannot be kept: {error}") from error


def _trial(told: Told, digest: str, label: str, **more: Any) -> Trial:
    result = told.result
    return Trial(
        index=told.index,
        digest=digest,
        label=label,
        state=TrialState.FAILED if result.accuracy is None else TrialState.COMPLETE,
        accuracy=result.accuracy,
        bound=result.is_bound,
        rows=result.rows,
        objectives={name: value if name == ACCURACY else _rounded(value) for name, value in result.objectives.items()},
        seconds=_rounded(result.seconds),
        rank=told.rank,
        error=result.error,
        running=told.running,
        **more,
    )


def _rounded(value: float) -> float:
    """A measured duration or size to a millionth: a journal line stays short."""
    return round(value, 6)
