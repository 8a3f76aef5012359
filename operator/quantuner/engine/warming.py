"""What every search does at first and only once in a process, done before there is a search."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from quantuner.engine.capture import capture


def warm() -> None:
    """Captures a tiny model: torch imports much of its export when that is first used, and keeps tables for the next.

    Starts no thread, which forks would miss, and draws no random number of the process's generators.
    """
    with _one_thread(), torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
        capture(model, (torch.zeros(2, 1, 4, 4),))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)
