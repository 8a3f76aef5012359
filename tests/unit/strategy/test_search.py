"""The loop of a search: limits, resuming, ranks, records, and ends that are failures."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import ArtifactError, SearchError
from quantuner.api.journal import Finished, History, Outcome, Record, Selection, Trial
from quantuner.api.selection import choose
from quantuner.api.spec import AccuracyCriterion
from quantuner.api.trial import TrialResult
from quantuner.distributed.answered import Answered
from quantuner.engine.engine import Engine
from quantuner.space.config import FP32, TuneConfig
from quantuner.strategy import TuneStrategy
from quantuner.strategy.objectives import Result
from tests.unit.distributed.in_memory import World
from tests.unit.engine.models import Net, images, seeded
from tests.unit.records import told, tuning
from tests.unit.strategy.judged import (
    WHOLE,
    Judge,
    closeness,
    ended,
    essence,
    history_of,
    is_quantized,
    searching,
)
from tests.unit.strategy.ranked import SECONDS, LadderTuneStrategy, shared


@pytest.fixture(scope="session")
def whole(static_engine: tuple[Engine, Judge], tmp_path_factory: pytest.TempPathFactory) -> tuple[History, Finished]:
    """A search that was never interrupted."""
    strategy = searching(static_engine[0], tmp_path_factory.mktemp("whole"))
    return history_of(strategy), ended(strategy)


def until(history: History, trials: int, **changes: Any) -> History:
    """The record of a search that was interrupted after the baseline and so many trials."""
    return History(
        launches=[*history.launches], trials=[Trial(**{**vars(t), **changes}) for t in history.trials[: trials + 1]]
    )


# --- resuming


@pytest.mark.parametrize("told_before", [0, 7, 17, 19])
def test_a_resumed_search_repeats_no_told_trial_and_ends_the_same(
    engine: Engine, judge: Judge, tmp_path: Path, whole: tuple[History, Finished], told_before: int
) -> None:
    uninterrupted, end = whole
    strategy = searching(engine, tmp_path, resume=until(uninterrupted, told_before))
    finished = ended(strategy)
    assert judge.calls == WHOLE - told_before + 1  # the others, and the saved model
    assert essence(history_of(strategy).trials) == essence(uninterrupted.trials)
    assert (finished.outcome, finished.best, finished.accuracy) == (end.outcome, end.best, end.accuracy)


def test_a_search_that_was_interrupted_after_its_last_trial_saves_the_winner(
    engine: Engine, judge: Judge, tmp_path: Path
) -> None:
    judge.rule = lambda _: 1.0
    first = searching(engine, tmp_path)
    ended(first)
    judge.calls = 0
    again = ended(searching(engine, tmp_path, resume=until(history_of(first), 1)))
    assert (again.outcome, again.best, judge.calls) == (Outcome.TARGET_MET, 1, 1)


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [
        pytest.param({"maxTrials": 3}, Outcome.MAX_TRIALS, id="maxTrials lowered below what was told"),
        pytest.param({"timeoutSeconds": 50}, Outcome.TIMEOUT, id="the time was over"),
    ],
)
def test_what_was_told_counts_whatever_the_limits_are_now(
    engine: Engine, tmp_path: Path, whole: tuple[History, Finished], limits: dict[str, Any], outcome: Outcome
) -> None:
    """The best trial lies in a stage after the one in which the limit would have struck."""
    interrupted = until(whole[0], 18, elapsed=60.0)
    best = choose(interrupted.trials, Selection.FIRST, (), AccuracyCriterion())
    assert best is not None
    assert best.index > 16
    finished = ended(searching(engine, tmp_path, resume=interrupted, limits=limits))
    assert (finished.outcome, finished.best, finished.accuracy) == (outcome, best.index, best.accuracy)


def test_a_history_of_other_configurations_is_refused(engine: Engine, tmp_path: Path) -> None:
    other = History(trials=[told(index, 0.5, objectives={"performance": 1.0}) for index in (0, 1)])
    with pytest.raises(SearchError, match="trial 1 was configuration 0000000000000001, and is now") as caught:
        searching(engine, tmp_path, resume=other).traverse()
    assert caught.value.reason == Failure.JOURNAL_MISMATCH


# --- limits


@pytest.mark.parametrize(
    ("limit", "outcome"), [(1, "max-trials"), (5, "max-trials"), (17, "max-trials"), (WHOLE + 1, "exhausted")]
)
def test_max_trials_are_told_exactly(engine: Engine, judge: Judge, tmp_path: Path, limit: int, outcome: str) -> None:
    strategy = searching(engine, tmp_path, limits={"maxTrials": limit})
    finished = ended(strategy)
    expected = min(limit, WHOLE)
    assert (len(history_of(strategy).tried), strategy.trials_count) == (expected, expected)
    assert finished.outcome == outcome
    assert judge.calls == 1 + expected + 1


def test_the_time_limit_ends_the_search_after_the_trial_under_way(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=LadderTuneStrategy, limits={"timeoutSeconds": int(1.5 * SECONDS)})
    finished = ended(strategy)
    assert (finished.outcome, len(history_of(strategy).tried)) == (Outcome.TIMEOUT, 2)


# --- ranks


@pytest.mark.parametrize(("ranks", "seed"), [(2, 0), (3, 1), (4, 2)])
def test_any_number_of_ranks_gives_the_same_history(engine: Engine, tmp_path: Path, ranks: int, seed: int) -> None:
    limits = {"maxTrials": 10}
    several = shared(engine)
    world = World(ranks, seed)
    served: dict[int, int] = {}

    def slave(rank: int) -> None:
        strategy = searching(several, tmp_path, limits=limits)
        served[rank] = strategy.slave_worker_handle(world.comm(rank))
        world.end(rank)

    threads = [threading.Thread(target=slave, args=(rank,)) for rank in range(1, ranks)]
    for thread in threads:
        thread.start()
    master = searching(several, tmp_path, limits=limits)
    finished = master.master_worker_handle(world.comm(0))
    for thread in threads:
        thread.join()
    serial = searching(engine, tmp_path, limits=limits)
    expected = ended(serial)
    assert finished is not None
    assert (finished.outcome, finished.best, finished.accuracy) == (expected.outcome, expected.best, expected.accuracy)
    assert essence(history_of(master).trials) == essence(history_of(serial).trials)
    assert sum(served.values()) == 10


def test_a_world_of_one_searches_in_series(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, limits={"maxTrials": 1})
    strategy.comm = World(1).comm(0)
    finished = strategy.distributed_traverse()
    assert finished is not None
    assert finished.best == 1


# --- what is recorded


class Diary:
    """A recorder that keeps the order in which it was told."""

    def __init__(self) -> None:
        self.history = History()
        self.entries: list[str] = []
        self.best: dict[str, Any] = {}

    def append(self, record: Record) -> None:
        self.history.apply(record)
        self.entries.append(f"trial {record.index}" if isinstance(record, Trial) else type(record).__name__)

    def describe_best(self, description: dict[str, Any]) -> None:
        self.best = description
        self.entries.append(f"best {description['trial']}")


def test_the_best_configuration_is_described_before_its_trial_is_recorded(
    engine: Engine, judge: Judge, tmp_path: Path
) -> None:
    accuracies = itertools.chain([1.0, 0.3, 0.5, 0.4, 0.5, 0.6], itertools.repeat(0.6))
    judge.rule = lambda _: next(accuracies)
    strategy = searching(engine, tmp_path, limits={"maxTrials": 5})
    diary = Diary()
    strategy.recorder = diary
    finished = ended(strategy)
    assert diary.entries == [
        "Launched", "trial 0", "best 1", "trial 1", "best 2", "trial 2", "trial 3", "trial 4", "best 5", "trial 5"
    ]  # fmt: skip
    assert (diary.best["trial"], diary.best["accuracy"]) == (finished.best, 0.6)
    assert TuneConfig.from_plain(diary.best["config"]).digest == diary.history.trials[5].digest


def test_the_artifact_is_named_as_asked(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, limits={"maxTrials": 1})
    strategy.artifact_name = "persistentvolumeclaim/models/digits/model"
    assert ended(strategy).artifact == "persistentvolumeclaim/models/digits/model"
    strategy = searching(engine, tmp_path, limits={"maxTrials": 1})
    assert ended(strategy).artifact == str(tmp_path / "model")


# --- ends that are failures


def test_when_every_trial_fails_the_last_error_is_told(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    def rule(model: Any) -> float:
        if is_quantized(model):
            raise ValueError(f"call {judge.calls}")
        return 1.0

    judge.rule = rule
    strategy = searching(engine, tmp_path)
    with pytest.raises(SearchError) as caught:
        strategy.traverse()
    assert caught.value.reason == Failure.ALL_TRIALS_FAILED
    tried = history_of(strategy).tried
    assert len(tried) == 16 + 2  # nothing to rank, so nothing is accumulated
    assert caught.value.message.startswith("all 18 trials failed; the last one: eval_func raised at test_search.py:")
    assert caught.value.message.endswith("ValueError: call 19")


def test_an_evaluation_that_differs_at_each_call_is_caught_by_the_saved_model(
    engine: Engine, judge: Judge, tmp_path: Path
) -> None:
    judge.rule = lambda _: 0.5 + judge.calls / 1000
    strategy = searching(engine, tmp_path, limits={"maxTrials": 2})
    with pytest.raises(SearchError) as caught:
        strategy.traverse()
    assert caught.value.reason == Failure.VERIFICATION_FAILED
    assert "trial 1 had accuracy 0.502, but its saved and reloaded model has 0.503; " in caught.value.message
    assert "make eval_func deterministic" in caught.value.message


def test_a_baseline_that_fails_ends_the_search_before_any_trial(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    judge.rule = lambda _: float("nan")
    strategy = searching(engine, tmp_path)
    with pytest.raises(SearchError, match="a finite number, not nan"):
        strategy.traverse()
    assert history_of(strategy).trials == []


# --- strategies of one's own


JUDGED: dict[str, Any] = {"q_dataloader": [images()], "eval_func": closeness}


class ListedTuneStrategy(TuneStrategy):
    """Repeats itself, within a list and between lists, and asks for nothing once."""

    def stages(self) -> Iterator[list[TuneConfig]]:
        base = self.start(100)
        first = base.having(dict.fromkeys(base, FP32))
        yield [base, base]
        yield []
        yield [base, first]
        assert self.accuracy_of(first) is not None


def test_a_configuration_is_tried_once_however_often_it_is_asked_for(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=ListedTuneStrategy)
    finished = ended(strategy)
    assert len(history_of(strategy).tried) == 2
    assert finished.outcome is Outcome.EXHAUSTED


def test_configurations_one_by_one_are_those_of_the_stages(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    stage = next(filter(None, strategy.stages()))
    one_by_one = [strategy.as_config(body) for body in itertools.islice(strategy.next_tune_cfg(), 16)]
    assert one_by_one == stage


def test_a_model_may_be_given_as_in_neural_compressor(tmp_path: Path) -> None:
    strategy = ListedTuneStrategy(
        seeded(Net), tuning({"tuningCriterion": {"maxTrials": 1}}), [images()], eval_func=closeness
    )
    strategy.engine.calibrate()
    strategy.folder = tmp_path / "model"
    assert ended(strategy).best == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param({"q_func": print, **JUDGED}, "q_func trains the model, but the approach is static", id="q_func"),
        pytest.param(
            {"q_hooks": {"on_step": print}, **JUDGED}, "q_hooks are called around training, but", id="q_hooks"
        ),
        pytest.param({"q_dataloader": []}, "nothing is given to judge the model", id="no eval_func"),
        pytest.param({"q_dataloader": [], "eval_dataloader": [1]}, "only eval_dataloader is given", id="no metric"),
        pytest.param({**JUDGED, "eval_metric": "MSE"}, "both judge the model; give one of them", id="two judges"),
        pytest.param({"eval_func": closeness}, "q_dataloader is missing", id="no data"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ListedTuneStrategy(seeded(Net), tuning(), **arguments)


def test_nothing_is_judged_before_the_baseline(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the baseline is measured before a result is judged"):
        searching(engine, tmp_path).meet_acc_req(Result(0.5, []))


def test_an_accuracy_that_was_not_told_is_not_known(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    with pytest.raises(KeyError):
        strategy.accuracy_of(strategy.as_config(next(strategy.next_tune_cfg())))


# --- results that wait to be told


@pytest.mark.parametrize(
    ("changed", "used"), [({}, True), ({"accuracy": {"tolerableLoss": 1e-9}}, False)], ids=["same", "another search"]
)
def test_a_result_that_waited_is_used_in_the_same_search_alone(
    engine: Engine, judge: Judge, tmp_path: Path, changed: dict[str, Any], used: bool
) -> None:
    limits = {"maxTrials": 5}
    first = searching(engine, tmp_path, limits=limits)
    first.answered = Answered(tmp_path)
    ended(first)
    waiting = TrialResult(accuracy=-5.0, objectives={"performance": 1.0}, seconds=60.0)
    first.answered.keep({3: (waiting, 7)}, told=1)
    judge.calls = 0
    second = searching(engine, tmp_path, limits=limits, **changed)
    second.answered = Answered(tmp_path)
    ended(second)
    assert judge.calls == 1 + 5 - used + 1
    assert ((history_of(second).trials[3].accuracy, history_of(second).trials[3].rank) == (-5.0, 7)) is used
    assert [t.digest for t in history_of(second).trials] == [t.digest for t in history_of(first).trials]


def test_a_model_that_cannot_be_saved_ends_the_search_for_good(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another error it would be launched again, to end the same."""

    def refuse(*_: Any) -> float:
        raise ArtifactError("the model cannot be saved, since it has the text 'x'; rename it")

    monkeypatch.setattr(Engine, "save", refuse)
    with pytest.raises(
        SearchError, match=r"the best model cannot be kept: the model cannot be saved.*; rename it"
    ) as end:
        ended(searching(engine, tmp_path))
    assert end.value.reason is Failure.MODEL_NOT_CAPTURABLE
