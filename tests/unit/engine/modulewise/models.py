"""A model that torch.export cannot capture: it reads scanned digits, and stops early where it is sure."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from quantuner.api.spec import Override, Quantization
from quantuner.api.task import Task
from quantuner.engine.modulewise.engine import ModulewiseEngine, engine_of
from tests.unit.engine.digits_net import CALIBRATION, HELD_OUT, digits

BATCH = 8


class EarlyExit(nn.Module):
    """Source of the idea: BranchyNet, Teerapittayanon et al. 2016. The trunk is held twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.exit = nn.Linear(64, 48), nn.Linear(48, 10)
        self.trunk = nn.Linear(48, 48)
        self.again = self.trunk
        self.head = nn.Linear(48, 10)
        self.deep = 0
        """Batches that went all the way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 1, 8, 8)` to `(N, 10)` logits."""
        y = self.stem(x.flatten(1)).relu()
        early: torch.Tensor = self.exit(y)
        if not self.training and early.softmax(1).amax(1).min() > 0.4:
            return early
        self.deep += 1
        late: torch.Tensor = self.head(self.again(self.trunk(y).relu()).relu() + y)
        return late + early if self.training else late


@functools.cache
def _weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model, (images, labels) = EarlyExit(), digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(150):
        batch = torch.arange(step * 64, (step + 1) * 64) % 1000
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    return model.state_dict()


def trained() -> EarlyExit:
    model = EarlyExit()
    model.load_state_dict(_weights())
    return model.eval()


def batches(part: slice) -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, labels = digits()
    return list(zip(images[part].split(BATCH), labels[part].split(BATCH), strict=True))


def accuracy(model: Any) -> float:
    """Of the held-out digits, in batches."""
    return sum(float((model(x).argmax(1) == y).sum()) for x, y in batches(HELD_OUT)) / 797


def closeness(model: Any) -> float:
    """1 for the logits of the fp32 model, less the farther away: what accuracy would not show of a last bit."""
    own = trained()
    return 1 - sum(float((model(x) - own(x)).abs().mean()) for x, _ in batches(HELD_OUT))


def engine(approach: str, judge: Any = closeness, overrides: tuple[Override, ...] = ()) -> ModulewiseEngine:
    task = Task(model=trained(), calib_dataloader=batches(CALIBRATION), eval_func=judge)
    made = engine_of(task, Quantization(approach, op_types=overrides), ("modelsize",))
    assert isinstance(made, ModulewiseEngine)
    made.calibrate()
    return made
