"""Metrics over a loader: names, objects, weights, and what is refused."""

from typing import Any

import pytest
import torch

from quantuner.engine.metrics import evaluation

OUTPUT = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
LABELS = torch.tensor([1, 1, 2, 2])
LOADER = [(OUTPUT[:3], LABELS[:3]), (OUTPUT[3:], LABELS[3:])]


def same(x: torch.Tensor) -> torch.Tensor:
    """The "model": its input is its output."""
    return x


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("topk", 0.5),
        ("Accuracy", 0.5),
        ({"topk": 2}, 0.75),
        ({"topk": {"k": 3}}, 1.0),
        ({"topk": 1, "Accuracy": {}, "weight": [2.0, 4.0]}, (2 * 0.5 + 4 * 0.5) / 2),
    ],
    ids=str,
)
def test_shares_of_right_rows(metric: Any, value: float) -> None:
    assert evaluation(LOADER, metric)(same) == pytest.approx(value)


@pytest.mark.parametrize(("metric", "value"), [("MAE", 1.5), ("MSE", 2.5), ("RMSE", 2.5**0.5)])
def test_distances_from_targets(metric: str, value: float) -> None:
    loader = [(torch.tensor([[1.0], [2.0]]), torch.tensor([2.0, 4.0]))]
    assert evaluation(loader, metric)(same) == pytest.approx(value)


class Counting:
    """A user's metric; `compute` is torchmetrics' spelling of result."""

    def __init__(self) -> None:
        self.rows = 99

    def reset(self) -> None:
        self.rows = 0

    def update(self, preds: Any, labels: Any) -> None:
        self.rows += len(labels)

    def compute(self) -> torch.Tensor:
        return torch.tensor(self.rows)


def test_a_metric_of_ones_own_is_reset_before_each_pass() -> None:
    evaluate = evaluation(LOADER, Counting())
    assert (evaluate(same), evaluate(same)) == (4.0, 4.0)


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("Precision", "eval_metric 'Precision' is not known; known are topk, Accuracy, MAE, MSE, RMSE"),
        (object(), "must have reset, update"),
        ({"topk": 1, "MAE": {}}, "give 'weight', a list with as many"),
        ({"topk": 1, "MAE": {}, "weight": [1]}, r"it is \[1\]"),
    ],
    ids=["an unknown name", "no metric", "several without weights", "too few weights"],
)
def test_what_is_no_metric_is_refused(metric: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        evaluation(LOADER, metric)


@pytest.mark.parametrize(
    ("loader", "says"),
    [([], "gave no batch"), ([OUTPUT], r"must be \(input, label\)")],
    ids=["empty", "without labels"],
)
def test_a_loader_that_cannot_judge_is_refused(loader: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        evaluation(loader, "topk")(same)
