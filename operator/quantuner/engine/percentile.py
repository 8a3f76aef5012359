"""Ranges that leave the rarest values out, from the histogram that calibration collected."""

import torch

from quantuner.engine.calibrate import Range
from quantuner.space.capability import PERCENTILE

DEFAULT_PERCENT = 99.99
"""Of `percentile` alone; one of those that Wu et al. 2020 (arXiv:2004.09602) compare, a good one on most networks."""


def percent_of(algorithm: str) -> float | None:
    """99.9 of `percentile:99.9`; None for another algorithm."""
    found = PERCENTILE.fullmatch(algorithm)
    return float(found[1] or DEFAULT_PERCENT) if found else None


def holding(seen: Range, percent: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Ends, () float32, of the narrowest range that leaves at most (100 - percent) / 2 % of the values on each side.

    Source: Wu et al. 2020 (arXiv:2004.09602, on calibration), who cut the absolute values; here both sides are cut
    alike, and the zero point or the symmetric scheme takes it from there. The range is of whole bins, those of `seen`,
    which are equally wide between its ends; where nothing was counted it is the range seen.
    """
    counts = seen.histogram.double()
    total = float(counts.sum())
    if not total:
        return seen.minimum, seen.maximum
    out = total * (1 - percent / 100) / 2
    edges = torch.linspace(seen.minimum.item(), seen.maximum.item(), len(counts) + 1, dtype=torch.float64)
    below, above = _bins_within(counts, out), _bins_within(counts.flip(0), out)
    return edges[below].float(), edges[len(counts) - above].float()


def _bins_within(counts: torch.Tensor, limit: float) -> int:
    """How many of the first bins hold at most `limit` together."""
    return int((counts.cumsum(0) <= limit).sum())
