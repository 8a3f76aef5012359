import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.errors import JournalError
from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span, encode_mark, encode_span, read

LAUNCH = encode_mark("launch", began=1000.5, ranks=3)
TRIAL = Span(2, Kind.TRIAL, 7, "", 1.25, 2.5, Ending.TOLD)

spans = st.builds(
    Span,
    rank=st.integers(0, 63),
    kind=st.sampled_from(list(Kind)),
    index=st.integers(0, 2000),
    part=st.sampled_from(["", "1/2", 'a "part"\n']),
    start=st.integers(0, 10**12).map(lambda us: us / 1e6),
    end=st.integers(0, 10**12).map(lambda us: us / 1e6),
    outcome=st.sampled_from(list(Ending)),
)


@given(st.lists(spans))
def test_spans_are_read_as_they_were_written(recorded: list[Span]) -> None:
    [launch] = read([LAUNCH, *map(encode_span, recorded)])
    assert launch == LaunchSpans(began=1000.5, ranks=3, spans=recorded)


def test_a_span_is_a_short_line() -> None:
    assert encode_span(TRIAL) == '[2,"trial",7,"",1.25,2.5,"told"]'


def test_launches_have_their_own_hosts_spans_and_ends() -> None:
    second = encode_mark("launch", began=1010.0, ranks=2)
    hosts, end = encode_mark("hosts", names=["a", "b", "c"]), encode_mark("end", at=4.0)
    first_launch, second_launch = read([LAUNCH, hosts, encode_span(TRIAL), second, end])
    assert first_launch == LaunchSpans(began=1000.5, ranks=3, hosts=("a", "b", "c"), spans=[TRIAL])
    assert second_launch == LaunchSpans(began=1010.0, ranks=2, ended=4.0)


def test_how_long_a_launch_lasted() -> None:
    assert LaunchSpans(began=0.0, ranks=1).seconds == 0.0
    killed = LaunchSpans(began=0.0, ranks=3, spans=[TRIAL])
    assert killed.seconds == 2.5
    assert LaunchSpans(began=0.0, ranks=3, spans=[TRIAL], ended=3.0).seconds == 3.0
    assert LaunchSpans(began=0.0, ranks=3, spans=[TRIAL], ended=90.0, full=True).seconds == 2.5


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "[2,",
        "null",
        "3",
        "{}",
        '{"v":1}',
        '[1,"trial"]',
        '[1,"trial",0,"","a","b","told"]',
        '{"v":1,"op":"launch"}',
    ],
)
def test_a_damaged_line_is_passed_over(damaged: str) -> None:
    assert read([damaged]) == []
    [launch] = read([LAUNCH, damaged, encode_span(TRIAL), damaged])
    assert launch.spans == [TRIAL]


def test_a_file_of_another_format_is_refused() -> None:
    with pytest.raises(JournalError, match="format 1, not 2"):
        read(['{"v":2,"op":"launch"}'])
