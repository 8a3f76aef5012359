"""Where a moment of a run is drawn: launches side by side, and the time between them cut short."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantuner.api.timeline import LaunchSpans
from quantuner.api.utilization import offsets

GAP_SHARE = 0.06  # of the launches' seconds: as wide as a gap between two of them is drawn at most


@dataclass(frozen=True)
class Axis:
    """Drawn seconds, from 0 to `length`. A search that went on the next day is not drawn as one line of night."""

    offsets: tuple[float, ...]
    """When each launch began, in seconds after the first."""
    drawn: tuple[float, ...]
    """Where it is drawn."""
    seconds: tuple[float, ...]
    """How long each lasted."""

    @property
    def length(self) -> float:
        return max((d + s for d, s in zip(self.drawn, self.seconds, strict=True)), default=0.0) or 1.0

    @property
    def gaps(self) -> list[float]:
        """True seconds between one launch's end and the next one's start."""
        ends = [offset + seconds for offset, seconds in zip(self.offsets, self.seconds, strict=True)]
        return [start - end for start, end in zip(self.offsets[1:], ends[:-1], strict=True)]

    def ticks(self, most: int) -> Iterator[tuple[float, str]]:
        """About `most` round moments, at most: where each is drawn, and its time after the first launch began."""
        step = round_step(self.length / max(1, most))
        for offset, drawn, seconds in zip(self.offsets, self.drawn, self.seconds, strict=True):
            for number in range(math.ceil(offset / step - 1e-9), math.floor((offset + seconds) / step + 1e-9) + 1):
                yield drawn + number * step - offset, _in_unit_of(step, number * step)


def axis(launches: Sequence[LaunchSpans]) -> Axis:
    began, seconds = offsets(launches), [launch.seconds for launch in launches]
    cap = GAP_SHARE * sum(seconds)
    drawn: list[float] = []
    for number, offset in enumerate(began):
        end = began[number - 1] + seconds[number - 1] if number else offset
        before = drawn[-1] + seconds[number - 1] if number else 0.0
        drawn.append(before + min(offset - end, cap))
    return Axis(tuple(began), tuple(drawn), tuple(seconds))


def round_step(seconds: float) -> float:
    """The next step up that people count in: 1, 2 or 5 of a power of ten, and parts of minutes, hours and days."""
    if seconds > 30:
        steps = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
        return float(next((step for step in steps if step >= seconds), 86400 * math.ceil(seconds / 86400)))
    if seconds > 10:
        return 20.0 if seconds <= 20 else 30.0
    power = 10.0 ** math.floor(math.log10(seconds))
    return next(float(f"{m * power:.3g}") for m in (1, 2, 5, 10) if m * power >= seconds * (1 - 1e-9))


def _in_unit_of(step: float, seconds: float) -> str:
    unit, name = next((u, n) for u, n in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (0, "ms")) if step >= u)
    return f"{seconds / unit:g} {name}" if unit else f"{seconds * 1e3:g} ms"


def duration(seconds: float) -> str:
    """For people: three digits or so."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms"
