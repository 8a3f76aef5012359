"""The models of the strategies bench: real ones that lose accuracy in int8, each with how much it may lose."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

from examples.digits.digits import Batches, train
from examples.digits.digits import task as digits_task
from examples.minilm.minilm import task as minilm_task
from quantuner import Task

SEED = 0


@dataclass(frozen=True)
class Problem:
    task: Task
    samples: int
    """To calibrate with."""
    tolerable_loss: float
    """Relative to fp32: less than the default configuration loses, more than some fallback does."""


def digits() -> Problem:
    """The shipped example: a residual network on scanned digits, two of its convolutions sensitive."""
    return Problem(digits_task(), samples=300, tolerable_loss=0.005)


class TabularNet(nn.Module):
    """A perceptron that is shown its features again halfway, as DeepSDF's is (Park et al. 2019, section 4).

    The features keep their units, and reach into the thousands: the layer that takes them beside normalized hidden
    units is sensitive, since one int8 range for both leaves the hidden units no levels.
    """

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.before = nn.Sequential(*_layers(features, width), *_layers(width, width), *_layers(width, width))
        self.after = nn.Sequential(*_layers(width + features, width), *_layers(width, width), *_layers(width, width))
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, features)` to `(N, classes)` logits."""
        y: torch.Tensor = self.head(self.after(torch.cat([self.before(x), x], 1)))
        return y


def _layers(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()


def tabular() -> Problem:
    """Breast cancer from 30 measurements of cell nuclei (Wisconsin, 569 patients), judged on 40 % of them."""
    torch.manual_seed(SEED)
    table = load_breast_cancer()
    order = torch.randperm(len(table.target), generator=torch.Generator().manual_seed(SEED))
    features, labels = torch.tensor(table.data, dtype=torch.float32)[order], torch.tensor(table.target)[order]
    known = len(order) * 6 // 10
    model = TabularNet(features.shape[1], 64, 2)
    train(model, features[:known], labels[:known], 60)
    model.eval()

    def accuracy(candidate: nn.Module) -> float:
        return float((candidate(features[known:]).argmax(1) == labels[known:]).double().mean())

    task = Task(model=model, calib_dataloader=Batches(features[:known], labels[:known]), eval_func=accuracy)
    return Problem(task, samples=known, tolerable_loss=0.01)


def minilm() -> Problem:
    """The shipped example: a sentence encoder, judged by how far its retrieval agrees with fp32."""
    return Problem(minilm_task(), samples=24, tolerable_loss=0.05)


PROBLEMS: Mapping[str, Callable[[], Problem]] = {"digits": digits, "tabular": tabular, "minilm": minilm}
