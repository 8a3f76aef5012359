"""The picture, on consoles of every kind."""

import io

import pytest
from rich.console import Console

from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span
from quantuner.cli.timeline import draw, look


def span(
    rank: int, start: float, end: float, kind: str = Kind.TRIAL, index: int = 0, outcome: str = Ending.TOLD
) -> Span:
    return Span(rank, kind, index, "", start, end, outcome)


RUN = LaunchSpans(
    began=0.0,
    ranks=2,
    spans=[
        span(0, 0, 2, Kind.SETUP),
        span(1, 0, 2, Kind.SETUP),
        span(0, 2, 3, Kind.BASELINE),
        span(1, 3, 5, index=2),
        span(1, 5, 7, index=3),
        span(0, 8, 9, Kind.VERIFY),
    ],
    ended=10.0,
)


def drawn(launches: list[LaunchSpans], width: int = 62, *, colours: bool = False, derived: bool = False) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        highlight=False,
        force_terminal=colours,
        color_system="standard" if colours else None,
        legacy_windows=False,
    )
    draw(launches, console, derived=derived)
    return out.getvalue()


def test_a_run_in_letters() -> None:
    """50 columns of 0.2 s."""
    assert drawn([RUN]).splitlines() == [
        "rank 0 ssssssssssbbbbb.........................vvvvv.....  40%",
        "rank 1 ssssssssss.....##########==========...............  60%",
        "       |0 s                     |5 s                    |",
        "s setup   b baseline   #= trial   v verification   . idle",
        "utilization: 50% of 2 ranks over 10 s",
        "utilization while trials ran, of the ranks that evaluate them: 100%",
        "first trial: after 3 s",
    ]


def test_losses_and_failures_are_seen_however_short() -> None:
    bad = [span(1, 7.0, 7.001, index=4, outcome=Ending.FAILED), span(1, 7.5, 7.501, index=5, outcome=Ending.LOST)]
    picture = drawn([LaunchSpans(began=0.0, ranks=2, spans=[*RUN.spans, *bad], ended=10.0)])
    row = picture.splitlines()[1]
    assert (row.count("F"), row.count("X")) == (1, 1)
    assert "F failed" in picture
    assert "X lost" in picture


def test_launches_and_what_was_between_them() -> None:
    second = LaunchSpans(began=3600.0, ranks=1, spans=[span(0, 0, 4, index=1)], ended=5.0)
    lost = LaunchSpans(began=0.0, ranks=2, spans=RUN.spans)
    lines = drawn([lost, second]).splitlines()
    assert lines[0].split() == ["|launch", "1", "|launch", "2"]
    assert ":" in lines[1]
    assert lines[2].rstrip("0123456789% ").endswith(":" * 15)  # rank 1 is not there any more
    assert "launch 1 was lost: it was last heard of 59.9 min before launch 2 began" in lines
    orderly = drawn([RUN, second])
    assert "launch 1 ended 59.8 min before launch 2 began" in orderly


def test_colours_instead_of_letters() -> None:
    picture = drawn([RUN], colours=True)
    assert "█" in picture
    assert "#" not in picture
    for colour in ("\x1b[34m", "\x1b[36m", "\x1b[32m", "\x1b[92m", "\x1b[94m"):
        assert colour in picture


def test_how_busy_a_column_was_is_shown_by_its_shade() -> None:
    picture = drawn(
        [LaunchSpans(began=0.0, ranks=1, spans=[span(0, 0, 0.2), span(0, 50, 50.5)], ended=54.0)], colours=True
    )
    assert "░" in picture
    assert "▒" in picture


@pytest.mark.parametrize("ranks", [1, 2, 9, 64, 100])
@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_any_number_of_ranks_on_any_width(ranks: int, width: int) -> None:
    spans = [span(rank, rank, rank + 5.5, index=rank) for rank in range(ranks)]
    lines = drawn([LaunchSpans(began=0.0, ranks=ranks, spans=spans)], width).splitlines()
    rows = [line for line in lines if line.startswith("rank ") and line.endswith("%")]
    assert len(rows) == min(ranks, 64)
    assert {len(row) for row in rows} == {max(len(row) for row in rows)}
    assert all(len(row) <= width for row in rows)
    assert ("and 36 more ranks" in lines) == (ranks == 100)


def test_only_what_ascii_has_where_there_are_no_colours() -> None:
    assert drawn([RUN, RUN]).isascii()


def test_more_spans_than_columns() -> None:
    """Ten thousand trials of a millisecond."""
    spans = [span(1, i / 1000, (i + 1) / 1000, index=i) for i in range(10_000)]
    row = drawn([LaunchSpans(began=0.0, ranks=2, spans=spans)]).splitlines()[1]
    assert set(row.split()[2]) <= set("#=")
    assert row.endswith("100%")


def test_what_is_derived_or_cut_says_so() -> None:
    assert "derived from the journal" in drawn([RUN], 200, derived=True)
    full = LaunchSpans(began=0.0, ranks=2, spans=RUN.spans, full=True)
    assert "recording stopped at its limit of 100,000 spans" in drawn([full], 200)


def test_nothing_is_drawn_of_nothing() -> None:
    assert drawn([]) == ""
    assert drawn([LaunchSpans(began=0.0, ranks=2, ended=1.0)]) == ""


def test_a_span_of_a_later_version_is_still_drawn() -> None:
    assert look(span(0, 0, 1, kind="tuned")) == "trial"
    assert look(span(0, 0, 1, outcome="postponed")) == "abandoned"
