"""Progress is what the journal says, as far as it is told."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quantuner.api.journal import Record
from quantuner.cli.progress import Progress
from quantuner.distributed.journal import JournalFolder
from tests.unit.records import launched, told, tuning


def shown(folder: Path, records: list[Record], *, terminal: bool = False, **spec: Any) -> str:
    """What is printed while these records are told."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=160, highlight=False)
    limits = {"tuningCriterion": {"maxTrials": 10, "timeoutSeconds": 1000}}
    journal = JournalFolder(folder)
    with Progress(folder, tuning(limits | spec), console):
        for record in records:
            journal.append(record)
    journal.close()
    return screen.getvalue()


TOLD: list[Record] = [launched(), told(0, 0.9, label="fp32 baseline", elapsed=10.0)]


def test_off_a_terminal_there_is_a_line_a_trial(tmp_path: Path) -> None:
    out = shown(tmp_path, [*TOLD, told(1, None, label="all [/x]"), told(2, 0.891234, label="fp32: fc")])
    assert out.splitlines() == [
        "2 ranks, 4 quantizable ops",
        "trial    0         0.9  fp32 baseline",
        "trial    1      failed  all [/x]",
        "trial    2    0.891234  fp32: fc",
    ]


@pytest.mark.parametrize(("higher", "sign"), [(True, "≤"), (False, "≥")])
def test_a_bound_is_shown_as_one(tmp_path: Path, higher: bool, sign: str) -> None:
    out = shown(tmp_path, [*TOLD, told(1, 0.7, bound=True, label="all")], accuracyCriterion={"higherIsBetter": higher})
    assert out.splitlines()[-1] == f"trial    1       {sign} 0.7  all"


def test_before_the_first_record_there_is_nothing(tmp_path: Path) -> None:
    assert shown(tmp_path, []) == ""


@pytest.mark.parametrize(
    ("elapsed", "left"), [(20.0, "at most 3 min left"), (2.0, "at most 18 s left"), (990.0, "at most 10 s left")]
)
def test_on_a_terminal_the_best_and_the_time_left(tmp_path: Path, elapsed: float, left: str) -> None:
    out = shown(tmp_path, [*TOLD, told(1, 0.81, elapsed=elapsed)], terminal=True)
    assert "best 0.81 (10.00% lost, trial 1)" in out
    assert left in out
