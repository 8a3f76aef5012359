"""A small real model: a convolution and two linears that read scanned digits, trained in about a second."""

import functools
from typing import Any

import sklearn.datasets
import torch
from torch import nn

CALIBRATION, HELD_OUT = slice(0, 100), slice(1000, 1797)


class DigitsNet(nn.Module):
    """`(N, 1, 8, 8)` in [0, 1] to `(N, 10)`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.hidden = nn.Linear(288, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.hidden(self.norm(self.conv(x)).relu().flatten(1)).relu())
        return y


@functools.cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    bunch: Any = sklearn.datasets.load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return images, torch.tensor(bunch.target)


def train(model: Any, steps: int, rate: float) -> None:
    """So many steps of Adam over the first 1,000 digits, in a fixed order."""
    images, labels = digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for step in range(steps):
        batch = torch.arange(step * 64, (step + 1) * 64) % 1000
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()


@functools.cache
def _weights() -> dict[str, torch.Tensor]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums are made in another order by more
    torch.manual_seed(0)
    model = DigitsNet()
    train(model, 100, 1e-2)
    torch.set_num_threads(threads)
    return model.state_dict()


def trained() -> DigitsNet:
    """In evaluation mode; the same weights in every process, however many threads it has."""
    model = DigitsNet()
    model.load_state_dict(_weights())
    return model.eval()


def calibration() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 50."""
    images, labels = (tensor[CALIBRATION] for tensor in digits())
    return list(zip(images.split(50), labels.split(50), strict=True))


def held_out() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 200."""
    images, labels = (tensor[HELD_OUT] for tensor in digits())
    return list(zip(images.split(200), labels.split(200), strict=True))


def accuracy(model: Any) -> float:
    """Share of the held-out digits that are read right."""
    images, labels = (tensor[HELD_OUT] for tensor in digits())
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())
