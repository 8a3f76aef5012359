"""What both sides of the search bench are given: model, calibration batches, evaluation. Knows neither side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

TRAIN = 1200  # of 1,797 scans


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        same = stride == 1 and inputs == outputs
        short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if same else short

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        z: torch.Tensor = self.relu2(y + self.shortcut(x))
        return z


class ResidualNet(nn.Module):
    """Six residual blocks, 16 ops that can be quantized (He et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        shapes = [(32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        self.blocks = nn.Sequential(*[Block(*shape) for shape in shapes])
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 1, 16, 16)` to `(N, 10)`."""
        y: torch.Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return y


class Loader:
    """Batches `(input, label)`, the same at each pass."""

    def __init__(self, inputs: Any, labels: Any, batch_size: int) -> None:
        self.inputs, self.labels, self.batch_size = inputs, labels, batch_size

    def __iter__(self) -> Iterator[tuple[Any, torch.Tensor]]:
        return zip(self.inputs, self.labels, strict=True)

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass
class Problem:
    """A search whose target cannot be met, so that every trial is run."""

    model: nn.Module
    calibration: Loader
    samples: int
    """To calibrate with."""
    accuracy: Callable[[Any], float]
    approach: str = "static"
    evaluations: list[float] = field(default_factory=list)
    """Seconds of each."""
    accuracies: list[float] = field(default_factory=list)

    def evaluate(self, model: Any) -> float:
        started = time.monotonic()
        with torch.no_grad():
            value = self.accuracy(model)
        self.evaluations.append(time.monotonic() - started)
        self.accuracies.append(value)
        return value


def resnet() -> Problem:
    """Digits at 16×16: 597 held-out images in batches of 100, 300 to calibrate with."""
    torch.manual_seed(0)
    digits = load_digits()
    small = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    images, labels = nn.functional.interpolate(small, size=16), torch.tensor(digits.target)
    model = ResidualNet()
    _train(model, images[:TRAIN], labels[:TRAIN])
    calibration = Loader(images[:300].split(50), torch.stack(labels[:300].split(50)), 50)
    held_out = [*zip(images[TRAIN:].split(100), labels[TRAIN:].split(100), strict=True)]

    def accuracy(candidate: Any) -> float:
        hits = sum(int((candidate(x).argmax(1) == y).sum()) for x, y in held_out)
        return hits / (len(images) - TRAIN)

    return Problem(model.eval(), calibration, 300, accuracy)


def _train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(4):
        for start in range(0, len(images), 64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[start : start + 64]), labels[start : start + 64])
            torch.autograd.backward(loss)
            optimizer.step()


def minilm() -> Problem:
    """The sentence encoder of examples/minilm: agreement of its retrieval with fp32."""
    from examples.minilm.minilm import BATCH, task  # here, since the first problem needs no transformers

    shipped = task()
    batches = [*shipped.calib_dataloader]
    inputs, targets = [inputs for inputs, _ in batches], torch.stack([target for _, target in batches])
    assert shipped.eval_func is not None
    return Problem(shipped.model, Loader(inputs, targets, BATCH), len(targets.flatten(0, 1)), shipped.eval_func)


PROBLEMS: Mapping[str, Callable[[], Problem]] = {"resnet": resnet, "minilm": minilm}


def result(problem: Problem, wall: float, distinct: int | None = None) -> dict[str, Any]:
    """What a side says of its search: seconds, evaluations (the baseline first, then the default configuration)."""
    return {
        "seconds": round(wall, 3),
        "evaluations": len(problem.evaluations),
        "evaluation_seconds": round(sum(problem.evaluations), 3),
        "distinct": distinct,
        "accuracy_fp32": problem.accuracies[0],
        "accuracy_default": problem.accuracies[1],
    }
