"""One evaluation in shares: what each batch adds to each metric, and the whole's sums made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Addend = tuple[float, int]
"""What a batch adds to a metric: the sum over its rows, and how many they are."""


@dataclass(frozen=True)
class Share:
    """One of several ranks' part of an evaluation. Crosses MPI, so it holds plain data only."""

    data: str
    """Identifies the content of all batches in their order, also of those that others evaluated."""
    batches: int
    """How many the loader gave."""
    addends: tuple[tuple[Addend, ...], ...]
    """Of each batch of this share, in order: each metric's."""


@dataclass(frozen=True)
class TrialShare:
    """A trial's share, with what was measured of it. Crosses MPI, too."""

    share: Share
    seconds: float
    """Wall seconds of the whole share."""
    evaluation_seconds: float
    """Those of evaluating alone."""
    footprint: float
    """Peak memory in MiB; 0 where it is no objective."""


def sums(shares: Sequence[Share]) -> list[Addend]:
    """Each metric's (sum, rows) over all batches, added in the order of batches as one process adds them.

    `shares[i]` has the batches i, i + n, i + 2·n, … of n shares. Raises `ValueError` where ranks saw other data.
    """
    if len({(share.data, share.batches) for share in shares}) != 1:
        raise ValueError(
            "eval_dataloader gave ranks other batches, or in another order, so that no evaluation can be divided "
            "between them; a loader that does not shuffle can"
        )
    parts = len(shares)
    ordered = [shares[i % parts].addends[i // parts] for i in range(shares[0].batches)]
    return [_sum(column) for column in zip(*ordered, strict=True)]


def _sum(addends: Sequence[Addend]) -> Addend:
    total, count = 0.0, 0
    for value, rows in addends:  # not math.fsum, nor sum(), which compensates: one process adds as here
        total += value
        count += rows
    return total, count


def finite(addends: tuple[Addend, ...]) -> tuple[Addend, ...]:
    """The addends. Raises `ValueError` for one that is not finite: the whole evaluation says what is wrong."""
    if not all(math.isfinite(value) for value, _ in addends):
        raise ValueError("a metric of a batch is not a finite number")
    return addends
