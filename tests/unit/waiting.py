"""A search that was interrupted when a later trial was measured and the ones before it were not."""

from pathlib import Path

from quantuner.api.journal import Trial
from quantuner.api.spec import digest
from quantuner.api.trial import TrialResult
from quantuner.distributed.answered import Answered
from quantuner.distributed.journal import JOURNAL_FILE, read_history

KEPT_ACCURACY, KEPT_RANK = -7.0, 6
"""Of no trial that is really measured."""


def interrupt_and_keep(folder: Path, told: int, waiting: int) -> list[Trial]:
    """Cuts the journal after trial `told`, with the result of trial `waiting` kept; returns what it had."""
    journal = folder / JOURNAL_FILE
    history = read_history(journal)
    answered = Answered(folder)
    answered.begin(digest(history.launches[0].measuring))
    answered.expect({waiting: history.trials[waiting].digest})
    result = TrialResult(accuracy=KEPT_ACCURACY, objectives=history.trials[waiting].objectives, seconds=60.0)
    answered.keep({waiting: (result, KEPT_RANK)}, told=told + 1)
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[: 2 + told]))
    return history.trials
