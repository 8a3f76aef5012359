import pytest

from quantuner.api.timeline import LaunchSpans
from quantuner.cli.axis import GAP_SHARE, axis, duration, round_step


def launch(began: float, seconds: float) -> LaunchSpans:
    return LaunchSpans(began=began, ranks=2, ended=seconds)


def test_one_launch_is_drawn_as_it_was() -> None:
    found = axis([launch(1000, 40)])
    assert (found.drawn, found.length, found.gaps) == ((0.0,), 40.0, [])
    assert list(found.ticks(4)) == [(0.0, "0 s"), (10.0, "10 s"), (20.0, "20 s"), (30.0, "30 s"), (40.0, "40 s")]


def test_a_night_between_launches_is_cut_short() -> None:
    found = axis([launch(0, 50), launch(43_250, 50)])
    assert found.gaps == [43_200.0]
    assert found.drawn == (0.0, 50 + GAP_SHARE * 100)
    assert found.length == 100 * (1 + GAP_SHARE)


def test_a_short_gap_is_drawn_as_it_was_and_moments_keep_their_time() -> None:
    found = axis([launch(0, 50), launch(54, 50)])
    assert found.drawn == (0.0, 54.0)
    assert list(found.ticks(6))[-1] == (100.0, "100 s")


def test_no_launch_and_one_that_did_nothing_have_a_length_to_divide_by() -> None:
    assert axis([]).length == 1.0
    assert axis([launch(0, 0)]).length == 1.0


@pytest.mark.parametrize(
    ("seconds", "step"),
    [(0.0003, 0.0005), (0.11, 0.2), (1.0, 1.0), (3.0, 5.0), (6.0, 10.0), (12, 20), (25, 30), (45, 60), (130, 300),
     (4000, 7200), (50_000, 86_400), (100_000, 172_800)],
)  # fmt: skip
def test_steps_are_those_that_people_count_in(seconds: float, step: float) -> None:
    assert round_step(seconds) == step


def test_ticks_have_the_unit_of_their_step() -> None:
    assert [label for _, label in axis([launch(0, 7300)]).ticks(4)] == ["0 h", "1 h", "2 h"]
    assert [label for _, label in axis([launch(0, 100)]).ticks(2)] == ["0 min", "1 min"]
    assert [label for _, label in axis([launch(0, 0.002)]).ticks(2)] == ["0 ms", "1 ms", "2 ms"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0123, "12.3 ms"),
        (1.5, "1.5 s"),
        (119, "119 s"),
        (150, "2.5 min"),
        (9000, "2.5 h"),
        (2e5, "2.31 d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
