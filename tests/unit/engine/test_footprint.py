"""Peak memory as the kernel counts it: of the work inside, not of what was before."""

import pytest
import torch

from quantuner.engine.footprint import MEBI, Footprint

LARGE = 256  # MiB: well above what the interpreter and its libraries allocate meanwhile
SLACK = 64  # MiB: theirs


def work(mebi: int) -> int:
    """Touches so much memory and frees it."""
    return int(torch.ones(mebi * MEBI, dtype=torch.uint8)[-1])


def measured(mebi: int) -> float:
    with Footprint() as footprint:
        work(mebi)
    return footprint.mebi


def test_work_is_seen_though_its_memory_was_freed() -> None:
    assert measured(LARGE) - measured(1) == pytest.approx(LARGE, abs=SLACK)


def test_a_peak_before_is_not_counted() -> None:
    work(LARGE)
    assert measured(LARGE // 2) < measured(LARGE) - SLACK


def test_what_is_not_wanted_is_not_measured() -> None:
    with Footprint(wanted=False) as footprint:
        work(1)
    assert footprint.mebi == 0.0


def test_it_is_measured_where_the_work_raises() -> None:
    footprint = Footprint()
    with pytest.raises(ValueError, match="too large"), footprint:
        raise ValueError("too large")
    assert footprint.mebi > 0
