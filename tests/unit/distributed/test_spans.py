"""Spans of a master: a slave's seconds on rank 0's clock."""

from dataclasses import dataclass, field

import pytest

from quantuner.api.timeline import Ending, Kind, Span
from quantuner.api.trial import TrialResult
from quantuner.distributed.protocol import Abandoned, Answer, Failed, Task
from quantuner.distributed.spans import Spans

GOOD, BAD = TrialResult(accuracy=0.5), TrialResult(accuracy=None, error="it fails")


@dataclass
class Seen:
    """An observer whose clock is set by hand."""

    time: float = 0.0
    spans: list[Span] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def span(self, span: Span) -> None:
        self.spans.append(span)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def spans(seen: Seen) -> Spans:
    return Spans(seen)


def test_a_span_ends_when_its_answer_was_ready_and_lasts_as_long_as_the_slave_says(seen: Seen, spans: Spans) -> None:
    seen.time = 10.0
    spans.given(1)
    seen.time = 20.0
    spans.answered(1, Answer(Task(4), GOOD, seconds=3.0, ready=5.0), 7.0, counts=True)
    assert seen.spans == [Span(1, Kind.TRIAL, 4, "", 15.0, 18.0, Ending.TOLD)]


def test_a_span_begins_neither_before_its_rank_had_work_nor_before_the_last_one_ended(seen: Seen, spans: Spans) -> None:
    seen.time = 10.0
    spans.given(1)
    seen.time = 12.0
    spans.answered(1, Answer(Task(4), GOOD, seconds=2.5, ready=7.0), 7.0, counts=True)
    seen.time = 13.0
    spans.answered(1, Answer(Task(5), GOOD, seconds=1.5, ready=7.0), 7.0, counts=True)
    assert [(span.start, span.end) for span in seen.spans] == [(10.0, 12.0), (12.0, 13.0)]


def test_a_span_does_not_end_before_it_begins(seen: Seen, spans: Spans) -> None:
    seen.time = 10.0
    spans.given(1)
    spans.answered(1, Answer(Task(4), GOOD, seconds=0.1, ready=2.0), 7.0, counts=True)  # the age is of another clock
    assert [(span.start, span.end) for span in seen.spans] == [(10.0, 10.0)]


@pytest.mark.parametrize(
    ("value", "counts", "ending"),
    [
        (GOOD, True, Ending.TOLD),
        (GOOD, False, Ending.ABANDONED),
        (BAD, True, Ending.FAILED),
        (Failed("share"), True, Ending.FAILED),
        (Abandoned(), False, Ending.ABANDONED),
    ],
)
def test_what_became_of_it(seen: Seen, spans: Spans, value: object, counts: bool, ending: Ending) -> None:
    spans.given(1)
    spans.answered(1, Answer(Task(4), value, seconds=0.0, ready=7.0), 7.0, counts=counts)
    assert [span.outcome for span in seen.spans] == [ending]


def test_a_share_says_which(seen: Seen, spans: Spans) -> None:
    task = Task(4, part=1, parts=3)
    spans.given(1)
    spans.answered(1, Answer(task, ("logits",), seconds=0.0, ready=7.0), 7.0, counts=True)
    assert [(span.kind, span.part) for span in seen.spans] == [(Kind.PART, "2/3")]


def test_what_was_not_begun_is_no_span(seen: Seen, spans: Spans) -> None:
    spans.given(1)
    spans.answered(1, Answer(Task(4), Abandoned(begun=False), seconds=0.0, ready=7.0), 7.0, counts=False)
    assert not seen.spans


def test_only_the_second_rank_has_a_duplicate_and_only_that_time(seen: Seen, spans: Spans) -> None:
    spans.given(1)
    spans.given(2)
    spans.again(2, Task(4))
    spans.answered(2, Answer(Task(4), GOOD, seconds=0.0, ready=7.0), 7.0, counts=True)
    spans.answered(1, Answer(Task(4), Abandoned(), seconds=0.0, ready=7.0), 7.0, counts=False)
    spans.given(2)
    spans.answered(2, Answer(Task(4), GOOD, seconds=0.0, ready=7.0), 7.0, counts=True)
    assert [(span.rank, span.kind) for span in seen.spans] == [(2, Kind.DUPLICATE), (1, Kind.TRIAL), (2, Kind.TRIAL)]


def test_a_lost_rank_was_at_its_task_until_the_loss_was_noticed(seen: Seen, spans: Spans) -> None:
    seen.time = 10.0
    spans.given(1)
    seen.time = 30.0
    spans.lost(1, Task(4))
    assert seen.spans == [Span(1, Kind.TRIAL, 4, "", 10.0, 30.0, Ending.LOST)]
