from xml.etree import ElementTree

from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span
from quantuner.cli.svg import FILLS, LEFT, RIGHT, WIDTH, picture
from quantuner.cli.timeline import LOOKS

SVG = "{http://www.w3.org/2000/svg}"


def trial(rank: int, index: int, start: float, end: float, outcome: str = Ending.TOLD) -> Span:
    return Span(rank, Kind.TRIAL, index, "", start, end, outcome)


def bars(document: str) -> list[ElementTree.Element]:
    group = ElementTree.fromstring(document).find(f"{SVG}g")
    assert group is not None
    return list(group)


def test_bars_are_where_the_spans_were() -> None:
    spans = [trial(1, 1, 0.0, 5.0), trial(0, 2, 5.0, 10.0, Ending.LOST)]
    second, first = sorted(
        bars(picture([LaunchSpans(0.0, 2, spans=spans)], "a <b> & c")), key=lambda bar: bar.attrib["y"]
    )[::-1]
    width = WIDTH - LEFT - RIGHT
    assert (first.attrib["x"], first.attrib["width"]) == (f"{LEFT + width / 2:.1f}", f"{width / 2:.1f}")
    assert (second.attrib["x"], second.attrib["width"]) == (f"{LEFT:.1f}", f"{width / 2:.1f}")
    assert (first.attrib["fill"], first.findtext(f"{SVG}title")) == (FILLS["lost"], "trial 2, lost, 5 s")
    assert (second.attrib["fill"], second.findtext(f"{SVG}title")) == (FILLS["next trial"], "trial 1, 5 s")


def test_the_title_and_every_rank_with_its_share_are_there() -> None:
    document = picture([LaunchSpans(0.0, 3, spans=[trial(1, 1, 0.0, 5.0)], ended=10.0)], "a <b> & c")
    texts = [text.text for text in ElementTree.fromstring(document).iter(f"{SVG}text")]
    assert texts[0] == "a <b> & c: 10 s, 3 ranks, utilization 17%"
    assert {"rank 0", "rank 2", "50%", "trial", "0 s", "10 s"} <= set(texts)


def test_a_hundred_thousand_spans_are_no_huge_file_and_hide_no_failure() -> None:
    spans = [trial(1, i, i / 1000, (i + 1) / 1000) for i in range(100_000)]
    spans[500] = trial(1, 500, 0.5, 0.501, Ending.FAILED)
    document = picture([LaunchSpans(0.0, 2, spans=spans)], "many")
    assert len(document) < 150_000
    assert sum(bar.attrib["fill"] == FILLS["failed"] for bar in bars(document)) == 1


def test_every_look_has_a_fill() -> None:
    assert set(FILLS) == set(LOOKS)
