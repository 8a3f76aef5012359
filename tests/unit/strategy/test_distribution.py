"""Trials in shares: idle ranks divide an evaluation, and the search is that of one process."""

from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantuner.api.journal import encode
from quantuner.api.timeline import Ending, Kind, Span, read
from quantuner.api.trial import TrialResult
from quantuner.distributed.differences import Reference
from quantuner.distributed.protocol import Known
from quantuner.distributed.timeline import TIMELINE_FILE, Quiet
from quantuner.engine.metrics import evaluation
from quantuner.engine.shares import TrialShare
from quantuner.space import samplers
from quantuner.space.config import TuneConfig
from quantuner.strategy import TuneStrategy
from quantuner.strategy.distribution import known, work
from tests.unit.engine.models import Net, engine_of, images, seeded
from tests.unit.records import tuning
from tests.unit.strategy import test_contract
from tests.unit.strategy.judged import UNTRIED, essence, history_of
from tests.unit.strategy.ranked import OneAtATime, searched, shared

TRIALS = 6
RANKS = pytest.mark.parametrize("ranks", [3, 4, 6])
METRICS: dict[str, tuple[Any, bool]] = {
    "topk": ("topk", True),
    "RMSE": ({"RMSE": {}}, False),
    "weighted": ({"MSE": {}, "MAE": {}, "weight": [-0.7, -0.3]}, True),
}


class Spans(Quiet):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def span(self, span: Span) -> None:
        self.spans.append(span)

    def parts(self, ending: Ending = Ending.TOLD) -> list[Span]:
        return [span for span in self.spans if span.kind == Kind.PART and span.outcome == ending]


class Stepping(TuneStrategy):
    """Asks for one configuration at a time: without shares all ranks but one would be idle."""

    def next_tune_cfg(self) -> Iterator[Any]:
        for config in samplers.op_type_wise(self.tuning_space.capabilities):
            yield self.as_dict(config.calibrated_with(100))


class Abandoning(Stepping):
    """Does not read what misses the criterion."""

    def reads_accuracy(self, config: TuneConfig) -> bool:
        return False


class Asked(Stepping):
    """Evaluates in its own way."""

    def evaluate(self, payload: Any) -> Any:
        return replace(super().evaluate(payload), accuracy=0.125)


class Shuffled:
    """A loader that gives its batches in another order at each pass, and on each rank."""

    def __init__(self, batches: list[Any], step: int) -> None:
        self.batches, self.step = batches, step

    def __iter__(self) -> Iterator[Any]:
        self.batches = self.batches[self.step :] + self.batches[: self.step]
        return iter(self.batches)


def labelled(metric: str) -> list[Any]:
    """Batches of 3 to 9 images: labels are the fp32 model's classes, or its outputs moved a little."""
    model, loader = seeded(Net), []
    for i in range(7):
        x = images(3 + i, seed=i)
        with torch.no_grad():
            y = model(x)
        loader.append((x, y.argmax(1) if metric == "topk" else y + 0.01))
    return loader


def engine_with(loader: Any, metric: Any) -> OneAtATime:
    return shared(engine_of(seeded(Net), eval_func=evaluation(loader, metric)))


def made(
    engine: OneAtATime,
    kind: type[TuneStrategy] = Stepping,
    *,
    higher: bool = True,
    folder: Path,
    timeout: int = 0,
    own: bool = False,
) -> TuneStrategy:
    """A strategy whose trials never meet the criterion, and that keeps its spans."""
    conf = tuning(
        {
            "quantization": {"recipes": dict(UNTRIED)},
            "accuracyCriterion": {"tolerableLoss": -1.0, "higherIsBetter": higher, "criterion": "absolute"},
            "tuningCriterion": {"strategy": "basic", "maxTrials": TRIALS, "timeoutSeconds": timeout},
        }
    )
    strategy = kind(engine, replace(conf, run_launcher_as_worker=own))
    strategy.folder, strategy.observer = folder / "model", Spans()
    return strategy


def spans_of(strategy: TuneStrategy) -> Spans:
    assert isinstance(strategy.observer, Spans)
    return strategy.observer


def found(strategy: TuneStrategy) -> Any:
    """What must not depend on ranks."""
    history = history_of(strategy)
    assert strategy.end is not None
    trials = [(*one, t.bound, t.error) for one, t in zip(essence(history.trials), history.trials, strict=True)]
    return trials, strategy.end.outcome, strategy.end.best, strategy.end.accuracy


@RANKS
@pytest.mark.parametrize("kind", [Stepping, Abandoning])
@pytest.mark.parametrize("name", METRICS)
def test_a_search_that_asks_one_at_a_time_is_divided_and_the_same(
    name: str, kind: type[TuneStrategy], ranks: int, tmp_path: Path
) -> None:
    metric, higher = METRICS[name]
    loader = labelled(name)

    def make() -> TuneStrategy:
        return made(engine_with(loader, metric), kind, higher=higher, folder=tmp_path)

    alone, together = searched(make, 0), searched(make, ranks)
    assert found(together) == found(alone)
    assert len(history_of(together).tried) == TRIALS
    parts = spans_of(together).parts()
    for index in range(1, TRIALS + 1):
        assert {span.rank for span in parts if span.index == index} == set(range(1, ranks))
    assert not spans_of(alone).parts()


def test_rank_0_evaluates_shares_too_where_it_works(tmp_path: Path) -> None:
    loader = labelled("topk")

    def make() -> TuneStrategy:
        return made(engine_with(loader, "topk"), folder=tmp_path, own=True)

    together = searched(make, 2)
    assert found(together) == found(searched(make, 0))
    assert {span.rank for span in spans_of(together).parts()} == {0, 1}


def test_ranks_whose_loader_shuffles_evaluate_whole_trials_from_then_on(tmp_path: Path) -> None:
    """Of a share of accuracies the order does not matter, so that whole trials agree."""
    steps = itertools.cycle([1, 2, 3])

    def make() -> TuneStrategy:
        return made(engine_with(Shuffled(labelled("topk"), next(steps)), "topk"), folder=tmp_path)

    together = searched(make, 3)
    assert found(together)[0] == found(searched(make, 0))[0]
    assert {span.index for span in spans_of(together).parts()} == {1}


class Raising(OneAtATime):
    """Rank by rank another share fails."""

    failing = 0

    def trial_part(self, config: TuneConfig, part: int, parts: int) -> TrialShare:
        if part == self.failing:
            raise RuntimeError("no memory left")
        return super().trial_part(config, part, parts)


def test_a_trial_of_which_a_share_fails_is_evaluated_whole(tmp_path: Path) -> None:
    loader = labelled("topk")

    def make() -> TuneStrategy:
        engine = engine_with(loader, "topk")
        engine.__class__ = Raising
        return made(engine, folder=tmp_path)

    together = searched(make, 3)
    assert found(together) == found(searched(make, 0))
    assert {span.index for span in spans_of(together).parts(Ending.FAILED)} == set(range(1, TRIALS + 1))
    whole = [span for span in spans_of(together).spans if span.kind == Kind.TRIAL and span.outcome == Ending.TOLD]
    assert [span.index for span in whole] == list(range(1, TRIALS + 1))


def test_trials_that_are_compared_by_objectives_are_evaluated_whole(tmp_path: Path) -> None:
    loader = labelled("topk")
    together = searched(lambda: made(engine_with(loader, "topk"), folder=tmp_path, timeout=3600), 3)
    assert len(history_of(together).tried) == TRIALS
    assert not spans_of(together).parts()


def test_a_strategys_own_evaluate_is_asked_for_whole_trials(tmp_path: Path) -> None:
    loader = labelled("topk")
    strategy = made(engine_with(loader, "topk"), Asked, folder=tmp_path)
    assert work(strategy).combine is None
    assert work(made(strategy.engine, folder=tmp_path)).combine is not None  # type: ignore[arg-type]


class RaisingAtTwo(Stepping):
    """Its own evaluation raises in one trial, and gives no result in another."""

    def evaluate(self, payload: Any) -> Any:
        options = list(samplers.op_type_wise(self.tuning_space.capabilities))
        asked = [option.calibrated_with(100).plain()["ops"] for option in options].index(payload["ops"])
        if asked == 1:
            raise KeyError("no such layer")
        return 0.5 if asked == 2 else super().evaluate(payload)


@pytest.mark.parametrize("ranks", [0, 3])
def test_a_trial_in_which_a_strategys_own_evaluate_raises_has_failed(ranks: int, tmp_path: Path) -> None:
    loader = labelled("topk")
    strategy = searched(lambda: made(engine_with(loader, "topk"), RaisingAtTwo, folder=tmp_path), ranks)
    errors = [trial.error for trial in history_of(strategy).trials]
    assert len(errors) == 1 + TRIALS
    assert re.match(r"RaisingAtTwo.evaluate raised at test_distribution.py:\d+ in evaluate: KeyError", errors[2])
    assert "must return a TrialResult, as super().evaluate does, not float" in errors[3]
    assert [error for error in errors if error] == errors[2:4]


def nan(result: TrialResult) -> TrialResult:
    return replace(result, accuracy=float("nan"))


def infinite_seconds(result: TrialResult) -> TrialResult:
    return replace(result, seconds=float("inf"))


def no_number(result: TrialResult) -> TrialResult:
    return replace(result, accuracy="0.5")  # type: ignore[arg-type]  # as a user may


def nothing(result: TrialResult) -> TrialResult:
    return replace(result, accuracy=None)


def both(result: TrialResult) -> TrialResult:
    return replace(result, error="it was late")


def no_objective(result: TrialResult) -> TrialResult:
    return replace(result, objectives={})


def nan_objective(result: TrialResult) -> TrialResult:
    return replace(result, objectives={**result.objectives, "of mine": float("nan")})


def unproven(result: TrialResult) -> TrialResult:
    return replace(result, is_bound=True)


Altered = Callable[[TrialResult], TrialResult]


class Altering(Stepping):
    """Returns something else than `super().evaluate` in the first trial."""

    altered: Altered

    def evaluate(self, payload: Any) -> Any:
        found = super().evaluate(payload)
        first, *_ = samplers.op_type_wise(self.tuning_space.capabilities)
        return type(self).altered(found) if payload["ops"] == first.plain()["ops"] else found


@pytest.mark.parametrize("ranks", [0, 2])
@pytest.mark.parametrize(
    ("altered", "says"),
    [
        (nan, "Altering.evaluate gave nan as accuracy, which must be one finite number"),
        (infinite_seconds, "Altering.evaluate gave inf as seconds, which must be one finite number"),
        (no_number, "Altering.evaluate gave '0.5' as accuracy, which must be one finite number"),
        (nothing, "Altering.evaluate must give an accuracy or an error, not None and ''"),
        (both, "Altering.evaluate must give an accuracy or an error, not 1.0 and 'it was late'"),
        (no_objective, "Altering.evaluate gave no performance; keep the objectives that super().evaluate gives"),
        (nan_objective, "Altering.evaluate gave nan as of mine, which must be one finite number"),
        (unproven, "which the payload's limit does not exclude"),
    ],
)
def test_a_result_that_cannot_be_told_is_a_failed_trial_and_the_search_goes_on(
    altered: Altered, says: str, ranks: int, tmp_path: Path
) -> None:
    kind = type("Altering", (Altering,), {"altered": staticmethod(altered)})
    strategy = searched(lambda: made(engine_with(labelled("topk"), "topk"), kind, folder=tmp_path), ranks)
    errors = [trial.error for trial in history_of(strategy).trials]
    assert len(errors) == 1 + TRIALS
    assert says in errors[1]
    assert [error for error in errors if error] == errors[1:2]


def in_numpy(result: TrialResult) -> TrialResult:
    objectives = {name: np.float32(value) for name, value in result.objectives.items()}
    accuracy, rows = torch.tensor(result.accuracy, dtype=torch.float64), (np.int64(3),)
    return replace(result, accuracy=accuracy, objectives=objectives, seconds=np.float64(2), rows=rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [0, 2])
def test_numbers_of_numpy_and_torch_are_recorded_as_plain_ones(ranks: int, tmp_path: Path) -> None:
    kind = type("Altering", (Altering,), {"altered": staticmethod(in_numpy)})
    strategy = searched(lambda: made(engine_with(labelled("topk"), "topk"), kind, folder=tmp_path), ranks)
    told = history_of(strategy).trials[1]
    assert not told.error
    assert {type(value) for value in (told.accuracy, told.seconds, *told.objectives.values())} == {float}
    assert (told.rows, type(told.rows[0])) == ((3,), int)
    assert encode(told)


def test_what_was_told_gives_deadlines_by_kind(tmp_path: Path) -> None:
    """Of a search that goes on: its strategy was told the record."""
    engine = engine_with(labelled("topk"), "topk")
    alone = searched(lambda: made(engine, Correcting, folder=tmp_path), 0)
    told = history_of(alone).trials
    found = known(alone)
    assert found.baseline == told[0].seconds
    assert found.trials == {"": [told[1].seconds], "converted WeightCorrection": [told[3].seconds]}
    assert known(made(engine, folder=tmp_path)) == Known()


class Correcting(TuneStrategy):
    """Three trials: one that is switched, one that fails, one whose weights are corrected."""

    def stages(self) -> Iterator[list[TuneConfig]]:
        one, other, *_ = (o.calibrated_with(100) for o in samplers.op_type_wise(self.tuning_space.capabilities))
        yield [one, one.calibrated_with(101), other.with_recipes({"weight_correction": True})]


# --- real ranks


def test_real_ranks_divide_the_trials_that_are_asked_for_alone(
    forked_rank: Callable[..., list[str]], tmp_path: Path
) -> None:
    wanted = {
        "task": {"entrypoint": "tests.unit.strategy.contract_task:by_metric"},
        "accuracyCriterion": {"tolerableLoss": 0.0, "higherIsBetter": False, "criterion": "absolute"},
        "tuningCriterion": {"strategy": "sensitivity", "maxTrials": 10},
    }
    for ranks in (1, 3):
        test_contract.prepare(tmp_path / str(ranks), wanted, [])
        test_contract.search(ranks, [tmp_path / str(ranks)], forked_rank)
    assert test_contract.told_in(tmp_path / "3") == test_contract.told_in(tmp_path / "1")
    [launch] = read((tmp_path / "3" / TIMELINE_FILE).read_text().splitlines())
    parts = [span for span in launch.spans if span.kind == Kind.PART]
    assert {span.rank for span in parts} <= {1, 2}  # one may take over all shares of another that begins late
    assert any(span.outcome == Ending.TOLD for span in parts)


STATIC = {"mode": "static", "activation": {"dtype": "uint8", "scheme": "asym"}, "weight": {"dtype": "int8"}}


@pytest.mark.parametrize("op", [{"mode": "fp32"}, {**STATIC, "activation": {"dtype": "uint8", "scheme": "sym"}}])
def test_a_configuration_is_sent_as_the_op_that_changed(op: dict[str, Any]) -> None:
    ops = {f"layer{i}": STATIC for i in range(200)}
    before, after = (
        TuneConfig.from_plain({"calib_sampling_size": 100, "ops": some}).plain()
        for some in (ops, {**ops, "layer7": op})
    )
    message = pickle.dumps(Reference(before).difference({**after, "limit": {"accuracy": 0.5}}))
    assert len(message) < 200 < len(pickle.dumps(after)) / 20
