from quantuner.api.derived import derived
from quantuner.api.journal import Finished, Outcome, Record
from quantuner.api.timeline import Ending, Kind, Span
from tests.unit.records import launched, told


def test_a_search_in_one_process() -> None:
    records: list[Record] = [
        launched(ranks=1, hosts=("laptop",)),
        told(0, 1.0, seconds=2.0, elapsed=2.5),
        told(1, 0.9, seconds=1.0, elapsed=4.0),
        told(2, None, seconds=0.5, elapsed=4.5),
        Finished(outcome=Outcome.EXHAUSTED, best=1, accuracy=0.9, artifact="", time="2026-01-02T03:04:15Z"),
    ]
    [launch] = derived(records)
    assert (launch.began, launch.ranks, launch.hosts) == (1767323045.0, 1, ("laptop",))
    assert launch.spans == [
        Span(0, Kind.BASELINE, 0, "", 0.5, 2.5, Ending.TOLD),
        Span(0, Kind.TRIAL, 1, "", 3.0, 4.0, Ending.TOLD),
        Span(0, Kind.TRIAL, 2, "", 4.0, 4.5, Ending.FAILED),
    ]


def test_a_trial_that_was_told_late_is_put_before_the_next_one_of_its_rank() -> None:
    """Rank 2 had trials 2 and 3 while rank 1 was at the slow trial 1; all were told when that ended."""
    trials = [(1, 1, 10.0), (2, 2, 3.0), (3, 2, 4.0)]
    records = [told(index, 0.5, rank=rank, seconds=seconds, elapsed=12.0) for index, rank, seconds in trials]
    [launch] = derived([launched(), told(0, 1.0, elapsed=1.0, seconds=1.0), *records])
    assert [(span.index, span.start, span.end) for span in launch.spans] == [
        (0, 0.0, 1.0),
        (1, 2.0, 12.0),
        (2, 5.0, 8.0),
        (3, 8.0, 12.0),
    ]


def test_a_launch_after_a_loss_counts_from_its_own_start() -> None:
    before: list[Record] = [
        launched(),
        told(0, 1.0, seconds=1.0, elapsed=1.0),
        told(1, 0.5, seconds=2.0, elapsed=4.0, rank=1),
    ]
    after: list[Record] = [launched(time="2026-01-02T03:05:05Z"), told(2, 0.5, seconds=2.0, elapsed=9.0, rank=1)]
    first, second = derived([*before, *after])
    assert second.began - first.began == 60.0
    assert [(span.index, span.start, span.end) for span in second.spans] == [(2, 3.0, 5.0)]


def test_nothing_begins_before_its_launch() -> None:
    """A journal without elapsed times still has an order."""
    [launch] = derived([launched(), *(told(index, 0.5, seconds=1.0) for index in range(3))])
    assert [(span.index, span.start, span.end) for span in launch.spans] == [(0, 0, 1), (1, 1, 2), (2, 2, 3)]


def test_an_empty_journal() -> None:
    assert derived([]) == []
