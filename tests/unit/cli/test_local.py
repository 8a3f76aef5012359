"""`quantuner run` and `report`, whole: real ranks, real searches of a tiny model."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import quantuner
from quantuner.api.conditions import Failure
from quantuner.api.journal import Failed, Finished, History, Outcome
from quantuner.api.timeline import Ending, Kind, LaunchSpans, read
from quantuner.cli import local, main
from quantuner.distributed import forking
from quantuner.distributed.journal import JournalFolder, await_writer, read_history, sole_search
from tests.unit.cli.tasks import BROKEN_LINE, TRIALS, written
from tests.unit.strategy.judged import essence

pytestmark = pytest.mark.usefixtures("fresh_forks_begin")


@dataclass
class Run:
    """A `quantuner run` that has ended."""

    workspace: Path
    code: int
    out: str

    @property
    def history(self) -> History:
        return read_history(self.workspace / "journal.jsonl")

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = yaml.safe_load((self.workspace / "status.yaml").read_text())["status"]
        return status

    @property
    def end(self) -> Finished:
        end = self.history.end
        assert isinstance(end, Finished)
        return end


def run(capsys: pytest.CaptureFixture[str], file: Path, workspace: Path, *arguments: str) -> Run:
    code = main(["run", str(file), "--workspace", str(workspace), *arguments])
    return Run(workspace, code, capsys.readouterr().out)


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole search in series, its output thrown away."""
    folder = tmp_path_factory.mktemp("serial")
    code = main(["run", str(written(folder)), "--workers", "0", "--workspace", str(folder / "workspace")])
    return Run(folder / "workspace", code, "")


def test_a_search_in_series(serial: Run) -> None:
    assert serial.code == 0
    assert (serial.end.outcome, serial.end.best) == (Outcome.TARGET_MET, TRIALS)
    assert [trial.index for trial in serial.history.trials] == list(range(TRIALS + 1))
    assert [launch.ranks for launch in serial.history.launches] == [1]
    assert (serial.workspace / "model" / "model.pt2").is_file()


def test_its_status_is_what_a_cluster_would_show(serial: Run) -> None:
    status, best = serial.status, serial.history.trials[TRIALS]
    assert status["phase"] == "Complete"
    assert status["baseline"]["accuracy"] == 1.0
    assert status["trials"] == {"completed": TRIALS, "failed": 0, "running": 0, "max": 100}
    assert status["best"] == {
        "trial": TRIALS,
        "accuracy": best.accuracy,
        "meetsCriterion": True,
        "objectives": best.objectives,
        "cost": 1.0,
        "size": best.size,
        "config": {"defaults": {"Linear": "fp32"}, "exceptions": {}},
        "configRef": {"name": str(serial.workspace / "best.yaml"), "key": "best.yaml"},
        "artifact": str(serial.workspace / "model"),
    }
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Accepted": "True", "Running": "False", "Suspended": "False",
        "TargetMet": "True", "Complete": "True", "Failed": "False",
    }  # fmt: skip
    assert status["startTime"] <= status["completionTime"]


def test_slaves_give_the_same_history_and_winner(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, slotsPerWorker=2)  # one worker of two slots: two slaves
    parallel = run(capsys, file, tmp_path / "workspace", "--workers", "1")
    assert parallel.code == 0
    assert parallel.status["workers"] == 1
    assert [launch.ranks for launch in parallel.history.launches] == [3]
    assert {trial.rank for trial in parallel.history.tried} <= {1, 2}  # one may try all before the other begins
    assert essence(parallel.history.trials) == essence(serial.history.trials)
    assert (parallel.end.best, parallel.end.accuracy) == (serial.end.best, serial.end.accuracy)
    assert parallel.history.launches[0].model == serial.history.launches[0].model
    assert yaml.safe_load((parallel.workspace / "best.yaml").read_text()) == yaml.safe_load(
        (serial.workspace / "best.yaml").read_text()
    )
    [launch] = timeline_of(parallel.workspace)
    assert (launch.ranks, len(launch.hosts)) == (3, 3)
    assert {span.rank for span in launch.spans if span.kind == Kind.SETUP} == {0, 1, 2}
    assert {span.rank for span in launch.spans if span.kind in (Kind.BASELINE, Kind.VERIFY)} == {0}
    assert all(0 <= span.start <= span.end <= launch.seconds for span in launch.spans)
    whole = {
        (s.index, s.rank) for s in launch.spans if s.kind in (Kind.TRIAL, Kind.DUPLICATE) and s.outcome == Ending.TOLD
    }
    # A trial in shares is told by the rank whose share came last; its spans are the shares', and every one counts.
    shares = {(s.index, s.rank) for s in launch.spans if s.kind == Kind.PART and s.outcome == Ending.TOLD}
    divided = {index for index, _ in shares}
    told = {(trial.index, trial.rank) for trial in parallel.history.tried}
    assert whole == {(index, rank) for index, rank in told if index not in divided}
    assert {one for one in told if one[0] in divided} <= shares
    assert "3 ranks, 2 quantizable ops" in parallel.out
    assert "target met by the fp32 model itself, nothing is quantized: trial 7 meets" in parallel.out
    assert "◀ best" in parallel.out


DEADLY = """
import dataclasses, os
from pathlib import Path
import tiny

def task():
    made = tiny.task()
    deadly = (Path(__file__).parent / "deadly").read_text()

    def judge(model):
        found = made.eval_func(model)
        if repr(found) == deadly:
            os.kill(os.getpid(), 9)
        return found

    return dataclasses.replace(made, eval_func=judge)
"""


def test_a_trial_that_kills_its_process_has_failed_in_series_as_on_ranks(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one: both launches that it ends have told nothing but the baseline."""
    file = written(tmp_path, "deadly:task", slotsPerWorker=3)
    (tmp_path / "deadly.py").write_text(DEADLY)
    (tmp_path / "deadly").write_text(repr(serial.history.trials[1].accuracy))
    alone = run(capsys, file, tmp_path / "alone", "--workers", "0")
    ranks = run(capsys, file, tmp_path / "ranks", "--workers", "1")
    assert (alone.code, ranks.code) == (0, 0)
    assert [trial.index for trial in alone.history.trials if trial.error] == [1]
    assert len(alone.history.launches) == 3
    assert essence(alone.history.trials) == essence(ranks.history.trials)
    assert [trial.error for trial in alone.history.trials] == [trial.error for trial in ranks.history.trials]
    assert (alone.end.best, alone.end.accuracy) == (ranks.end.best, ranks.end.accuracy)


@pytest.fixture
def interrupted(serial: Run, tmp_path: Path) -> Path:
    """The workspace of the same search, ended in the middle of the line that tells its fourth trial."""
    workspace = tmp_path / "workspace"
    shutil.copytree(serial.workspace, workspace)
    lines = (serial.workspace / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (workspace / "journal.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:30])
    return workspace


def test_an_interrupted_search_goes_on_without_repeating_a_told_trial(
    serial: Run, interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (interrupted / "journal.jsonl").read_bytes()
    continued = run(capsys, written(tmp_path), interrupted, "--workers", "0")
    assert continued.code == 0
    assert "going on after 3 told trials" in continued.out
    assert (interrupted / "journal.jsonl").read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert essence(continued.history.trials) == essence(serial.history.trials)
    assert (continued.end.best, continued.end.accuracy) == (serial.end.best, serial.end.accuracy)
    assert len(continued.history.launches) == 2


def test_another_search_moves_a_finished_one_aside_with_its_model(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(serial.workspace, workspace)
    (workspace / "journal.1.jsonl").write_text("an even earlier one\n")
    (workspace / "timeline.jsonl").write_text("its timeline\n")
    another: dict[str, Any] = {"tuningCriterion": {"strategy": "random", "maxTrials": 1}}
    again = run(capsys, written(tmp_path, **another), workspace, "--workers", "0")
    assert again.code == 0
    assert (workspace / "journal.1.jsonl").read_text() == "an even earlier one\n"
    assert (workspace / "journal.2.jsonl").read_bytes() == (serial.workspace / "journal.jsonl").read_bytes()
    assert (workspace / "timeline.2.jsonl").read_text() == "its timeline\n"
    assert (workspace / "status.2.yaml").read_bytes() == (serial.workspace / "status.yaml").read_bytes()
    assert quantuner.load(workspace / "model.2").q_config == quantuner.load(serial.workspace / "model").q_config
    assert quantuner.load(workspace / "model").q_config != quantuner.load(serial.workspace / "model").q_config
    assert (workspace / "timeline.jsonl").is_file()
    assert (again.end.outcome, len(again.history.tried)) == (Outcome.MAX_TRIALS, 1)
    assert again.status["phase"] == "Complete"
    assert "target not met: maxTrials is reached" in again.out
    assert "journal.2.jsonl" in again.out


def test_another_search_that_fails_has_no_model(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(serial.workspace, workspace)
    other = run(capsys, written(tmp_path, "tiny:broken"), workspace, "--workers", "0")
    assert (other.code, other.status["phase"]) == (1, "Failed")
    assert not (workspace / "model").exists()
    assert (workspace / "model.1" / "model.pt2").is_file()


def test_a_resource_is_not_replaced_by_its_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path)
    before = file.read_text()
    assert main(["run", str(file), "--workspace", str(file.parent)]) == 2
    assert "name another --workspace, or give the file another name" in capsys.readouterr().err
    assert file.read_text() == before


def unchanged(file: Path) -> Path:
    """Its code is as old as can be."""
    for module in file.parent.glob("*.py"):
        os.utime(module, (0, 0))
    return file


def test_a_finished_search_that_is_run_again_shows_its_result(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(serial.workspace, workspace)
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    again = run(capsys, unchanged(written(tmp_path)), workspace)
    assert again.code == 0
    assert "this search has finished, and its result follows" in again.out
    assert "--fresh searches anew" in again.out
    assert "target met by the fp32 model itself" in again.out
    after = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} == {"status.yaml"}, "its path is another"
    assert again.status["conditions"] == serial.status["conditions"]


def test_a_finished_search_goes_on_where_its_limit_has_grown(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one whose limit had been lowered, which told no less for that."""
    workspace = tmp_path / "workspace"
    criterion = yaml.safe_load(written(tmp_path).read_text())["spec"]["tuningCriterion"]
    limited = [written(tmp_path / str(n), tuningCriterion={**criterion, "maxTrials": n}) for n in (2, 1, 3)]
    first, shown, more = (run(capsys, file, workspace, "--workers", "0") for file in limited)
    assert [len(one.history.launches) for one in (first, shown, more)] == [2, 2, 2], "all read what is there last"
    assert "its result follows" in shown.out
    assert "going on after 2 told trials" in more.out
    assert essence(more.history.trials) == essence(serial.history.trials[:4])
    assert more.end.outcome == Outcome.MAX_TRIALS
    assert len(read_history(workspace / "journal.1.jsonl").tried) == 2


def test_a_damaged_journal_is_kept_where_the_user_starts_anew(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, file = tmp_path / "workspace", written(tmp_path, tuningCriterion={"maxTrials": 1})
    workspace.mkdir()
    (workspace / "journal.jsonl").write_text("{damaged\n")
    assert main(["run", str(file), "--workspace", str(workspace), "--workers", "0"]) == 2
    again = run(capsys, file, workspace, "--workers", "0", "--fresh")
    assert (again.code, len(again.history.tried)) == (0, 1)
    assert (workspace / "journal.1.jsonl").read_text() == "{damaged\n"


@pytest.mark.parametrize("held", [sole_search, JournalFolder], ids=["one that runs", "ranks that are left of one"])
def test_two_searches_do_not_share_a_workspace(
    interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], held: Callable[[Path], Any]
) -> None:
    before = {path.name: path.read_bytes() for path in interrupted.iterdir() if path.is_file()}
    with contextlib.ExitStack() as stack:
        other = held(interrupted)
        stack.enter_context(other) if held is sole_search else stack.callback(other.close)
        before["journal.jsonl"] = (interrupted / "journal.jsonl").read_bytes()  # opening it repairs it
        arguments = ["--workspace", str(interrupted), "--workers", "0", "--fresh"]
        assert main(["run", str(written(tmp_path)), *arguments]) == 2
    assert f"another search runs in {interrupted}; wait for it" in capsys.readouterr().err
    after = {path.name: path.read_bytes() for path in interrupted.iterdir() if path.name in before}
    assert after == before


def test_a_failed_search_goes_on_once_somebody_has_acted(
    serial: Run, interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = JournalFolder(interrupted)
    journal.append(Failed(reason="WriteFailed", message="the disk was full"))
    journal.close()
    continued = run(capsys, written(tmp_path), interrupted, "--workers", "0")
    assert continued.code == 0
    assert "going on after 3 told trials" in continued.out
    assert essence(continued.history.trials) == essence(serial.history.trials)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("failed")
    file = written(folder, entrypoint="tiny:broken")
    code = main(["run", str(file), "--workers", "0", "--workspace", str(folder / "workspace")])
    return Run(folder / "workspace", code, "")


def test_a_task_that_raises_fails_with_reason_and_line(failed: Run) -> None:
    assert failed.code == 1
    end = failed.history.end
    assert isinstance(end, Failed)
    assert end.reason == Failure.TASK_RAISED
    assert end.message == (
        f"calling tiny:broken raised at tiny.py:{BROKEN_LINE} in broken: "
        "TypeError: list indices must be integers or slices, not str"
    )
    assert 'values["[/tmp]"]' in end.traceback
    assert failed.status["phase"] == "Failed"
    conditions = {c["type"]: c for c in failed.status["conditions"]}
    assert (conditions["Failed"]["status"], conditions["Failed"]["reason"]) == ("True", "TaskRaised")


# --- report


def test_a_report_shows_every_trial_and_the_winner(serial: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(serial.workspace)]) == 0
    out = capsys.readouterr().out
    for trial in serial.history.trials:
        assert trial.label in out
    assert "target met by the fp32 model itself, nothing is quantized: trial 7 meets the accuracy criterion" in out
    assert f"model: {serial.workspace / 'model'}" in out


def test_a_report_says_which_precisions_were_left_out_and_why(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(serial.workspace)]) == 0
    assert "left out" not in capsys.readouterr().out
    workspace = shutil.copytree(serial.workspace, tmp_path / "workspace")
    first, *others = (workspace / "journal.jsonl").read_text().splitlines(keepends=True)
    launch = {**json.loads(first), "left_out": "bf16: Z80 has none of [avx512_bf16]"}
    (workspace / "journal.jsonl").write_text("".join([json.dumps(launch) + "\n", *others]))
    assert main(["report", str(workspace)]) == 0
    assert "left out of the search: bf16: Z80 has none of [avx512_bf16]\n" in capsys.readouterr().out


def test_a_report_of_an_interrupted_search_says_how_to_go_on(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (interrupted / "journal.jsonl").read_bytes()
    assert main(["report", str(interrupted)]) == 0
    assert "not finished: 3 trials told; `quantuner run` goes on from here" in capsys.readouterr().out
    assert (interrupted / "journal.jsonl").read_bytes() == before


def test_a_report_of_a_failed_search(failed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(failed.workspace)]) == 1
    assert f"failed TaskRaised: calling tiny:broken raised at tiny.py:{BROKEN_LINE}" in capsys.readouterr().out


def test_errors_with_brackets_are_shown_as_they_are(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(serial.workspace, workspace)
    lines = (workspace / "journal.jsonl").read_text().splitlines()[:2]
    trial = '{"v":1,"op":"trial","index":1,"digest":"d","state":"failed","label":"x","error":"KeyError: [/a]"}'
    end = '{"v":1,"op":"fail","reason":"TaskRaised","message":"shape [4, 4] and [/b]"}'
    (workspace / "journal.jsonl").write_text("\n".join([*lines, trial, end]) + "\n")
    assert main(["report", str(workspace)]) == 1
    out = capsys.readouterr().out
    assert "x: KeyError: [/a]" in out
    assert "failed TaskRaised: shape [4, 4] and [/b]" in out


def timeline_of(workspace: Path) -> list[LaunchSpans]:
    return read((workspace / "timeline.jsonl").read_text().splitlines())


def test_a_report_draws_the_run(serial: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(serial.workspace)]) == 0
    out = capsys.readouterr().out
    assert "\nrank 0 s" in out
    assert "s setup   b baseline   #= trial   v verification" in out
    [launch] = timeline_of(serial.workspace)
    trials = [(span.index, span.outcome) for span in launch.spans if span.kind == Kind.TRIAL]
    assert trials == [(index, Ending.TOLD) for index in range(1, TRIALS + 1)]
    assert "% of 1 rank over" in out
    assert "derived" not in out


def test_a_report_of_a_search_without_a_timeline_derives_it(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tuning.yaml", "journal.jsonl"):
        shutil.copy(serial.workspace / name, tmp_path)
    assert main(["report", str(tmp_path), "--trace", str(tmp_path / "trace.json")]) == 0
    assert "derived from the journal" in capsys.readouterr().out
    trace = json.loads((tmp_path / "trace.json").read_text())
    names = [event["name"] for event in trace["traceEvents"] if event["ph"] == "X"]
    assert names == ["baseline", *(f"trial {index}" for index in range(1, TRIALS + 1))]
    assert trace["otherData"] == {"search": tmp_path.name, "derived": True}


def test_a_report_exports_the_run(serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, svg = tmp_path / "trace.json", tmp_path / "run.svg"
    assert main(["report", str(serial.workspace), "--trace", str(trace), "--svg", str(svg)]) == 0
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    assert len(events) == sum(len(launch.spans) for launch in timeline_of(serial.workspace))
    assert svg.read_text().startswith("<svg ")


def test_a_folder_with_a_timeline_alone_as_a_cluster_leaves_it(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(serial.workspace / "timeline.jsonl", tmp_path)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("rank 0 s")


def test_nothing_to_export_is_an_error(serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(serial.workspace / "tuning.yaml", tmp_path)
    assert main(["report", str(tmp_path), "--trace", str(tmp_path / "trace.json")]) == 2
    assert "nothing is recorded of this search yet" in capsys.readouterr().err
    assert not (tmp_path / "trace.json").exists()


def test_a_folder_that_is_no_workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert (
        "holds no tuning.yaml and no timeline.jsonl; name the workspace of a `quantuner run`" in capsys.readouterr().err
    )


def test_the_tests_left_nothing_in_the_working_folder() -> None:
    assert "workspace" not in os.listdir()  # noqa: PTH208 - the names are all there is to know


def test_several_ranks_are_forks_of_one_process_that_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_DEVICES", ())
    with local._program(2, "cpu") as program:
        done = subprocess.run([*program, "--help"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), "it would say that it imports by itself"
        assert "--workspace" in done.stdout
        folder = Path(program[4]).parent
        assert folder.is_dir()
    assert not folder.exists()


def test_a_search_that_is_told_to_end_before_and_after_its_ranks_leaves_nothing_in_tmp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def serving(folder: Path) -> Iterator[None]:
        signal.raise_signal(signal.SIGTERM)
        yield
        signal.raise_signal(signal.SIGTERM)

    def unheeded(number: int, frame: object) -> None:
        raise RuntimeError("the signal would have ended this process")

    monkeypatch.setattr(local, "_DEVICES", ())
    monkeypatch.setattr(forking, "serving", serving)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = signal.signal(signal.SIGTERM, unheeded)
    try:
        ended = run(capsys, written(tmp_path), tmp_path / "workspace", "--workers", "1")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.code == 1
    assert not ended.history.launches
    assert (ended.status["phase"], ended.status["workers"]) == ("Interrupted", 0)
    conditions = {c["type"]: (c["status"], c["reason"], c["message"]) for c in ended.status["conditions"]}
    assert conditions["Running"] == ("False", "Interrupted", "interrupted: no rank runs")
    assert conditions["Complete"] == ("False", "Interrupted", "interrupted; `quantuner run` goes on with the search")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("ranks", "device", "declined", "there"),
    [
        pytest.param(1, "cpu", "", "/nowhere", id="one rank"),
        pytest.param(2, "cuda", "", "/nowhere", id="on a GPU"),
        pytest.param(2, "cpu", "", "/", id="beside a GPU"),
        pytest.param(2, "cpu", "0", "/nowhere", id="declined"),
    ],
)
def test_ranks_import_by_themselves_else(
    ranks: int, device: str, declined: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_DEVICES", (there,))
    monkeypatch.setenv("QUANTUNER_FORKS", declined)
    with local._program(ranks, device) as program:
        tied = ["quantuner.distributed.tied", str(os.getpid())] if ranks == 1 else []
        assert program[1:] == ["-u", "-m", *tied, "quantuner.run"]


SLEEPER = """
import time
import tiny

def task():
    time.sleep(600)
"""


def test_a_rank_in_series_ends_with_a_command_that_is_killed(tmp_path: Path) -> None:
    file, workspace = written(tmp_path, "sleeper:task"), tmp_path / "workspace"
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    command = [sys.executable, "-m", "quantuner.cli", "run", str(file), "--workers", "0", "--workspace", str(workspace)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as killed:
        while await_writer(workspace, 0):  # the rank has not opened its journal yet
            time.sleep(0.05)
            assert killed.poll() is None
        killed.kill()
    assert await_writer(workspace, 300), "the rank searches on"  # half of what the task sleeps


def test_a_status_that_cannot_be_written_hides_nothing_that_is_told(
    serial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(serial.workspace, workspace)
    (workspace / "status.yaml").unlink()
    (workspace / "status.yaml").mkdir()
    assert main(["run", str(unchanged(written(tmp_path))), "--workspace", str(workspace)]) == 2
    captured = capsys.readouterr()
    assert "trial 7 meets the accuracy criterion" in captured.out
    assert f"{workspace / 'status.yaml'} cannot be written: Is a directory; give its disk room" in captured.err
    assert not list(workspace.glob(".*.partial"))
