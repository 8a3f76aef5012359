"""A run as an SVG picture: a bar for each span, ranks by time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from quantuner.api.timeline import Ending, LaunchSpans, Span
from quantuner.api.trace import title
from quantuner.api.utilization import by_rank, one_at_a_time, utilization
from quantuner.cli.axis import Axis, axis, duration
from quantuner.cli.timeline import TICK_COLUMNS, look

WIDTH, LEFT, RIGHT, TOP = 960, 70, 60, 34  # pixels
ROW, BAR = 22, 16
TICKS = (WIDTH - LEFT - RIGHT) // (TICK_COLUMNS * 7)
SMALLEST = 1.0  # pixels; shorter spans are drawn together with what follows
TITLED = 300  # spans up to which each bar has a tooltip

FILLS = {
    "setup": "#8da0cb",
    "baseline": "#5ab4ac",
    "trial": "#4daf4a",
    "next trial": "#8fd18c",
    "part of a trial": "#1b9e77",
    "duplicate": "#b07cc6",
    "verification": "#3b6fb6",
    "abandoned": "#e6ab02",
    "failed": "#e41a1c",
    "lost": "#8b0000",
}


def picture(launches: Sequence[LaunchSpans], name: str) -> str:
    """An SVG document, readable on light and on dark pages."""
    figures, scale = utilization(launches), axis(launches)
    ranks = len(figures.ranks)
    bottom = TOP + ROW * ranks
    used = [style for style in FILLS if any(look(span) == style for launch in launches for span in launch.spans)]
    head = f"{name}: {duration(figures.wall)}, {ranks} ranks, utilization {figures.overall:.0%}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 56}" role="img" '
        'font-family="sans-serif" font-size="12">',
        f"<title>{escape(head)}</title>",
        f'<rect width="{WIDTH}" height="{bottom + 56}" fill="#ffffff"/>',
        _text(10, 20, head, weight="bold"),
        *_rows(figures.ranks),
        *_there(launches, scale),
        *_ticks(scale, bottom),
        '<g stroke="#ffffff" stroke-width="0.5">',  # so that neighbours of one colour are seen to be two
        *_bars(launches, scale),
        "</g>",
        *_legend([style for style in used if style != "next trial" or "trial" not in used], bottom + 46),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _x(scale: Axis, drawn: float) -> float:
    return LEFT + drawn / scale.length * (WIDTH - LEFT - RIGHT)


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-weight="{weight}" fill="#333">{escape(text)}</text>'
    )


def _rows(shares: Sequence[float]) -> Iterator[str]:
    for rank, share in enumerate(shares):
        yield _text(10, TOP + ROW * rank + 15, f"rank {rank}")
        yield _text(WIDTH - 10, TOP + ROW * rank + 15, f"{share:.0%}", anchor="end")


def _there(launches: Sequence[LaunchSpans], scale: Axis) -> Iterator[str]:
    """Behind the bars: where each rank was there."""
    for launch, drawn in zip(launches, scale.drawn, strict=True):
        x, width = _x(scale, drawn), _x(scale, drawn + launch.seconds) - _x(scale, drawn)
        for rank in range(launch.ranks):
            yield f'<rect x="{x:.1f}" y="{TOP + ROW * rank + 3}" width="{width:.1f}" height="{BAR}" fill="#eeeeee"/>'


def _bars(launches: Sequence[LaunchSpans], scale: Axis) -> Iterator[str]:
    titled = sum(len(launch.spans) for launch in launches) <= TITLED
    for launch, drawn in zip(launches, scale.drawn, strict=True):
        for rank, spans in by_rank(launch.spans).items():
            y = TOP + ROW * rank + 3
            for x, end, span in _joined(one_at_a_time(spans), scale, drawn):
                shape = f'<rect x="{x:.1f}" y="{y}" width="{end - x:.1f}" height="{BAR}" fill="{FILLS[look(span)]}"'
                told = "" if span.outcome == Ending.TOLD else f", {span.outcome}"
                hint = f"<title>{escape(title(span) + told)}, {duration(span.seconds)}</title>"
                yield f"{shape}>{hint}</rect>" if titled else f"{shape}/>"


def _joined(spans: Sequence[Span], scale: Axis, drawn: float) -> Iterator[tuple[float, float, Span]]:
    """Left and right of each bar. Spans too short to be seen are left out where they begin inside the last bar."""
    reached = 0.0
    for span in spans:
        x, end = _x(scale, drawn + span.start), _x(scale, drawn + span.end)
        if end <= reached and span.outcome == Ending.TOLD:
            continue
        reached = max(end, x + SMALLEST)
        yield x, reached, span


def _ticks(scale: Axis, bottom: float) -> Iterator[str]:
    for drawn, label in scale.ticks(TICKS):
        x = _x(scale, drawn)
        yield f'<path d="M{x:.1f} {TOP}V{bottom + 4}" stroke="#999999" stroke-width="0.5"/>'
        yield _text(x, bottom + 18, label, anchor="middle")


def _legend(used: Sequence[str], y: float) -> Iterator[str]:
    x = float(LEFT)
    for style in used:
        yield f'<rect x="{x:.0f}" y="{y - 10:.0f}" width="12" height="12" fill="{FILLS[style]}"/>'
        yield _text(x + 17, y, style.removeprefix("next "))
        x += 17 + 7 * len(style) + 20
