"""Early abandonment changes no search: what is asked, the winner and the best are those of whole evaluations.

Scores come from random tables, a value per configuration and sample; the metrics that are bounded are the real ones.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.journal import History, Trial
from quantuner.api.spec import AccuracyCriterion
from quantuner.api.trial import Limit, TrialResult
from quantuner.engine.metrics import Bounded, Evaluation, evaluation
from quantuner.space.config import TuneConfig
from quantuner.strategy import RandomTuneStrategy, TuneStrategy, strategies, strategy_class
from quantuner.strategy.abandoning import Abandonment
from tests.unit.records import told
from tests.unit.strategy import ruled
from tests.unit.strategy.judged import ended, essence, history_of
from tests.unit.strategy.ranked import searched

SAMPLES = torch.arange(24)
LOADER = [(batch, torch.zeros(len(batch), dtype=torch.long)) for batch in torch.tensor_split(SAMPLES, 5)]
"""The label of every sample is 0."""
ABANDONING = ("basic", "conservative", "exhaustive", "hawq_v2", "mse", "mse_v2", "random", "sensitivity")
READING = ("bayesian", "tpe")
"""Those that learn from every accuracy."""


@dataclass(frozen=True)
class Table:
    """Scores of all configurations: whether a sample is right, or how far it is off."""

    seed: int
    higher_is_better: bool = True
    raising: bool = False
    """Whether one configuration in five fails in the middle of its evaluation."""

    def model(self, config: TuneConfig | None) -> Any:
        """A function of samples; None is the fp32 model."""
        generator = random.Random(f"{self.seed} {config.digest if config else 'fp32'}")
        good = 0.95 if config is None else generator.choice([0.5, 0.8, 0.9, 0.95])
        right = torch.tensor([generator.random() < good for _ in SAMPLES])
        raises_at = 11 if config is not None and self.raising and generator.random() < 0.2 else None

        def scores(samples: torch.Tensor) -> torch.Tensor:
            if raises_at is not None and raises_at in samples:
                raise ValueError("it cannot go on")
            wrong = (~right[samples]).float()
            return torch.stack([1 - wrong, wrong], 1) if self.higher_is_better else wrong * (1 + samples / 7)

        return scores


class Scored(ruled.Ruled):
    """An engine whose trials a table answers, through the engine's own evaluation."""

    table: Table
    batches: list[int]
    """Of every trial that was asked for, in order: how many were evaluated."""

    def baseline(self) -> TrialResult:
        judge = self._evaluation
        return replace(self._measured(judge(self.table.model(None))), rows=judge.rows)

    def trial(self, config: TuneConfig, limit: Limit | None = None) -> TrialResult:
        self.asked.append(config)
        self.batches.append(0)
        model = self.table.model(config)

        def counted(samples: torch.Tensor) -> Any:
            self.batches[-1] += 1
            return model(samples)

        bounded = Bounded(self._evaluation, limit) if limit else None
        try:
            accuracy = (bounded or self._evaluation)(counted)
        except ValueError as error:
            return TrialResult(accuracy=None, bound=bounded.bound if bounded else None, error=str(error))
        return replace(self._measured(accuracy), is_bound=bounded is not None and bounded.abandoned)

    def save(self, config: TuneConfig, folder: Path) -> float:
        return self._evaluation(self.table.model(config))

    @property
    def _evaluation(self) -> Evaluation:
        return evaluation(LOADER, "topk" if self.table.higher_is_better else "RMSE")


def scored(
    name: str,
    table: Table,
    *,
    early: bool = True,
    loss: float = 0.0,
    trials: int = 20,
    resume: History | None = None,
    kind: type[Scored] = Scored,
) -> TuneStrategy:
    """A strategy ready to traverse."""
    accuracy = {"criterion": "absolute", "tolerable_loss": loss, "higher_is_better": table.higher_is_better}
    conf = ruled.ordered(name, None, accuracy, {"maxTrials": trials})
    conf = replace(conf, tuning_criterion=replace(conf.tuning_criterion, early_abandonment=early))
    engine = kind.__new__(kind)  # shares what was captured and calibrated
    vars(engine).update(vars(copy.copy(ruled._engine(json.dumps(None), "rows"))))
    engine.table, engine.asked, engine.batches = table, [], []
    made: TuneStrategy = strategy_class(name)(engine, conf, resume=resume)
    return made


def trials_of(strategy: TuneStrategy) -> list[tuple[Any, ...]]:
    """What must not depend on ranks or interruptions."""
    history = history_of(strategy)
    return [(*one, t.bound, t.error, t.state) for one, t in zip(essence(history.trials), history.trials, strict=True)]


TABLES = [
    pytest.param(Table(seed, higher, raising), loss, id=f"{seed}")
    for seed, (higher, raising, loss) in enumerate(
        (higher, raising, loss) for higher in (True, False) for raising in (False, True) for loss in (-0.02, 0.0, 0.1)
    )
]


@pytest.mark.parametrize("name", [*ABANDONING, *READING, "auto"])
@pytest.mark.parametrize(("table", "loss"), TABLES)
def test_what_is_asked_the_winner_and_the_best_are_those_of_whole_evaluations(
    name: str, table: Table, loss: float
) -> None:
    whole, early = (scored(name, table, early=early, loss=loss) for early in (False, True))
    expected, found = ended(whole), ended(early)
    assert ruled.asked(early) == ruled.asked(whole)
    assert (found.outcome, found.best, found.accuracy) == (expected.outcome, expected.best, expected.accuracy)
    assert (early.winner_config, early.best_config) == (whole.winner_config, whole.best_config)
    assert (early.cur_best_acc, early.trials_count) == (whole.cur_best_acc, whole.trials_count)
    for abandoned, measured in zip(history_of(early).trials, history_of(whole).trials, strict=True):
        assert same_or_bounded(abandoned, measured, higher=table.higher_is_better)


def same_or_bounded(abandoned: Trial, measured: Trial, *, higher: bool) -> bool:
    if not abandoned.bound:
        return (abandoned.accuracy, abandoned.error) == (measured.accuracy, measured.error)
    if measured.accuracy is None:  # it failed after the batch that would have ended it
        return True
    assert abandoned.accuracy is not None
    assert not abandoned.meets
    assert not measured.meets
    return measured.accuracy <= abandoned.accuracy if higher else measured.accuracy >= abandoned.accuracy


@pytest.mark.parametrize("name", ABANDONING)
def test_batches_are_saved(name: str) -> None:
    """Of the searches that find no success; a trial that is recorded with a bound saw fewer batches than there are."""
    table, counts = Table(3), []
    for early in (False, True):
        strategy = scored(name, table, early=early, loss=-1.0)
        ended(strategy)
        assert isinstance(strategy.engine, Scored)
        counts.append(sum(strategy.engine.batches))
    assert counts[0] == len(LOADER) * strategy.trials_count
    assert counts[1] < counts[0]


@pytest.mark.parametrize("name", READING)
def test_a_strategy_that_learns_from_misses_measures_all(name: str) -> None:
    strategy = scored(name, Table(3), loss=-1.0)
    ended(strategy)
    assert not any(trial.bound for trial in history_of(strategy).trials)


def test_the_last_phase_of_auto_abandons() -> None:
    strategy = scored("auto", Table(3), loss=-1.0, trials=60)
    ended(strategy)
    bound = [trial.index for trial in history_of(strategy).trials if trial.bound]
    sensitivity = scored("sensitivity", Table(3), loss=-1.0, trials=60)
    ended(sensitivity)
    assert bound
    assert min(bound) > sensitivity.trials_count


@pytest.mark.parametrize("name", [*ABANDONING, "auto"])
@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_any_number_of_ranks_records_the_same(name: str, ranks: int) -> None:
    for seed in range(3):
        table = Table(seed, higher_is_better=seed != 1, raising=seed == 2)
        make = functools.partial(scored, name, table, loss=-1.0)
        assert trials_of(searched(make, ranks, seed)) == trials_of(searched(make, 0))


@pytest.mark.parametrize("name", ["random", "mse"])
def test_an_interrupted_search_goes_on_as_it_would_have(name: str) -> None:
    make = functools.partial(scored, name, Table(1, raising=True), loss=-1.0)
    whole = make()
    ended(whole)
    trials = history_of(whole).trials
    for told_so_far in range(1, len(trials)):
        known = History(launches=[*history_of(whole).launches], trials=trials[:told_so_far])
        resumed = make(resume=known)
        ended(resumed)
        assert trials_of(resumed) == trials_of(whole)


# --- who abandons


def test_every_strategy_is_accounted_for() -> None:
    own = {name for name in strategies() if strategy_class(name).__module__.startswith("quantuner.")}
    assert {*ABANDONING, *READING, "auto"} == own
    declared = {name for name in own if "reads_accuracy" in vars(strategy_class(name))}
    assert declared == {*ABANDONING, "auto"}


class Inherits(RandomTuneStrategy):
    """Says nothing of what it reads."""


class Declares(RandomTuneStrategy):
    def reads_accuracy(self, config: TuneConfig) -> bool:
        return False


@pytest.mark.parametrize(("cls", "may"), [(RandomTuneStrategy, True), (Inherits, False), (Declares, True)])
def test_a_subclass_reads_all_until_it_says_otherwise(cls: type[TuneStrategy], may: bool) -> None:
    known = scored("random", Table(0))
    strategy = cls(known.engine, known.tuning)
    assert strategy.may_abandon(known.start(100)) is may


class Unbounded(Scored):
    """As one that the user's own function judges."""

    def baseline(self) -> TrialResult:
        return replace(super().baseline(), rows=())


@pytest.mark.parametrize("why", ["opted out", "a time limit", "no built-in metric"])
def test_where_it_is_not_in_force(why: str) -> None:
    kind = Unbounded if why == "no built-in metric" else Scored
    strategy = scored("random", Table(3), early=why != "opted out", loss=-1.0, kind=kind)
    if why == "a time limit":
        criterion = replace(strategy.tuning.tuning_criterion, timeout_seconds=1000)
        strategy = strategy_class("random")(strategy.engine, replace(strategy.tuning, tuning_criterion=criterion))
    ended(strategy)
    assert not any(trial.bound for trial in history_of(strategy).trials)


# --- what is recorded


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12),
    st.booleans(),
    st.floats(-1, 2),
    st.randoms(use_true_random=False),
)
def test_a_record_does_not_depend_on_when_the_rank_heard_of_its_limit(
    accuracies: Sequence[float], higher: bool, loss: float, generator: random.Random
) -> None:
    criterion = AccuracyCriterion("absolute", loss, higher)
    recorded = [
        [*_recorded(accuracies, criterion, delay)]
        for delay in (lambda _: 0, lambda index: index, lambda index: generator.randint(0, index))
    ]
    assert recorded[0] == recorded[1] == recorded[2]


def _recorded(accuracies: Sequence[float], criterion: AccuracyCriterion, delay: Any) -> Iterator[TrialResult]:
    """Results as they are told, of ranks that knew the limit of so many trials before."""
    state = Abandonment(criterion, 0.5, (10,))
    limits = [state.limit]
    for index, accuracy in enumerate(accuracies):
        known = limits[index - delay(index)]
        excluded = known.excludes(accuracy)
        seen = accuracy if not excluded else math.nextafter(known.accuracy or 0.0, accuracy)  # just enough to end it
        settled = state.settled(TrialResult(accuracy=seen, is_bound=excluded))
        yield settled
        state.tell(told(index + 1, settled.accuracy, bound=settled.is_bound))
        limits.append(state.limit)


def test_the_bound_is_the_nearest_accuracy_that_is_worse_than_the_limit() -> None:
    state = Abandonment(AccuracyCriterion("absolute", 0.1), 0.9, (10,))
    limits = [state.limit.accuracy]
    for trial in (told(1, None), told(2, 0.5), told(3, math.nextafter(0.5, 0), bound=True), told(4, 0.85, meets=True)):
        state.tell(trial)
        limits.append(state.limit.accuracy)
    assert limits == [None, None, 0.5, 0.5, 0.8]
    settled = state.settled(TrialResult(accuracy=0.3, objectives={"performance": 1.0}, seconds=2.0))
    assert (settled.accuracy, settled.is_bound, settled.objectives) == (math.nextafter(0.8, 0), True, {})
    assert settled.seconds == 2.0
    assert state.settled(TrialResult(accuracy=0.8)) == TrialResult(accuracy=0.8)


@pytest.mark.parametrize(("bound", "is_bound"), [(0.4, True), (0.5, False), (None, False)])
def test_a_trial_that_failed_after_it_was_excluded_is_abandoned(bound: float | None, is_bound: bool) -> None:
    state = Abandonment(AccuracyCriterion("absolute", 0.1), 0.9, (10,), best=0.5)
    failed = TrialResult(accuracy=None, bound=bound, error="it failed")
    settled = state.settled(failed)
    assert settled.is_bound is is_bound
    assert (settled.error == "") is is_bound


def test_a_bound_that_excludes_nothing_is_an_error() -> None:
    state = Abandonment(AccuracyCriterion(), 0.9, (10,), best=0.5)
    with pytest.raises(RuntimeError, match="does not exclude"):
        state.settled(TrialResult(accuracy=0.6, is_bound=True))
