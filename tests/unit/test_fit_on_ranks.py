"""`fit` under a real mpirun: the ranks search together, each gets the model, and each gets an error; none waits.

One mpirun runs all scenarios, one after the other: a rank that was left waiting would be seen in the next one.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from quantuner import options
from quantuner.config import PostTrainingQuantConfig, TuningCriterion
from quantuner.distributed import mpirun
from quantuner.distributed.journal import read_history
from quantuner.distributed.processors import Processors, share
from quantuner.quantization import fit
from tests.unit.engine.digits_net import accuracy, calibration, trained

REPOSITORY = Path(__file__).parents[2]
RANKS = 2
SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from quantuner import options
from quantuner.api.errors import SearchError
from quantuner.config import PostTrainingQuantConfig, TuningCriterion
from quantuner.engine.fresh import FreshProcess
from quantuner.quantization import fit
from tests.unit.engine.digits_net import accuracy, calibration, trained

folder, rank = Path(sys.argv[1]), os.environ["OMPI_COMM_WORLD_RANK"]
torch.set_num_threads(1)
said = {}
some = calibration()[0][0]

def strict(model):
    with torch.no_grad():
        return float(torch.equal(model(some), trained()(some)))

def differently(model):
    return accuracy(model) + 0.001 * int(rank)

def refused(self):
    raise BlockingIOError(11, "no process more")

def run(name, workspace, data, limits, judged=accuracy, **settings):
    evaluated = []
    def judge(model):
        evaluated.append(model)
        return judged(model)
    options.set_workspace(folder / workspace)
    try:
        conf = PostTrainingQuantConfig(tuning_criterion=TuningCriterion("basic", **limits), **settings)
        model = fit(trained(), conf, data, eval_func=judged and judge)
        said[name] = model and {"accuracy": accuracy(model), "config": model.q_config}
    except SearchError as error:
        said[name] = str(error)
    said[f"{name}: evaluated"] = len(evaluated)

four = {"max_trials": 4, "timeout": 600}
run("found", "found", calibration(), four)
run("another search is there", "found", calibration()[:1], four)
run("no data on rank 1", "none", calibration() if rank == "0" else None, four)
start = FreshProcess.start
FreshProcess.start = refused
run("no process on rank 0", "none", calibration(), four)
FreshProcess.start = start
run("rank 1 judges nothing", "none", calibration(), four, None if rank == "1" else accuracy)
layers = {"recipes": {"layer_wise_quant": True}}
run("in layers on rank 1", "none", calibration(), four, **layers if rank == "1" else {})
run("read once on rank 0", "none", iter(calibration()) if rank == "0" else calibration(), four, **layers)
run("nothing meets", "strict", calibration(), four, strict)
run("ranks judge differently", "differently", calibration(), four, differently)
run("found again", "again", calibration(), four)
torch.set_num_threads(3 + int(rank))
run("threads of their own", "threads", calibration(), {"max_trials": 1})
said["threads after"] = torch.get_num_threads()
(folder / f"{rank}.json").write_text(json.dumps(said))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "script.py").write_text(SCRIPT)
    launch = mpirun.local(RANKS, mpirun.python("-W", "ignore", str(folder / "script.py"), str(folder)))
    environment = {**os.environ, **launch.environment, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/operator"}
    done = subprocess.run(launch.command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> list[dict[str, Any]]:
    """What each rank said of every scenario."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.fixture
def one_thread(tmp_path: Path) -> Iterator[Path]:
    """As many as the ranks compute with, since sums are then made in the same order; and a workspace."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    options.set_workspace(tmp_path)
    yield tmp_path
    options.set_workspace(None)
    torch.set_num_threads(threads)


def test_each_rank_gets_the_model_that_a_serial_search_finds(
    folder: Path, said: list[dict[str, Any]], one_thread: Path
) -> None:
    """Among the four that meet measured seconds choose, so the trials are what is compared, not the winner."""
    conf = PostTrainingQuantConfig(tuning_criterion=TuningCriterion("basic", max_trials=4, timeout=600))
    assert fit(trained(), conf, calibration(), eval_func=accuracy) is not None
    alone, together = (read_history(at / "journal.jsonl").trials for at in (one_thread, folder / "found"))
    assert [(t.digest, t.accuracy) for t in together] == [(t.digest, t.accuracy) for t in alone]
    assert said[0]["found"] == said[1]["found"]
    assert said[0]["found"]["accuracy"] in [trial.accuracy for trial in together[1:]]


def test_ranks_compute_with_the_fewest_threads_that_any_has_and_give_back_their_own(
    folder: Path, said: list[dict[str, Any]]
) -> None:
    """Of those the script set, 3 and 4, and of each rank's share of this computer."""
    (launch,) = read_history(folder / "threads" / "journal.jsonl").launches
    assert launch.threads == min(3, share([Processors.here("this")] * RANKS))
    assert [each["threads after"] for each in said] == [3, 4]


def test_rank_1_evaluates_the_trials_and_rank_0_baseline_and_winner(said: list[dict[str, Any]]) -> None:
    assert [each["found: evaluated"] for each in said] == [2, 4]


def test_an_error_of_rank_0_reaches_both(said: list[dict[str, Any]]) -> None:
    one, other = (each["another search is there"] for each in said)
    assert one == other
    assert "results in the journal are of another search: what calibration collects" in one


def test_an_error_of_rank_1_reaches_both(folder: Path, said: list[dict[str, Any]]) -> None:
    one, other = (each["no data on rank 1"] for each in said)
    assert one == other
    assert "calib_dataloader and calib_func: neither gives" in one
    assert one.endswith("(on rank 1)")
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (
            "no process on rank 0",
            "the process that will measure the saved model cannot be started: [Errno 11]",
        ),
        (
            "rank 1 judges nothing",
            "quantize the model by a search, and this rank's without a search; give every",
        ),
        ("in layers on rank 1", "quantize the model by a search, and this rank's layer by layer; give every"),
        ("read once on rank 0", "calib_dataloader can be read once only; give a list"),
    ],
)
def test_what_goes_wrong_before_anything_is_shared_reaches_both(
    said: list[dict[str, Any]], name: str, error: str
) -> None:
    one, other = (each[name] for each in said)
    assert one == other
    assert error in one


def test_no_rank_gets_a_model_where_nothing_meets(said: list[dict[str, Any]]) -> None:
    assert [each["nothing meets"] for each in said] == [None, None]


def test_an_error_at_the_end_reaches_both(said: list[dict[str, Any]]) -> None:
    one, other = (each["ranks judge differently"] for each in said)
    assert one == other
    assert "make eval_func deterministic" in one


def test_a_search_after_errors_is_as_good_as_the_first(folder: Path, said: list[dict[str, Any]]) -> None:
    first, again = (read_history(folder / name / "journal.jsonl").trials for name in ("found", "again"))
    assert [(t.digest, t.accuracy) for t in again] == [(t.digest, t.accuracy) for t in first]
    assert said[0]["found again"] == said[1]["found again"]
