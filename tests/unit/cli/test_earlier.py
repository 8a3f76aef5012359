"""What an earlier search left in the workspace: told from this one, and moved aside whole. No rank runs."""

import io
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from quantuner.api.errors import QuantunerError
from quantuner.api.journal import Failed, Finished, Outcome, Record, Selection
from quantuner.api.spec import search_digest
from quantuner.api.validation import admit
from quantuner.cli.earlier import prepare
from quantuner.distributed.journal import JournalFolder, read_history
from tests.unit.records import TIME, launched, manifest, told


def body(**criterion: Any) -> dict[str, Any]:
    return admit(manifest({"tuningCriterion": {"maxTrials": 2, **criterion}}))


def ended(outcome: Outcome = Outcome.MAX_TRIALS) -> Finished:
    return Finished(outcome=outcome, best=1, accuracy=0.9, artifact="model", time=TIME)


def left(workspace: Path, *records: Record, selection: Selection = Selection.FIRST, **criterion: Any) -> None:
    """A workspace in which two trials were told within 20 seconds, and then these records."""
    asked = body(**criterion)
    begun = launched(search=search_digest(asked), selection=selection)
    journal = JournalFolder(workspace)
    for record in (begun, told(0, 0.9), told(1, 0.9), told(2, 0.8, elapsed=20.0), *records):
        journal.append(record)
    journal.close()
    (workspace / "model").mkdir()
    (workspace / "model" / "model.pt2").write_text("earlier")
    for name in ("tuning.yaml", "status.yaml", "best.yaml", "timeline.jsonl"):
        (workspace / name).write_text(yaml.safe_dump(asked))


def prepared(workspace: Path, *, fresh: bool = False, **criterion: Any) -> tuple[bool, str]:
    """Whether there is anything to search, and what is said."""
    screen = io.StringIO()
    console = Console(file=screen, width=120, highlight=False)
    code = workspace.with_name(f"{workspace.name}-code")
    code.mkdir(exist_ok=True)
    return prepare(workspace, body(**criterion), code, console, fresh=fresh), screen.getvalue()


ALL = ["best", "journal", "model", "status", "timeline", "tuning"]


def names(workspace: Path, number: str = "") -> list[str]:
    """What stands in the workspace, or is kept there under a number."""
    parts = [path.name.split(".") for path in workspace.iterdir()]
    return sorted(part[0] for part in parts if (number in part[1:] if number else not any(p.isdigit() for p in part)))


@pytest.mark.parametrize("fresh", [True, False])
def test_a_new_workspace_is_ready(tmp_path: Path, fresh: bool) -> None:
    assert prepared(tmp_path, fresh=fresh) == (True, "")
    assert names(tmp_path) == ["tuning"]


@pytest.mark.parametrize("end", [[], [Failed(reason="WriteFailed", message="full")]], ids=["interrupted", "failed"])
def test_what_is_not_finished_goes_on(tmp_path: Path, end: list[Record]) -> None:
    left(tmp_path, *end)
    assert prepared(tmp_path) == (True, f"going on after 2 told trials of {tmp_path}/journal.jsonl\n")
    assert names(tmp_path) == ALL


@pytest.mark.parametrize("end", [[], [ended()]], ids=["interrupted", "finished"])
@pytest.mark.parametrize("anew", [{"fresh": True}, {"strategy": "random"}], ids=str)
def test_another_search_leaves_nothing_in_place(tmp_path: Path, end: list[Record], anew: dict[str, Any]) -> None:
    left(tmp_path, *end)
    does, says = prepared(tmp_path, **anew)
    assert does
    assert names(tmp_path) == ["tuning"]
    assert names(tmp_path, "1") == ALL
    assert (tmp_path / "model.1" / "model.pt2").read_text() == "earlier"
    assert says.startswith(f"the earlier search is kept in {tmp_path} as journal.1.jsonl, timeline.1.jsonl, ")


@pytest.mark.parametrize(("name", "seconds", "is_another"), [
    ("task.py", 60, True), ("package/part.py", 60, True), ("task.py", -60, False), ("data.csv", 60, False),
    ("venv/lib/torch.py", 60, False), (".git/hook.py", 60, False),
])  # fmt: skip
def test_a_finished_search_is_another_once_its_code_has_changed(
    tmp_path: Path, name: str, seconds: int, is_another: bool
) -> None:
    workspace, code = tmp_path / "ws", tmp_path / "ws-code"
    workspace.mkdir()
    left(workspace, ended())
    (code / name).parent.mkdir(parents=True, exist_ok=True)
    (code / name).touch()
    began = datetime.fromisoformat(TIME).timestamp()
    os.utime(code / name, (began, began + seconds))
    does, says = prepared(workspace)
    assert does is is_another
    assert (f"{code / name} has changed since the earlier search began" in says) is is_another
    assert ("journal.1.jsonl" in says) is is_another


def test_what_was_moved_aside_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "model.1").mkdir()  # of one whose journal somebody has deleted
    left(tmp_path, ended())
    prepared(tmp_path, fresh=True)
    assert names(tmp_path, "2") == ALL


@pytest.mark.parametrize("has_journal", [True, False])
def test_a_folder_of_the_users_where_the_model_goes_is_left_alone(tmp_path: Path, has_journal: bool) -> None:
    if has_journal:
        left(tmp_path, ended())
        (tmp_path / "model" / "model.pt2").unlink()
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "net.py").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(QuantunerError, match="holds something else; name another --workspace"):
        prepared(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_finished_journal_that_somebody_made_up_ends_nothing(tmp_path: Path) -> None:
    asked = body(timeoutSeconds=60.0)
    journal = JournalFolder(tmp_path)
    for record in (launched(search=search_digest(asked), time="yesterday"), ended(Outcome.MAX_TRIALS)):
        journal.append(record)
    journal.close()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pt2").touch()
    assert prepared(tmp_path, timeoutSeconds=60.0)[0]


def test_a_model_without_its_journal_is_moved_aside(tmp_path: Path) -> None:
    left(tmp_path, ended())
    (tmp_path / "journal.jsonl").unlink()
    assert prepared(tmp_path)[0]
    assert names(tmp_path, "1") == [name for name in ALL if name != "journal"]


@pytest.mark.parametrize(
    ("outcome", "before", "now", "goes_on"),
    [
        pytest.param(Outcome.MAX_TRIALS, {}, {}, False, id="the same limits"),
        pytest.param(Outcome.MAX_TRIALS, {}, {"maxTrials": 3}, True, id="more trials"),
        pytest.param(Outcome.MAX_TRIALS, {}, {"maxTrials": 1}, False, id="fewer trials"),
        pytest.param(Outcome.MAX_TRIALS, {}, {"maxTrials": 3, "timeoutSeconds": 20}, False, id="no time for them"),
        pytest.param(Outcome.TIMEOUT, {"timeoutSeconds": 21, "maxTrials": 9}, {}, False, id="the time is told late"),
        pytest.param(Outcome.TIMEOUT, {"timeoutSeconds": 9, "maxTrials": 9}, {"timeoutSeconds": 30}, True, id="time"),
        pytest.param(
            Outcome.TIMEOUT, {"timeoutSeconds": 9, "maxTrials": 9}, {"timeoutSeconds": 0}, True, id="all time"
        ),
        pytest.param(Outcome.TARGET_MET, {}, {"maxTrials": 3}, False, id="it was met"),
        pytest.param(Outcome.TARGET_MET, {}, {"maxTrials": 3, "timeoutSeconds": 60}, True, id="time to do better"),
        pytest.param(Outcome.EXHAUSTED, {}, {"maxTrials": 3}, False, id="there are no more"),
        pytest.param(Outcome.STOPPED, {}, {"maxTrials": 3}, False, id="a rule of its own"),
    ],
)
def test_a_finished_search_goes_on_where_its_limits_have_grown(
    tmp_path: Path, outcome: Outcome, before: dict[str, Any], now: dict[str, Any], goes_on: bool
) -> None:
    selection = Selection.OBJECTIVES if "timeoutSeconds" in before else Selection.FIRST
    left(tmp_path, ended(outcome), selection=selection, **before)
    journal = (tmp_path / "journal.jsonl").read_bytes()
    does, says = prepared(tmp_path, **{**before, **now})
    assert does == goes_on
    assert ("going on after 2 told trials" if goes_on else "this search has finished") in says
    assert (read_history(tmp_path / "journal.jsonl").end is None) == goes_on
    assert names(tmp_path) == ALL
    kept = tmp_path / ("journal.1.jsonl" if goes_on else "journal.jsonl")
    assert kept.read_bytes() == journal


def test_a_model_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    left(tmp_path, ended())
    (tmp_path / "model" / "model.pt2").unlink()
    (tmp_path / "model").rmdir()
    assert prepared(tmp_path)[0]
    assert read_history(tmp_path / "journal.jsonl").end is None


def test_limits_that_nobody_knows_any_more_may_have_grown(tmp_path: Path) -> None:
    left(tmp_path, ended())
    (tmp_path / "tuning.yaml").write_text("spec: [")
    assert prepared(tmp_path, maxTrials=3)[0]
