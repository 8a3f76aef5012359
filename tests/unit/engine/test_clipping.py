"""The range that clips values with least error is the histogram observer's own, to the bit."""

import pytest
import torch

from quantuner.engine.clipping import Clipping
from quantuner.engine.pt2e import HistogramObserver

BINS = 2048


def _bell(scale: float) -> torch.Tensor:
    return torch.histc(torch.randn(50_000) * scale, BINS)


HISTOGRAMS = {
    "bell": lambda: _bell(1.0),
    "far outliers": lambda: torch.cat([_bell(1.0)[: BINS - 1], torch.tensor([1.0])]),
    "one-sided": lambda: torch.histc(torch.rand(30_000).pow(6), BINS),
    "spread over several ranges": lambda: _bell(1.0) / 16 + _bell(9.0) / 3,
    "one bin": lambda: torch.nn.functional.one_hot(torch.tensor(700), BINS).float() * 9,
    "two bins": lambda: torch.zeros(BINS).index_fill(0, torch.tensor([0, BINS - 1]), 5.0),
    "more values than float32 counts": lambda: _bell(1.0) * 7e5,
}


@pytest.mark.parametrize("name", HISTOGRAMS)
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_observers_own(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    histogram, (low, high) = HISTOGRAMS[name](), torch.randn(2).sort().values
    found = []
    for kind in (Clipping, HistogramObserver):
        observer = kind(bins=BINS, dtype=torch.uint8, quant_min=0, quant_max=255)
        observer.histogram, observer.min_val, observer.max_val = histogram.clone(), low.clone(), high.clone()
        found.append(observer._non_linear_param_search())
    assert found[0] == found[1]


def test_it_does_not_walk_through_tensors() -> None:
    observer = Clipping(bins=BINS, dtype=torch.uint8, quant_min=0, quant_max=255)
    observer.histogram, observer.min_val, observer.max_val = _bell(1.0), torch.tensor(-1.0), torch.tensor(1.0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        observer._non_linear_param_search()
    compared = sum(event.count for event in profile.key_averages() if event.key in ("aten::lt", "aten::gt"))
    assert compared == 0
