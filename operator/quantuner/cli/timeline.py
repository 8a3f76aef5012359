"""A run as a picture for terminals: ranks by time, a letter or a coloured block for what each did."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

from quantuner.api.timeline import SPANS_LIMIT, Ending, Kind, LaunchSpans, Span
from quantuner.api.utilization import Utilization, utilization
from quantuner.cli.axis import Axis, axis, duration

ROWS_LIMIT = 64
TICK_COLUMNS = 14  # columns for one label of the time axis, at least
IDLE, AWAY = ("·", "dim"), (":", "dim")  # a rank that waits; no rank there
BLOCKS = "░▒▓█"  # share of a column in which the rank was busy

LOOKS = {
    "setup": ("s", "blue"),
    "baseline": ("b", "cyan"),
    "trial": ("#", "green"),
    "next trial": ("=", "bright_green"),
    "part of a trial": ("p", "bright_cyan"),
    "duplicate": ("d", "magenta"),
    "verification": ("v", "bright_blue"),
    "abandoned": ("a", "yellow"),
    "failed": ("F", "red"),
    "lost": ("X", "bright_red"),
}
"""What is drawn, its letter where there are no colours, its colour; the last ones win where a column has several."""
_NAMES: dict[str, str] = {
    Kind.SETUP: "setup",
    Kind.BASELINE: "baseline",
    Kind.PART: "part of a trial",
    Kind.DUPLICATE: "duplicate",
    Kind.VERIFY: "verification",
}
GRAVE = ("failed", "lost")  # shown however short


def look(span: Span) -> str:
    """The key of `LOOKS`. Trials that follow each other have two, so that they can be told apart."""
    if span.outcome != Ending.TOLD:
        return str(span.outcome) if span.outcome in LOOKS else "abandoned"
    if span.kind == Kind.TRIAL:
        return "next trial" if span.index % 2 else "trial"
    return _NAMES.get(span.kind, "trial")


def draw(launches: Sequence[LaunchSpans], console: Console, *, derived: bool = False) -> None:
    """Prints the picture as wide as the console, and the figures below it; nothing where no rank did anything."""
    if not any(launch.spans for launch in launches):
        return
    figures = utilization(launches)
    plain = is_plain(console)
    for line in _picture(launches, figures, console.width, plain=plain):
        console.print(line, no_wrap=True, overflow="crop")
    for line in _legend(launches, console.width, plain=plain):
        console.print(line)
    for text in notes(launches, figures, derived=derived):
        console.print(text, markup=False, soft_wrap=True)


def is_plain(console: Console) -> bool:
    """Whether only letters can be counted on: a file, a CI log, a terminal without colours or Unicode."""
    return console.color_system is None or console.no_color or console.options.ascii_only


def notes(launches: Sequence[LaunchSpans], figures: Utilization, *, derived: bool) -> Iterator[str]:
    """The figures, a line each."""
    ranks = len(figures.ranks)
    yield f"utilization: {figures.overall:.0%} of {ranks} rank{'s' * (ranks > 1)} over {duration(figures.wall)}"
    if figures.trials is not None:
        yield f"utilization while trials ran, of the ranks that evaluate them: {figures.trials:.0%}"
    if figures.first_trial is not None:
        yield f"first trial: after {duration(figures.first_trial)}"
    if figures.longest_gap is not None:
        gap = figures.longest_gap
        yield f"longest idle gap while trials ran: {duration(gap.seconds)}, rank {gap.rank} at {duration(gap.start)}"
    for number, gap_seconds in enumerate(axis(launches).gaps, 1):
        how = "ended" if launches[number - 1].ended is not None else "was lost: it was last heard of"
        yield f"launch {number} {how} {duration(gap_seconds)} before launch {number + 1} began"
    if any(launch.full for launch in launches):
        yield f"recording stopped at its limit of {SPANS_LIMIT:,} spans; what followed is not shown"
    if derived:
        yield "derived from the journal, which knows told trials only: when one ended is an estimate"


def _picture(launches: Sequence[LaunchSpans], figures: Utilization, width: int, *, plain: bool) -> Iterator[Text]:
    rows = min(len(figures.ranks), ROWS_LIMIT)
    labels = [f"rank {rank}" for rank in range(rows)]
    left, right = max(map(len, labels)) + 1, len(" 100%")
    columns = max(5, width - left - right)
    scale = axis(launches)
    if len(launches) > 1:
        yield Text(" " * left + _heads(scale, columns), style="dim")
    for rank, cells in enumerate(_cells(launches, scale, rows, columns)):
        line = Text(f"{labels[rank]:<{left}}")
        glyphs = [_glyph(seconds, style, scale.length / columns, plain=plain) for seconds, style in cells]
        for colour, run in itertools.groupby(glyphs, key=lambda glyph: glyph[1]):
            line.append("".join(sign for sign, _ in run), colour)
        yield line.append(f"{figures.ranks[rank]:.0%}".rjust(right))
    yield Text(" " * left + _ticks(scale, columns), style="dim")
    if rows < len(figures.ranks):
        yield Text(f"and {len(figures.ranks) - rows} more ranks", style="dim")


Cell = tuple[float, str]
"""Seconds in which the rank was busy in a column's time, and how that looks: a key of `LOOKS`, `idle` or `away`."""


def _cells(launches: Sequence[LaunchSpans], scale: Axis, rows: int, columns: int) -> list[list[Cell]]:
    step = scale.length / columns
    busy: list[list[dict[str, float]]] = [[{} for _ in range(columns)] for _ in range(rows)]
    for launch, drawn in zip(launches, scale.drawn, strict=True):
        for span in launch.spans:
            if span.rank >= rows:
                continue
            for column, seconds in _columns(drawn + span.start, drawn + span.end, step, columns):
                found = busy[span.rank][column]
                found[look(span)] = found.get(look(span), 0.0) + seconds
    return [
        [_dominant(found, _there(launches, scale, rank, (column + 0.5) * step)) for column, found in enumerate(row)]
        for rank, row in enumerate(busy)
    ]


def _columns(start: float, end: float, step: float, columns: int) -> Iterator[tuple[int, float]]:
    """The columns that a span lies in, and its seconds in each."""
    first, last = min(columns - 1, int(start / step)), min(columns - 1, int(end / step))
    for column in range(first, last + 1):
        yield column, max(0.0, min(end, (column + 1) * step) - max(start, column * step))


def _there(launches: Sequence[LaunchSpans], scale: Axis, rank: int, at: float) -> bool:
    return any(
        rank < launch.ranks and drawn <= at <= drawn + seconds
        for launch, drawn, seconds in zip(launches, scale.drawn, scale.seconds, strict=True)
    )


def _dominant(found: dict[str, float], there: bool) -> Cell:
    """What took most of the time; what is grave before everything else."""
    grave = [style for style in GRAVE if style in found]
    if grave:
        return math.inf, grave[-1]
    if not any(found.values()):
        return 0.0, "idle" if there else "away"
    return sum(found.values()), max(found, key=lambda style: found[style])


def _glyph(seconds: float, style: str, step: float, *, plain: bool) -> tuple[str, str]:
    if style in ("idle", "away"):
        sign, colour = IDLE if style == "idle" else AWAY
        return ("." if plain and style == "idle" else sign), colour
    letter, colour = LOOKS[style]
    if plain:
        return (letter if 8 * seconds >= step else "."), ""
    return BLOCKS[min(3, int(4 * seconds / step)) if seconds < step else 3], colour


def _heads(scale: Axis, columns: int) -> str:
    """Where each launch begins."""
    return _placed([(drawn, f"|launch {n}", f"|{n}") for n, drawn in enumerate(scale.drawn, 1)], scale, columns)


def _ticks(scale: Axis, columns: int) -> str:
    ticks = scale.ticks(columns // TICK_COLUMNS)
    return _placed([(drawn, f"|{label}", "|") for drawn, label in ticks], scale, columns)


def _placed(marks: Iterable[tuple[float, str, str]], scale: Axis, columns: int) -> str:
    """A line with a text at each place; the short form, or nothing, where the long one would reach the next."""
    line = ""
    places = [(min(columns - 1, int(drawn / scale.length * columns)), long, short) for drawn, long, short in marks]
    for (column, long, short), following in zip(places, [*places[1:], (columns + 1, "", "")], strict=True):
        if column >= len(line):
            line = line.ljust(column) + (long if column + len(long) < following[0] else short)
    return line


def _legend(launches: Sequence[LaunchSpans], width: int, *, plain: bool) -> Iterator[Text]:
    """Of what is in the picture, in lines that break between entries."""
    used = {look(span) for launch in launches for span in launch.spans}
    if "next trial" in used:  # both stand in one entry
        used.add("trial")
    line = Text()
    for name in [*LOOKS, "idle"]:
        if name != "idle" and (name not in used or name == "next trial"):
            continue
        entry = _entry(name, plain=plain)
        if line and len(line) + len(entry) > width:
            yield line
            line = Text()
        line.append(entry)
    yield line


def _entry(name: str, *, plain: bool) -> Text:
    if name == "idle":
        return Text(f"{'.' if plain else IDLE[0]} idle", IDLE[1])
    entry = Text()
    for letter, colour in [LOOKS[name], *([LOOKS["next trial"]] if name == "trial" else [])]:
        entry.append(letter if plain else BLOCKS[-1], "" if plain else colour)
    return entry.append(f" {name}   ")
