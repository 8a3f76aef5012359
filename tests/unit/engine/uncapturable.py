"""Models that torch.export cannot capture, one of each kind. The line that the error must name says so."""

from typing import Any

import numpy as np
import torch
from torch import nn


class _WithLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(4))
        self.rnn = nn.LSTM(4, 4, batch_first=True)

    seen: torch.Tensor


class Branches(_WithLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # this line
            return -x
        y: torch.Tensor = self.fc(x)
        return y


class Repeats(_WithLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.norm() > 1:  # this line
            x = x / 2
        y: torch.Tensor = self.fc(x)
        return y


class CutsByValue(_WithLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        width = int(x[0, 0].item())  # this line
        y: torch.Tensor = self.fc(x)[:, :width]
        return y


class UsesNumpy(_WithLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squashed = torch.from_numpy(np.tanh(x.numpy()))  # this line
        y: torch.Tensor = self.fc(squashed)
        return y


class Packs(_WithLinear):
    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = self.rnn(packed)  # this line
        y: torch.Tensor = self.fc(nn.utils.rnn.pad_packed_sequence(states, batch_first=True)[0])
        return y


class CountsCalls(_WithLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1  # this line
        y: torch.Tensor = self.fc(x) + self.seen
        return y


class WritesToItsInput(_WithLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)  # this line
        y: torch.Tensor = self.fc(x)
        return y


class ByKeyword(_WithLinear):
    def forward(self, *, x: torch.Tensor) -> torch.Tensor:  # this line
        y: torch.Tensor = self.fc(x)
        return y


class TakesTwo(_WithLinear):
    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:  # this line
        y: torch.Tensor = self.fc(x) + shift
        return y


class Holder:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


class TakesAnObject(_WithLinear):
    def forward(self, held: Any) -> torch.Tensor:
        y: torch.Tensor = self.fc(held.x)
        return y


class GivesAnObject(_WithLinear):
    def forward(self, x: torch.Tensor) -> Holder:
        return Holder(self.fc(x))


class FixesItsBatch(_WithLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.stack([self.fc(row) for row in x])
        return y


class Looks(nn.Module):
    """Called with a batch that is a dict, as a tokenizer makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(3, 4)

    def forward(self, ids: torch.Tensor | None = None, mask: torch.Tensor | None = None) -> torch.Tensor:
        y: torch.Tensor = self.words(ids)  # this line
        return y
