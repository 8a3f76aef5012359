"""What rank 0 does before it meets the others: each step once, and nothing recorded before the ranks were compared."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import Outcome
from quantuner.api.timeline import Kind
from quantuner.distributed.communicator import Communicator, Solo
from quantuner.engine.engine import Engine
from quantuner.strategy import TuneStrategy
from tests.unit.distributed.test_spans import Seen
from tests.unit.engine.models import Net, engine_of, seeded
from tests.unit.strategy.judged import Judge, closeness, essence, history_of, searching
from tests.unit.strategy.ranked import on_ranks, shared

LIMITS = {"maxTrials": 2}


def set_up(strategies: list[TuneStrategy]) -> list[Any]:
    return on_ranks(len(strategies), lambda comm: strategies[comm.rank].share_setup(comm))


def test_rank_0_alone_measures_the_baseline_and_records_it_when_the_search_begins(tmp_path: Path) -> None:
    judges = [Judge(), Judge()]
    made = [searching(shared(engine_of(seeded(Net), eval_func=j)), tmp_path, limits=LIMITS) for j in judges]
    assert set_up(made) == [None, None]
    assert [judge.calls for judge in judges] == [1, 0]
    assert history_of(made[0]).trials == []
    made[0].traverse()
    assert [trial.index for trial in history_of(made[0]).trials] == [0, 1, 2]
    assert judges[0].calls == 1 + 2 + 1


def test_ranks_that_differ_leave_no_record(tmp_path: Path) -> None:
    models = [seeded(Net), seeded(Net)]
    with torch.no_grad():
        next(models[1].parameters()).add_(1)
    made = [searching(shared(engine_of(model)), tmp_path, limits=LIMITS) for model in models]
    answers = set_up(made)
    assert [answer.reason for answer in answers] == [Failure.RANKS_DIFFER] * 2
    assert not history_of(made[0]).launches
    assert not history_of(made[0]).trials


def test_a_baseline_that_cannot_be_measured_is_every_ranks_error(tmp_path: Path) -> None:
    def unable(_: Any) -> float:
        raise ValueError("no labels")

    made = [searching(shared(engine_of(seeded(Net), eval_func=unable)), tmp_path, limits=LIMITS) for _ in range(3)]
    answers = set_up(made)
    assert all(isinstance(answer, SearchError) for answer in answers)
    assert {(a.reason, a.message.endswith("ValueError: no labels")) for a in answers} == {
        (Failure.EVALUATION_FAILED, True)
    }


def test_a_recorded_baseline_is_not_measured_again(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    whole = searching(engine, tmp_path, limits=LIMITS)
    whole.traverse()
    history = history_of(whole)
    history.end = None
    del history.trials[1:]
    judge.calls = 0
    resumed = searching(engine, tmp_path, limits=LIMITS, resume=history)
    resumed.share_setup(Solo())
    assert judge.calls == 0
    resumed.traverse()
    assert judge.calls == 2 + 1


def test_a_second_search_of_one_strategy_measures_its_own(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, limits=LIMITS)
    strategy.comm = Solo()
    strategy.distributed_traverse()
    first = essence(history_of(strategy).trials)
    strategy.recorder = searching(engine, tmp_path).recorder
    judge.calls = 0
    strategy.distributed_traverse()
    assert judge.calls == 1 + 2 + 1
    assert essence(history_of(strategy).trials) == first


def test_what_the_baseline_takes_is_time_of_searching(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    never = threading.Event()

    def rule(model: Any) -> float:
        if judge.calls == 1:
            never.wait(1)
        return closeness(model)

    judge.rule = rule
    strategy = searching(engine, tmp_path, limits={"timeoutSeconds": 1})
    strategy.comm = Solo()
    finished = strategy.distributed_traverse()
    assert finished is not None
    assert (finished.outcome, finished.best, len(history_of(strategy).trials)) == (Outcome.TIMEOUT, None, 1)
    assert history_of(strategy).trials[0].elapsed >= 1


@pytest.mark.parametrize("ahead", [True, False])
def test_an_observer_sees_calibration_and_baseline_once_each(engine: Engine, tmp_path: Path, *, ahead: bool) -> None:
    strategy, seen = searching(engine, tmp_path, limits=LIMITS), Seen()
    strategy.observer = seen
    comm: Communicator = Solo()
    if ahead:
        strategy.head_start.calibrate()
        strategy.head_start.measure()
    strategy.share_setup(comm)
    strategy.traverse()
    kinds = [span.kind for span in seen.spans]
    assert kinds[:2] == [Kind.SETUP, Kind.BASELINE]
    assert kinds.count(Kind.BASELINE) == 1
