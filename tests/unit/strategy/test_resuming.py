"""What a search may be continued from, and that a continued one is the same search."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantuner.api.errors import JournalError
from quantuner.api.journal import Finished, History, Outcome
from quantuner.distributed.journal import JOURNAL_FILE
from quantuner.engine.engine import Engine
from quantuner.engine.ranges import RANGES_FILE
from quantuner.strategy.recording import kept_in
from quantuner.strategy.resuming import history_from, ranges_beside
from tests.unit.records import TIME, launched, told
from tests.unit.strategy.judged import Judge, closeness, ended, essence, history_of, searching

KNOWN = History(launches=[launched()], trials=[told(0, 0.9), told(1, None)])


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    kept_in(tmp_path / "workspace", KNOWN).close()
    return tmp_path / "workspace"


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param(lambda _: KNOWN, id="a history"),
        pytest.param(lambda folder: folder, id="a workspace"),
        pytest.param(str, id="a workspace as text"),
        pytest.param(lambda folder: folder / JOURNAL_FILE, id="a journal"),
        pytest.param(lambda folder: {"history": folder}, id="a dict with a workspace"),
        pytest.param(lambda _: {"history": KNOWN}, id="a dict with a history"),
        pytest.param(lambda folder: {"history": {"history": str(folder)}}, id="a dict in a dict"),
    ],
)
def test_every_way_to_name_a_history_gives_it(workspace: Path, spelled: Callable[[Path], Any]) -> None:
    assert history_from(spelled(workspace)) == KNOWN


@pytest.mark.parametrize(
    ("resume", "error", "says"),
    [
        pytest.param("nowhere", JournalError, "nowhere does not exist; resume names a journal or", id="no such path"),
        pytest.param(Path(__file__).parent, JournalError, r"journal\.jsonl does not exist", id="a folder without one"),
        pytest.param(Path(__file__), JournalError, "move the file away to start anew$", id="a file of another kind"),
        pytest.param({}, TypeError, "the one key 'history', not none$", id="an empty dict"),
        pytest.param({"id": 3, "history": KNOWN}, TypeError, "not 'id', 'history'$", id="a key too many"),
        pytest.param({"history": 3}, TypeError, "not int; give the workspace", id="a dict without a history"),
        pytest.param(3, TypeError, "must be a History, a path or", id="anything else"),
    ],
)
def test_what_holds_no_history_is_refused_with_the_remedy(resume: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        history_from(resume)


@pytest.mark.parametrize("named", ["", JOURNAL_FILE], ids=["a workspace", "a journal"])
def test_ranges_lie_beside_the_journal(workspace: Path, named: str) -> None:
    assert ranges_beside({"history": str(workspace / named)}) == (workspace / RANGES_FILE,)
    assert ranges_beside({"history": KNOWN}) == ()


def test_a_journal_that_is_being_written_may_be_read(workspace: Path) -> None:
    with (workspace / JOURNAL_FILE).open("a") as file:
        file.write('{"v":1,"op":"tri')
    assert history_from(workspace) == KNOWN


# --- searches that go on


def test_the_record_that_a_search_continues_from_stays_as_it_is(engine: Engine, tmp_path: Path) -> None:
    first = searching(engine, tmp_path, limits={"maxTrials": 2})
    ended(first)
    known = history_of(first)
    told_before = len(known.trials)
    second = searching(engine, tmp_path, resume=known, limits={"maxTrials": 3})
    ended(second)
    assert (len(known.trials), len(history_of(second).trials)) == (told_before, told_before + 1)


def test_a_search_that_had_ended_may_go_on_with_more_trials(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    first = searching(engine, tmp_path, limits={"maxTrials": 2})
    end = ended(first)
    history_of(first).apply(Finished(outcome=end.outcome, best=end.best, accuracy=end.accuracy, artifact="", time=TIME))
    judge.calls = 0
    second = searching(engine, tmp_path, resume=history_of(first), limits={"maxTrials": 4})
    assert ended(second).outcome is Outcome.MAX_TRIALS
    assert (second.trials_count, judge.calls) == (4, 2 + 1)  # two more trials, and the saved model


def test_a_search_that_is_interrupted_goes_on_when_it_is_traversed_again(
    engine: Engine, judge: Judge, tmp_path: Path
) -> None:
    limits = {"maxTrials": 6}
    whole = searching(engine, tmp_path, limits=limits)
    best = ended(whole).best
    judge.calls = 0

    def rule(model: Any) -> float:
        if judge.calls == 4:  # the baseline, three trials, and Ctrl-C
            raise KeyboardInterrupt
        return closeness(model)

    judge.rule = rule
    strategy = searching(engine, tmp_path, limits=limits)
    with pytest.raises(KeyboardInterrupt):
        strategy.traverse()
    assert (strategy.trials_count, strategy.end) == (2, None)
    assert ended(strategy).best == best
    assert strategy.trials_count == 6
    assert essence(history_of(strategy).trials) == essence(history_of(whole).trials)
    assert judge.calls == 1 + 2 + 1 + 4 + 1


def test_a_search_with_nothing_left_to_try_describes_its_best_all_the_same(engine: Engine, tmp_path: Path) -> None:
    limits = {"maxTrials": 2}
    first = searching(engine, tmp_path, limits=limits)
    end = ended(first)
    journal = kept_in(tmp_path / "elsewhere", history_of(first))
    second = searching(engine, tmp_path, limits=limits)
    second.recorder = journal
    ended(second)
    journal.close()
    assert f"trial: {end.best}\n" in journal.best.read_text()


def test_time_spent_before_counts_that_of_the_baseline_too(engine: Engine, tmp_path: Path) -> None:
    first = searching(engine, tmp_path, limits={"maxTrials": 1})
    ended(first)
    baseline, trial = history_of(first).trials
    assert 0 < baseline.seconds <= baseline.elapsed < trial.elapsed
    second = searching(engine, tmp_path, resume=History(trials=[baseline]), limits={"maxTrials": 1})
    assert second.elapsed() == 0
    ended(second)
    assert history_of(second).trials[1].elapsed > baseline.elapsed
