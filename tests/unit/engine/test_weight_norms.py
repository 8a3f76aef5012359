"""A weight that is normalized is computed by operators that a saved program may call."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from quantuner.engine import artifact
from quantuner.engine.capture import capture
from quantuner.space.config import TuneConfig


class Normalized(nn.Module):
    """A convolution and a Linear, whose weights are normalized over a dimension, or over all."""

    def __init__(self, dimension: Any) -> None:
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.Conv1d(3, 4, 2), dim=dimension)
        self.fc = parametrizations.weight_norm(nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.fc(self.conv(x).mean(2)))
        return y


@pytest.mark.parametrize("dimension", [0, 2, None])
def test_a_normalized_weight_is_saved_and_loaded(dimension: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Normalized(dimension).eval(), torch.randn(2, 3, 5)
    captured = capture(model, (x,))
    artifact.save(tmp_path / "model", captured.graph, captured.called, TuneConfig({}))
    with torch.no_grad():
        torch.testing.assert_close(artifact.load(tmp_path / "model")(x), model(x))
