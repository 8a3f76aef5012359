"""`fit` in one process: from a model and a configuration to a quantized model. On ranks: test_fit_on_ranks."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from quantuner import options
from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import Finished, History
from quantuner.api.timeline import Kind, read
from quantuner.config import (
    AccuracyCriterion,
    PostTrainingQuantConfig,
    QuantizationAwareTrainingConfig,
    TuningCriterion,
)
from quantuner.distributed.journal import read_history
from quantuner.engine.fresh import FreshModel
from quantuner.engine.quantized import QuantizedModel
from quantuner.engine.ranges import RANGES_FILE
from quantuner.quantization import fit, load
from tests.unit.engine.digits_net import HELD_OUT, accuracy, calibration, digits, held_out, train, trained
from tests.unit.engine.kept import mark_ranges
from tests.unit.waiting import KEPT_ACCURACY, KEPT_RANK, interrupt_and_keep

pytestmark = pytest.mark.usefixtures("fresh_forks_begin")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path) -> Iterator[Path]:
    options.set_workspace(tmp_path / "workspace")
    yield tmp_path / "workspace"
    options.set_workspace(None)
    options.set_resume_from(None)


class Judge:
    """The accuracy on held-out digits, counted; nothing but fp32 is good enough for a strict one."""

    def __init__(self, *, strict: bool = False, interrupted_at: int | None = None) -> None:
        self.calls, self.strict, self.interrupted_at = 0, strict, interrupted_at

    def __call__(self, model: Any) -> float:
        self.calls += 1
        if self.calls == self.interrupted_at:
            raise KeyboardInterrupt
        good_enough = not self.strict or outputs(model) == outputs(trained())
        return accuracy(model) if good_enough else accuracy(model) - 1.0


def limited_to(trials: int, strategy: str = "basic") -> PostTrainingQuantConfig:
    return PostTrainingQuantConfig(tuning_criterion=TuningCriterion(strategy, max_trials=trials))


def outputs(model: Any) -> list[float]:
    with torch.no_grad():
        values: list[float] = model(digits()[0][HELD_OUT]).flatten().tolist()
    return values


def found(*arguments: Any, **named: Any) -> QuantizedModel:
    model = fit(*arguments, **named)
    assert model is not None
    return model


# --- what is returned


def test_the_model_keeps_the_accuracy_that_was_asked_for(workspace: Path) -> None:
    users = trained()
    model = found(users, PostTrainingQuantConfig(), calibration(), eval_func=accuracy)
    assert accuracy(model) >= 0.99 * accuracy(users)
    assert {op["mode"] for op in model.q_config["ops"].values()} == {"static"}
    assert outputs(users) == outputs(trained())
    end = read_history(workspace / "journal.jsonl").end
    assert isinstance(end, Finished)
    assert end.accuracy == accuracy(model)


def test_the_winner_is_measured_in_a_fresh_process() -> None:
    processes = set()

    def judge(model: Any) -> float:
        if isinstance(model, FreshModel):
            processes.add(os.getpid())
            assert outputs(model) == outputs(model.model)
        return accuracy(model)

    found(trained(), PostTrainingQuantConfig(), calibration(), eval_func=judge)
    assert processes == {os.getpid()}  # the judge, its data and its state stay here


def test_the_workspace_has_model_configuration_and_what_a_deployment_needs(workspace: Path) -> None:
    model = found(trained(), PostTrainingQuantConfig(), calibration(), eval_func=accuracy)
    assert outputs(load(workspace / "model")) == outputs(model)
    assert yaml.safe_load((workspace / "best.yaml").read_text())["config"] == model.q_config
    deploy = yaml.safe_load((workspace / "deploy.yaml").read_text())
    assert (deploy["approach"], deploy["device"], deploy["tuning"]) == ("static", "cpu", model.q_config)


def test_the_workspace_says_when_what_was_done(workspace: Path) -> None:
    limits = TuningCriterion("basic", max_trials=1)
    for _ in range(2):
        found(trained(), PostTrainingQuantConfig(tuning_criterion=limits), calibration(), eval_func=accuracy)
    first, again = read((workspace / "timeline.jsonl").read_text().splitlines())
    assert [span.kind for span in first.spans] == [Kind.SETUP, Kind.BASELINE, Kind.TRIAL, Kind.VERIFY]
    assert first.hosts == again.hosts == (socket.gethostname(),)
    assert [span.kind for span in again.spans] == [Kind.SETUP, Kind.VERIFY]  # the journal knows the rest
    assert None not in (first.ended, again.ended)


LOADING = """
import json, sys
from quantuner.quantization import load
from tests.unit.engine.digits_net import accuracy
print(json.dumps([accuracy(load(sys.argv[1])), load(sys.argv[1]).q_config]))
"""


def test_a_saved_model_is_the_same_in_a_process_that_knows_nothing_of_it(tmp_path: Path) -> None:
    model = found(trained(), PostTrainingQuantConfig(), calibration(), eval_func=accuracy)
    folder = model.save(tmp_path / "kept")
    command = [sys.executable, "-W", "ignore", "-c", LOADING, str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [accuracy(model), model.q_config]


def test_nothing_is_returned_where_no_configuration_meets(caplog: pytest.LogCaptureFixture, workspace: Path) -> None:
    judge = Judge(strict=True)
    with caplog.at_level(logging.WARNING):
        assert fit(trained(), limited_to(2), calibration(), eval_func=judge) is None
    best = "no configuration meets the accuracy criterion: the best, trial [12], has accuracy -0.06"
    assert re.search(best, caplog.text)  # which of the two is better depends on the processor
    assert "allow more loss, more trials or another strategy" in caplog.text
    assert (workspace / "model" / "model.pt2").is_file()  # the best there is, for who wants it


def test_searches_of_one_second_have_workspaces_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options.set_workspace(None)
    for _ in range(3):
        found(trained(), PostTrainingQuantConfig(), calibration(), eval_func=accuracy)
    journals = sorted((tmp_path / "quantuner_workspace").glob("*/journal.jsonl"))
    assert [len(read_history(journal).launches) for journal in journals] == [1, 1, 1]


# --- how data and accuracy are given


@pytest.mark.parametrize("level", ["auto", 0, 1])
@pytest.mark.parametrize("approach", ["static", "dynamic", "auto"])
def test_without_an_evaluation_everything_is_quantized_and_nothing_searched(
    workspace: Path, approach: str, level: Any
) -> None:
    model = found(trained(), PostTrainingQuantConfig(approach=approach, quant_level=level), calibration())
    expected = "dynamic" if approach == "dynamic" else "static"
    assert {op["mode"] for op in model.q_config["ops"].values()} == {expected}
    assert accuracy(model) >= 0.98 * accuracy(trained())
    assert not workspace.exists()


def test_a_function_that_calibrates_does_what_a_loader_does() -> None:
    def run(model: Any) -> None:
        for images, _ in calibration():
            model(images)

    by_loader = found(trained(), PostTrainingQuantConfig(), calibration())
    by_function = found(trained(), PostTrainingQuantConfig(), calib_func=run)
    assert outputs(by_function) == outputs(by_loader)


@pytest.mark.parametrize("metric", ["topk", "Accuracy", {"topk": 1}], ids=repr)
def test_a_loader_and_a_metric_judge_as_a_function_does(workspace: Path, metric: Any) -> None:
    model = found(trained(), PostTrainingQuantConfig(), calibration(), eval_dataloader=held_out(), eval_metric=metric)
    baseline, trial, *_ = read_history(workspace / "journal.jsonl").trials
    # A share of 797 digits; `accuracy` divides in float32.
    assert baseline.accuracy == pytest.approx(accuracy(trained()), abs=1e-6)
    assert trial.accuracy == pytest.approx(accuracy(model), abs=1e-6)


def test_what_is_traded_for_what_can_be_said() -> None:
    """With a time limit the objectives choose among all that meet."""
    criterion = TuningCriterion("basic", timeout=60, max_trials=4, objective=["modelsize", "accuracy"])
    conf = PostTrainingQuantConfig(
        tuning_criterion=criterion, accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.05)
    )
    judge = Judge()
    assert accuracy(found(trained(), conf, calibration(), eval_func=judge)) >= accuracy(trained()) - 0.05
    assert judge.calls == 1 + 4 + 1  # baseline, trials, the saved winner


# --- early abandonment


class Batches:
    """Held-out digits in batches of 50, and how many were asked for."""

    def __init__(self) -> None:
        self.batches = [
            (images[start : start + 50], labels[start : start + 50])
            for images, labels in held_out()
            for start in range(0, len(images), 50)
        ]
        self.given = 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.given += 1
            yield batch


GOOD_AND_BAD = {".*": {"activation": {"scheme": "asym", "algorithm": ["minmax", "percentile:99"]}}}
"""With an outlier in the calibration data; a good model is known to be no better only after its last batches."""


def with_an_outlier() -> list[Any]:
    (images, labels), *others = calibration()
    outlier = images.clone()
    outlier[0, 0, 0, 0] = 1000.0
    return [(outlier, labels), *others]


def test_batches_are_saved_and_nothing_else_changes(tmp_path: Path) -> None:
    """A target that no configuration reaches: every batch is one that a model has computed."""
    found: dict[bool, tuple[History, int]] = {}
    for early in (True, False):
        options.set_workspace(tmp_path / str(early))
        loader = Batches()
        conf = PostTrainingQuantConfig(
            op_type_dict=GOOD_AND_BAD,
            tuning_criterion=TuningCriterion("random", max_trials=12, early_abandonment=early),
            accuracy_criterion=AccuracyCriterion(tolerable_loss=-0.02),
        )
        assert fit(trained(), conf, with_an_outlier(), eval_dataloader=loader, eval_metric="topk") is None
        found[early] = (read_history(tmp_path / str(early) / "journal.jsonl"), loader.given)
    (early_history, saved), (whole, all_) = found[True], found[False]
    evaluations = len(whole.trials) + 1  # the last one of the saved model
    assert all_ == len(Batches().batches) * evaluations + 1  # ranks compare the first batch
    assert saved < 0.9 * all_
    assert isinstance(early_history.end, Finished)
    assert isinstance(whole.end, Finished)
    assert (early_history.end.best, early_history.end.accuracy) == (whole.end.best, whole.end.accuracy)
    assert [trial.digest for trial in early_history.trials] == [trial.digest for trial in whole.trials]
    assert early_history.trials[0].rows == (sum(len(labels) for _, labels in held_out()),)
    bounds = [(e.accuracy, w.accuracy) for e, w in zip(early_history.trials, whole.trials, strict=True) if e.bound]
    assert bounds
    assert all(bound is not None and true is not None and true <= bound for bound, true in bounds)


# --- training


def tuned(model: Any) -> None:
    train(model, 20, 1e-4)


def test_a_model_is_trained_under_quantization_with_hooks_around_it() -> None:
    events: list[str] = []

    def training(model: Any) -> None:
        events.append("train")
        tuned(model)

    hooks = {f"on_train_{end}": lambda _, end=end: events.append(end) for end in ("begin", "end")}
    conf = QuantizationAwareTrainingConfig()
    model = found(trained(), conf, calibration(), eval_func=accuracy, q_func=training, q_hooks=hooks)
    assert accuracy(model) >= 0.99 * accuracy(trained())
    assert events[:3] == ["begin", "train", "end"]
    assert events == events[:3] * (len(events) // 3)
    assert outputs(model) != outputs(found(trained(), PostTrainingQuantConfig(), calibration()))


def test_training_mends_what_quantization_broke() -> None:
    """The fp32 model loses its head's training; the quantized model gets it back while it is quantized."""
    worse = trained()
    with torch.no_grad():
        worse.head.weight.mul_(torch.rand(10, 1, generator=torch.Generator().manual_seed(0)))
    conf = QuantizationAwareTrainingConfig()
    model = found(worse, conf, calibration(), q_func=lambda m: train(m, 30, 1e-3))
    assert accuracy(model) > accuracy(worse) + 0.02


# --- going on


def test_an_interrupted_search_goes_on_in_its_workspace(workspace: Path) -> None:
    whole = Judge(strict=True)
    fit(trained(), limited_to(5), calibration(), eval_func=whole)
    straight = read_history(workspace / "journal.jsonl").trials
    options.set_workspace(workspace.with_name("interrupted"))
    with pytest.raises(KeyboardInterrupt):
        fit(trained(), limited_to(5), calibration(), eval_func=Judge(strict=True, interrupted_at=4))
    rest = Judge(strict=True)
    fit(trained(), limited_to(5), calibration(), eval_func=rest)
    assert rest.calls == whole.calls - 3  # baseline and two trials were told
    resumed = read_history(workspace.with_name("interrupted") / "journal.jsonl").trials
    assert [(t.digest, t.accuracy) for t in resumed] == [(t.digest, t.accuracy) for t in straight]


def test_what_was_measured_and_not_told_is_not_measured_again(workspace: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(trained(), limited_to(5), calibration(), eval_func=Judge(strict=True, interrupted_at=6))
    trials = interrupt_and_keep(workspace, told=1, waiting=3)
    judge = Judge(strict=True)
    fit(trained(), limited_to(5), calibration(), eval_func=judge)
    found = read_history(workspace / "journal.jsonl").trials
    assert [trial.digest for trial in found[: len(trials)]] == [trial.digest for trial in trials]
    assert (found[3].accuracy, found[3].rank) == (KEPT_ACCURACY, KEPT_RANK)
    assert judge.calls == 3 + 1  # trials 2, 4 and 5, and the saved model of the best


def test_a_workspace_without_a_journal_begins_with_nothing_kept(workspace: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(trained(), limited_to(5), calibration(), eval_func=Judge(strict=True, interrupted_at=6))
    interrupt_and_keep(workspace, told=1, waiting=3)
    (workspace / "journal.jsonl").unlink()
    fit(trained(), limited_to(3), calibration(), eval_func=Judge(strict=True))
    assert read_history(workspace / "journal.jsonl").trials[3].rank == 0


@pytest.mark.parametrize("named", ["workspace", "journal"])
def test_a_search_goes_on_from_elsewhere(workspace: Path, named: str) -> None:
    fit(trained(), limited_to(2), calibration(), eval_func=Judge(strict=True))
    options.set_resume_from(workspace if named == "workspace" else workspace / "journal.jsonl")
    options.set_workspace(workspace.with_name("other"))
    judge = Judge(strict=True)
    fit(trained(), limited_to(4), calibration(), eval_func=judge)
    assert judge.calls == 2 + 1  # two trials more, and the saved model of the best
    first, both = (read_history(folder / "journal.jsonl").tried for folder in (workspace, workspace.with_name("other")))
    assert both[:2] == first
    assert len(both) == 4


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in its workspace", "from elsewhere"])
def test_a_search_that_goes_on_takes_the_ranges_that_are_kept(workspace: Path, elsewhere: bool) -> None:
    fit(trained(), limited_to(2), calibration(), eval_func=Judge(strict=True))
    mark_ranges(workspace)
    if elsewhere:
        options.set_resume_from(workspace)
        options.set_workspace(workspace.with_name("other"))
    with pytest.raises(SearchError, match="what calibration collects"):  # its journal knows that they are others
        fit(trained(), limited_to(4), calibration(), eval_func=Judge(strict=True))
    assert not (workspace.with_name("other") / RANGES_FILE).exists()


def test_a_search_that_has_ended_answers_again(workspace: Path) -> None:
    first = found(trained(), PostTrainingQuantConfig(), calibration(), eval_func=Judge())
    before = (workspace / "journal.jsonl").read_bytes()
    judge = Judge()
    again = found(trained(), PostTrainingQuantConfig(), calibration(), eval_func=judge)
    assert outputs(again) == outputs(first)
    assert judge.calls == 1  # the saved model, as always
    assert (workspace / "journal.jsonl").read_bytes() == before


def test_a_search_that_has_ended_goes_on_where_its_limits_are_raised(workspace: Path) -> None:
    fit(trained(), limited_to(2), calibration(), eval_func=Judge(strict=True))
    before = (workspace / "journal.jsonl").read_text()
    for calls in (3 + 1, 1):  # the second time it has ended there, too
        judge = Judge(strict=True)
        fit(trained(), limited_to(5), calibration(), eval_func=judge)
        assert judge.calls == calls
    history = read_history(workspace / "journal.jsonl")
    assert (len(history.tried), len(history.launches)) == (5, 2)
    assert isinstance(history.end, Finished)
    best = history.trials[history.end.best or 0]
    assert yaml.safe_load((workspace / "best.yaml").read_text())["trial"] == best.index
    assert json.loads((workspace / "model" / "report.json").read_text())["trial"] == best.index
    assert history.end.accuracy == best.accuracy
    assert yaml.safe_load((workspace / "tuning.yaml").read_text())["spec"]["tuningCriterion"]["maxTrials"] == 5
    assert (workspace / "journal.1.jsonl").read_text() == before
    assert not (workspace / "journal.2.jsonl").exists()
    whole = workspace.with_name("whole")
    options.set_workspace(whole)
    fit(trained(), limited_to(5), calibration(), eval_func=Judge(strict=True))
    straight = read_history(whole / "journal.jsonl").trials
    assert [(t.digest, t.accuracy) for t in history.trials] == [(t.digest, t.accuracy) for t in straight]


def test_a_search_that_is_refused_leaves_the_other_ones_record_as_it_is(workspace: Path) -> None:
    fit(trained(), limited_to(1), calibration(), eval_func=Judge(strict=True))
    files = [path for path in workspace.rglob("*") if path.is_file() and path.name != RANGES_FILE]
    before = {path: path.read_bytes() for path in files}
    other = PostTrainingQuantConfig(accuracy_criterion=AccuracyCriterion(tolerable_loss=0.5))
    with pytest.raises(SearchError, match=r"in another workspace \(quantuner.options.set_workspace\)"):
        fit(trained(), other, calibration(), eval_func=Judge(strict=True))
    assert {path: path.read_bytes() for path in files} == before


def worse() -> Any:
    model = trained()
    with torch.no_grad():
        model.head.bias.add_(1.0)
    return model


@pytest.mark.parametrize("how", ["workspace", "resume"])
def test_results_of_another_model_are_not_taken(workspace: Path, how: str) -> None:
    fit(trained(), limited_to(1), calibration(), eval_func=Judge(strict=True))
    if how == "resume":
        options.set_resume_from(workspace)
        options.set_workspace(workspace.with_name("other"))
    with pytest.raises(SearchError, match=r"the model .* was .* and is now") as caught:
        fit(worse(), limited_to(1), calibration(), eval_func=Judge(strict=True))
    assert caught.value.reason == Failure.JOURNAL_MISMATCH


# --- recipes


@pytest.mark.parametrize("recipe", ["first_conv_or_matmul_quantization", "last_conv_or_matmul_quantization"])
def test_an_op_at_an_end_that_stays_in_fp32_takes_its_error_away(recipe: str) -> None:
    def quantized(**recipes: bool) -> QuantizedModel:
        return found(trained(), PostTrainingQuantConfig(recipes=recipes), calibration())

    plain, kept = quantized(), quantized(**{recipe: False})
    in_fp32 = [name for name, op in kept.q_config["ops"].items() if op["mode"] == "fp32"]
    ops = list(plain.q_config["ops"])
    assert in_fp32 == [ops[0] if recipe.startswith("first") else ops[-1]]
    errors = [
        torch.tensor(outputs(model)).sub(torch.tensor(outputs(trained()))).square().sum() for model in (plain, kept)
    ]
    assert errors[1] < errors[0]
