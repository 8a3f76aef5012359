"""Metrics over a loader: names, objects, weights, and what is refused."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.trial import Limit
from quantuner.engine.metrics import Bounded, evaluation

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


NAN = math.nan


@pytest.mark.parametrize("metric", ["topk", "Accuracy", {"topk": 2}])
@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize(
    "row", [[NAN] * 3, [1.0, NAN, 0.0], [NAN, 2.0, 1.0], [1.0, 0.0, -NAN]], ids=["all", "between", "first", "last"]
)
def test_a_row_that_holds_nan_is_wrong(metric: Any, label: int, row: list[float]) -> None:
    """torch sorts NaN before all numbers: a model that overflowed would be right wherever a label is its place."""
    loader = [(torch.tensor([row]), torch.tensor([label])), (torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([1]))]
    assert evaluation(loader, metric)(same) == 0.5


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.float16, torch.bfloat16], ids=str)
def test_outputs_of_any_type_are_compared(kind: torch.dtype) -> None:
    assert evaluation([(torch.eye(3).to(kind), torch.tensor([0, 1, 0]))], "topk")(same) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("output", "label", "metric", "value"),
    [
        pytest.param(torch.tensor([3, 5], dtype=torch.uint8), [5, 3], "MAE", 2.0, id="below 0"),
        pytest.param(torch.tensor([200], dtype=torch.uint8), [0], "MSE", 40_000.0, id="a square above 255"),
        pytest.param(torch.tensor([1, 2]), [1.5, 2.5], "MAE", 0.5, id="labels between whole numbers"),
        pytest.param(torch.tensor([300.0], dtype=torch.float16), [0.0], "MSE", 90_000.0, id="above fp16"),
        pytest.param(
            torch.tensor([1.0], dtype=torch.bfloat16), [1.5 + 2**-9], "MAE", 0.5 + 2**-9, id="finer than bf16"
        ),
        pytest.param(torch.tensor([1e30]), [0.0], "RMSE", float(torch.tensor(1e30)), id="above fp32"),
        pytest.param(torch.tensor([True, False]), [0, 0], "RMSE", 0.5**0.5, id="bool"),
        pytest.param(torch.tensor([3 + 4j]), [0], "MAE", 5.0, id="complex"),
    ],
)
def test_distances_do_not_depend_on_the_outputs_type(
    output: torch.Tensor, label: Any, metric: str, value: float
) -> None:
    assert evaluation([(output, torch.tensor(label))], metric)(same) == pytest.approx(value, rel=1e-12)


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
        ({"weight": []}, "names 0 metrics"),
        ({"topk": 1, "weight": 1.0}, "names 1 metric; .*, a list with as many finite numbers .*; it is 1.0$"),
        ({"topk": 1, "weight": [True]}, r"it is \[True\]$"),
        ({"topk": 1, "MAE": {}, "weight": ["a", "b"]}, r"it is \['a', 'b'\]$"),
        ({"topk": 1, "MAE": {}, "weight": [1, math.nan]}, r"it is \[1, nan\]$"),
        (
            {"MAE": {}, "higher_is_better": ["no"]},
            r"a list with True or False for each metric: 1; it is \['no'",
        ),
        ({"MAE": {}, "higher_is_better": [0]}, r"it is \[0\]$"),
        ({"MAE": {}, "higher_is_better": "False"}, "it is 'False'$"),
        ({"topk": 1, "MAE": {}, "weight": [1, -1], "higher_is_better": True}, "for each metric: 2; it is True$"),
        (
            {"topk": 1, "MAE": {}, "weight": [1, 1], "higher_is_better": [True, False]},
            r"two directions, .* \[True, False\], with weights \[1.0, 1.0\]; give those of one .* negative weight",
        ),
        ({"topk": {"n": 5}}, r"'topk' does not take {'n': 5}; its arguments are: k"),
        ({"MAE": 5}, "'MAE' does not take 5; its arguments are: none"),
    ],
)
def test_what_is_no_metric_is_refused(metric: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        evaluation(LOADER, metric)


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        (Counting(), None),
        ({"MSE": {}}, False),
        ("RMSE", False),
        ("topk", True),
        ({"MSE": {}, "weight": [-1]}, True),
        ({"topk": 1, "MAE": {}, "weight": [0.5, 0.5]}, None),
        ({"topk": 1, "MAE": {}, "weight": [0.5, -0.5]}, True),
        ({"MSE": {}, "higher_is_better": False}, False),
        ({"MSE": {}, "higher_is_better": [False]}, False),
        ({"MSE": {}, "higher_is_better": [False], "weight": [-1]}, True),
        ({"MSE": {}, "MAE": {}, "weight": [0.5, 0.5], "higher_is_better": [False, False]}, False),
        ({"topk": 1, "MAE": {}, "weight": (1, -1), "higher_is_better": (True, False)}, True),
        ({"topk": 1, "MAE": {}, "weight": [-1, 1], "higher_is_better": [True, False]}, False),
        ({"topk": 1, "MAE": {}, "weight": [0, 1], "higher_is_better": [True, False]}, False),
    ],
    ids=repr,
)
def test_the_direction_of_the_accuracy_is_that_of_metrics_and_signs(metric: Any, higher: bool | None) -> None:
    assert evaluation(LOADER, metric).higher_is_better is higher


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        ([], "gave no batch"),
        ([OUTPUT], r"must be \(input, label\)"),
        ([(torch.tensor([[0.1, 0.9]]), torch.tensor([[0, 1]]))], r"not \(1, 2\) with \(1, 2\); reshape"),
    ],
    ids=["empty", "without labels", "one-hot labels"],
)
def test_a_loader_that_cannot_judge_is_refused(loader: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        evaluation(loader, "topk")(same)


def test_more_than_the_classes_are_refused() -> None:
    assert evaluation(LOADER, {"topk": {"k": 3}})(same) == 1.0
    with pytest.raises(ValueError, match="k=4 of 3 classes counts every row"):
        evaluation(LOADER, {"topk": {"k": 4}})(same)


@pytest.mark.parametrize("metric", ["topk", "MAE"])
def test_a_model_of_several_outputs_wants_a_metric_of_its_own(metric: str) -> None:
    with pytest.raises(TypeError, match="compares one output, and the model returns tuple; give a metric of your own"):
        evaluation(LOADER, metric)(lambda x: (x, x))


@pytest.mark.parametrize("metric", ["MAE", "MSE", "RMSE"])
def test_labels_in_another_order_of_dimensions_are_refused(metric: str) -> None:
    """As many numbers would give a distance, of other pixels."""
    outputs = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"not \(2, 3, 4, 4\) with \(2, 4, 4, 3\); permute or reshape them"):
        evaluation([(outputs, torch.zeros(2, 4, 4, 3))], metric)(same)
    gray = torch.ones(2, 1, 4, 4)
    assert evaluation([(gray, torch.zeros(2, 4, 4).transpose(1, 2))], metric)(same) == 1.0


# --- bounds


METRICS_TO_BOUND: dict[str, tuple[Any, bool]] = {
    "topk": ("topk", True),
    "two of them": ({"topk": 1, "Accuracy": {}, "weight": [0.3, 0.7]}, True),
    "MAE": ("MAE", False),
    "RMSE": ("RMSE", False),
    "an error turned round": ({"MSE": {}, "weight": [-0.1]}, True),
    "a share less an error": ({"topk": 1, "RMSE": {}, "weight": [1.0, -1.0]}, True),
    "a weight of nothing": ({"topk": 1, "MSE": {}, "weight": [1.0, 0.0]}, True),
    "a share that is better low": ("topk", False),
}
rows = st.tuples(st.floats(-2, 2, width=32), st.integers(0, 1))
batches = st.lists(st.lists(rows, min_size=1, max_size=3), min_size=1, max_size=6)


def loader_of(drawn: list[list[tuple[float, int]]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Outputs `(N, 1)`, of which the one class is right where the label is 0, and which are as far off as they are."""
    return [(torch.tensor([[x] for x, _ in batch]), torch.tensor([y for _, y in batch])) for batch in drawn]


@pytest.mark.parametrize(("metric", "higher"), METRICS_TO_BOUND.values(), ids=METRICS_TO_BOUND)
@given(drawn=batches, accuracy=st.floats(-2, 4))
def test_a_bound_holds_to_the_last_bit_and_what_is_worse_than_the_limit_is_abandoned(
    metric: Any, higher: bool, drawn: list[list[tuple[float, int]]], accuracy: float
) -> None:
    judge = evaluation(loader_of(drawn), metric)
    exact = judge(same)
    limit = Limit(accuracy=accuracy, higher_is_better=higher, rows=judge.rows)
    bounds = [*judge.bounds(same, limit)]
    assert bounds[-1] == exact
    assert all(bound >= exact if higher else bound <= exact for bound in bounds)
    bounded = Bounded(judge, limit)
    found = bounded(same)
    assert bounded.abandoned == limit.excludes(exact) == limit.excludes(found)
    assert bounded.abandoned or found == exact


@given(drawn=st.lists(st.lists(rows | st.tuples(st.just(math.nan), st.integers(0, 1)), min_size=1), min_size=1))
def test_a_bound_of_a_share_holds_where_rows_hold_nan(drawn: list[list[tuple[float, int]]]) -> None:
    judge = evaluation(loader_of(drawn), "topk")
    exact = judge(same)
    right = [not math.isnan(x) and not y for batch in drawn for x, y in batch]
    assert exact == sum(right) / len(right)
    bounds = [*judge.bounds(same, Limit(accuracy=0.5, higher_is_better=True, rows=judge.rows))]
    assert bounds[-1] == exact
    assert sorted(bounds, reverse=True) == bounds


class Watched:
    """A loader that counts the batches it was asked for."""

    def __init__(self, *batches: Any) -> None:
        self.batches, self.given = batches, 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.given += 1
            yield batch


@pytest.mark.parametrize(
    ("accuracy", "given", "bound"),
    [
        pytest.param(0.75, 3, 0.5, id="two of four lost"),
        pytest.param(0.5, 4, 0.5, id="exactly at the limit is measured"),
        pytest.param(0.6, 3, 0.5, id="just above it"),
        pytest.param(1.0, 2, 0.75, id="one lost is too many"),
        pytest.param(None, 4, 0.5, id="no limit"),
    ],
)
def test_it_ends_after_the_batch_that_decides(accuracy: float | None, given: int, bound: float) -> None:
    loader = Watched(*[(OUTPUT[i : i + 1], LABELS[i : i + 1]) for i in range(4)])  # right, wrong, right, wrong
    loader.batches = (loader.batches[0], loader.batches[1], loader.batches[3], loader.batches[2])
    judge = evaluation(loader, "topk")
    limit = Limit(accuracy=accuracy, higher_is_better=True, rows=(4,))
    bounded = Bounded(judge, limit)
    assert bounded(same) == bound
    assert (loader.given, bounded.abandoned) == (given, given < 4)


def test_bounds_that_are_not_finite_end_nothing() -> None:
    loader = [(torch.tensor([[math.inf]]), torch.tensor([0.0])), (torch.tensor([[1.0]]), torch.tensor([0.0]))]
    bounded = Bounded(evaluation(loader, "MAE"), Limit(accuracy=0.1, higher_is_better=False, rows=(2,)))
    assert bounded(same) == math.inf
    assert (bounded.abandoned, bounded.bound) == (False, None)


def test_what_was_proven_before_an_error_is_known() -> None:
    loader = [(OUTPUT[1:2], LABELS[1:2]), (OUTPUT[:1], "no labels")]
    bounded = Bounded(evaluation(loader, "topk"), Limit(accuracy=0.1, higher_is_better=True, rows=(4,)))
    with pytest.raises(TypeError):
        bounded(same)
    assert bounded.bound == 0.75


@pytest.mark.parametrize("rows", [(3,), (5,)])
def test_data_that_are_not_those_of_the_baseline_are_refused(rows: tuple[int, ...]) -> None:
    bounded = Bounded(evaluation(LOADER, "topk"), Limit(accuracy=None, higher_is_better=True, rows=rows))
    with pytest.raises(ValueError, match=r"gave \(4,\) rows, and \(.,\) for the baseline; it must give the same"):
        bounded(same)


def test_a_metric_of_ones_own_has_no_rows() -> None:
    judge = evaluation(LOADER, Counting())
    judge(same)
    assert judge.rows == ()


def test_a_limit_crosses_ranks() -> None:
    limit = Limit(accuracy=0.3, higher_is_better=False, rows=(4, 5))
    assert Limit.from_plain(json.loads(json.dumps(limit.plain()))) == limit
