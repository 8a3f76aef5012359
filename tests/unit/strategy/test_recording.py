"""The record that a search begins: which changes make it another search, and where it is kept."""

import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import JournalError, SearchError
from quantuner.api.journal import HOSTS_LIMIT, Finished, History, Outcome, Selection
from quantuner.api.spec import Tuning
from quantuner.distributed.journal import JournalFolder
from quantuner.engine.engine import Engine
from quantuner.strategy import BasicTuneStrategy, ConservativeTuneStrategy
from quantuner.strategy.recording import Identity, kept_in, launch
from tests.unit.records import TIME, launched, told, tuning
from tests.unit.strategy.judged import history_of, searching

KNOWN = History(launches=[launched()], trials=[told(0, 0.9), told(1, 0.8)])


# --- what identifies a search


def asked(**spec: Any) -> Tuning:
    return tuning(spec)


def digest_of(tuning: Tuning) -> str:
    return Identity.of(tuning).search


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(asked(quantization={"approach": "dynamic"}), id="approach"),
        pytest.param(asked(quantization={"quantLevel": "0"}), id="level, which names the strategy"),
        pytest.param(asked(quantization={"calibrationSamplingSizes": [7]}), id="calibration size"),
        pytest.param(asked(quantization={"recipes": {"weightCorrection": True}}), id="a recipe"),
        pytest.param(asked(accuracyCriterion={"tolerableLoss": 0.5}), id="tolerable loss"),
        pytest.param(asked(accuracyCriterion={"higherIsBetter": False}), id="direction"),
        pytest.param(asked(tuningCriterion={"strategy": "random"}), id="strategy"),
        pytest.param(asked(tuningCriterion={"strategy": "auto", "strategyKwargs": {"seed": 1}}), id="its arguments"),
        pytest.param(asked(tuningCriterion={"objectives": [{"name": "footprint"}]}), id="an objective"),
    ],
)
def test_what_decides_a_result_makes_it_another_search(other: Tuning) -> None:
    assert digest_of(other) != digest_of(asked())


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(asked(), id="the same again"),
        pytest.param(asked(tuningCriterion={"maxTrials": 3}), id="trials"),
        pytest.param(asked(tuningCriterion={"timeoutSeconds": 3}), id="time"),
        pytest.param(asked(workers=7), id="workers"),
        pytest.param(asked(tuningCriterion={"strategy": "auto"}), id="the strategy of the level, by its name"),
        pytest.param(replace(asked(), name="other", namespace="elsewhere"), id="its name"),
    ],
)
def test_what_only_limits_or_places_a_search_leaves_it_the_same(same: Tuning) -> None:
    assert digest_of(same) == digest_of(asked())


def loss(outputs: Any, labels: Any) -> Any:
    return outputs - labels


class Loss:
    """Has no text of its own: Python names its place in memory."""


@pytest.mark.parametrize(
    ("one", "again", "other"),
    [
        pytest.param(loss, loss, digest_of, id="functions"),
        pytest.param(Loss(), Loss(), Finished, id="objects"),
        pytest.param(functools.partial(loss, 1), functools.partial(loss, 1), functools.partial(loss, 2), id="partials"),
        pytest.param([1, {"a": loss}], (1, {"a": loss}), [1, {"b": loss}], id="nested"),
        pytest.param({"a", "b", "c"}, frozenset("cba"), {"a", "b"}, id="sets"),
        pytest.param(True, True, "yes", id="plain"),
    ],
)
def test_an_argument_that_is_no_plain_data_is_known_again(one: Any, again: Any, other: Any) -> None:
    def digest(value: Any) -> str:
        base = asked()
        return digest_of(
            replace(base, tuning_criterion=replace(base.tuning_criterion, strategy_kwargs={"loss": value}))
        )

    assert digest(one) == digest(again)
    assert digest(one) != digest(other)


def test_a_set_is_known_again_in_another_process() -> None:
    script = "from quantuner.strategy.recording import _plain; print(_plain({'conv1', 'conv2', 'fc', 'head'}))"
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "77")
    }
    assert told == {"['conv1', 'conv2', 'fc', 'head']\n"}


# --- what a launch says


def test_a_launch_names_model_ranges_libraries_and_ranks(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    strategy.identity = Identity("5ea4c4", "c0de", tuple(f"host-{number}" for number in range(40)))
    launch(strategy)
    (said,) = history_of(strategy).launches
    assert (said.search, said.code, said.ops, said.ranks) == ("5ea4c4", "c0de", 2, 40)
    assert (said.model, said.ranges) == (engine.digest, engine.ranges_digest)
    assert said.hosts == tuple(f"host-{number}" for number in range(HOSTS_LIMIT))
    assert [part.split()[0] for part in said.versions.split(", ")] == ["torch", "torchao"]


@pytest.mark.parametrize(
    ("limits", "refining", "selection"),
    [
        pytest.param({}, False, Selection.FIRST, id="the first success"),
        pytest.param({}, True, Selection.CHEAPEST, id="the cheapest, of a strategy that refines"),
        pytest.param({"timeoutSeconds": 9}, False, Selection.OBJECTIVES, id="the best objectives in a time"),
        pytest.param({"timeoutSeconds": 9}, True, Selection.OBJECTIVES, id="in a time, whatever the strategy"),
    ],
)
def test_a_launch_says_by_which_rule_the_winner_is_chosen(
    engine: Engine, tmp_path: Path, limits: dict[str, Any], refining: bool, selection: Selection
) -> None:
    cls = ConservativeTuneStrategy if refining else BasicTuneStrategy
    strategy = searching(engine, tmp_path, limits=limits, strategy=cls)
    launch(strategy)
    assert history_of(strategy).launches[0].selection is selection


def test_results_of_another_search_are_refused_with_what_changed(engine: Engine, tmp_path: Path) -> None:
    first = searching(engine, tmp_path)
    launch(first)
    known = History(launches=history_of(first).launches, trials=[told(0, 0.9)])
    changed = searching(engine, tmp_path, resume=known, accuracy={"tolerableLoss": 0.5})
    with pytest.raises(SearchError, match="are of another search: the resource was") as caught:
        launch(changed)
    assert caught.value.reason == Failure.JOURNAL_MISMATCH


# --- where it is kept


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def kept(folder: Path, known: History) -> History:
    journal = kept_in(folder, known)
    journal.close()
    return journal.history


def test_an_empty_folder_begins_with_what_is_known(folder: Path) -> None:
    assert kept(folder, KNOWN) == KNOWN
    assert kept(folder, KNOWN) == KNOWN  # and holds it: nothing is written twice


def test_nothing_known_leaves_the_folder_as_it_is(folder: Path) -> None:
    assert kept(folder, History()) == History()
    kept(folder, KNOWN)
    assert kept(folder, History()) == KNOWN


def test_a_folder_that_went_on_from_what_is_known_goes_on(folder: Path) -> None:
    kept(folder, KNOWN)
    journal = JournalFolder(folder)
    journal.append(told(2, 0.7))
    journal.close()
    assert kept(folder, KNOWN).trials == [*KNOWN.trials, told(2, 0.7)]


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(History(launches=[launched()], trials=[told(0, 0.5)]), id="another search"),
        pytest.param(replace(KNOWN, trials=[*KNOWN.trials, told(2, 0.7)]), id="more than the folder has"),
        pytest.param(History(trials=[told(0, 0.5)]), id="trials whose launch is not known"),
    ],
)
def test_a_folder_with_another_search_is_refused_and_left_free(folder: Path, known: History) -> None:
    kept(folder, KNOWN)
    with pytest.raises(JournalError, match=r"journal\.jsonl holds a search already, and resume names another one"):
        kept_in(folder, known)
    assert kept(folder, KNOWN) == KNOWN


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    journal = kept_in(folder, KNOWN)
    with pytest.raises(JournalError, match="another search writes"):
        kept_in(folder, KNOWN)
    journal.close()


def test_the_end_of_what_is_known_is_not_taken_over(folder: Path) -> None:
    end = Finished(outcome=Outcome.EXHAUSTED, best=1, accuracy=0.8, artifact="", time=TIME)
    assert kept(folder, replace(KNOWN, end=end)).end is None
