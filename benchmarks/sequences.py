"""An LSTM that reads scanned digits row by row, each a sequence of eight rows of eight pixels."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

TRAIN = 1200  # of 1,797 scans


class RowReader(nn.Module):
    """Two layers of LSTM (Hochreiter and Schmidhuber 1997) over the rows, and a linear on what the last row leaves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, rows, 8) float32` in [0, 1] to `(N, 10)` logits."""
        states, _ = self.rnn(x)
        y: torch.Tensor = self.head(states[:, -1])
        return y


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """`(1797, 8, 8) float32` in [0, 1], and which digit each is."""
    digits = load_digits()
    return torch.tensor(digits.images, dtype=torch.float32) / 16, torch.tensor(digits.target)


def trained(width: int = 64, epochs: int = 15) -> RowReader:
    """A reader of the first 1,200 digits; seconds."""
    torch.manual_seed(0)
    images, labels = (tensor[:TRAIN] for tensor in rows())
    model = RowReader(width)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(epochs):
        for picked in torch.randperm(TRAIN).split(64):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(images[picked]), labels[picked]))
            optimizer.step()
    return model.eval()


def read_right(model: Any) -> float:
    """Share of the 597 digits that were not trained on."""
    images, labels = (tensor[TRAIN:] for tensor in rows())
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(100), labels.split(100), strict=True))
    return hits / len(images)
