"""What an evaluation function may return, and what is said of anything else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.evaluate import evaluate


def returning(value: Any) -> Callable[[Any], Any]:
    def accuracy(model: Any) -> Any:
        return value

    return accuracy


@pytest.mark.parametrize(
    ("value", "accuracy"),
    [
        (0.5, 0.5),
        (1, 1.0),
        (-3.5, -3.5),
        pytest.param(np.float32(0.1), float(np.float32(0.1)), id="a NumPy float32 keeps its bits"),
        pytest.param(np.int64(7), 7.0, id="a NumPy integer"),
        pytest.param(torch.tensor(0.25), 0.25, id="a 0-d tensor"),
        pytest.param(torch.tensor(0.25, requires_grad=True), 0.25, id="one with a gradient"),
        pytest.param(np.array(0.75), 0.75, id="a 0-d array"),
    ],
)
def test_one_finite_number_is_an_accuracy(value: Any, accuracy: float) -> None:
    found, seconds = evaluate(None, returning(value))
    assert found == accuracy
    assert type(found) is float
    assert seconds >= 0


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param(None, "not NoneType (None); return the accuracy as a float", id="nothing"),
        pytest.param("0.5", "not str ('0.5')", id="text"),
        pytest.param(True, "not bool (True)", id="a truth"),
        pytest.param(torch.tensor(True), "not bool (True)", id="a truth in a tensor"),
        pytest.param([0.5], "not list ([0.5])", id="a list"),
        pytest.param({"acc": 0.5}, "not dict", id="metrics by name"),
        pytest.param(torch.tensor([0.5]), "not Tensor (tensor([0.5", id="a tensor of one"),
        pytest.param(0.5 + 1j, "not complex", id="a complex number"),
        pytest.param(float("nan"), "a finite number, not nan; look for a division by zero", id="not a number"),
        pytest.param(float("-inf"), "a finite number, not -inf", id="infinite"),
        pytest.param(10**5000, "a finite number, not inf", id="larger than any float"),
        pytest.param(torch.tensor(torch.nan), "a finite number, not nan", id="not a number, in a tensor"),
    ],
)
def test_anything_else_is_no_number(value: Any, says: str) -> None:
    with pytest.raises(SearchError) as caught:
        evaluate(None, returning(value))
    assert caught.value.reason == Failure.EVALUATION_NOT_A_NUMBER
    assert says in caught.value.message


@pytest.mark.parametrize(
    "error", [ValueError("3 images are missing"), SystemExit("no data"), KeyError("labels"), AssertionError()]
)
def test_what_it_raises_is_told_with_its_line(error: BaseException) -> None:
    def accuracy(model: Any) -> float:
        raise error

    with pytest.raises(SearchError) as caught:
        evaluate(None, accuracy)
    assert caught.value.reason == Failure.EVALUATION_FAILED
    line = accuracy.__code__.co_firstlineno + 1
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    assert caught.value.message == f"eval_func raised at test_evaluate.py:{line} in accuracy: {said}"
    assert "raise error" in caught.value.traceback


def test_a_long_error_leaves_room_for_its_place() -> None:
    def accuracy(model: Any) -> float:
        raise ValueError("x" * 100_000)

    with pytest.raises(SearchError) as caught:
        evaluate(None, accuracy)
    assert len(caught.value.message) < 1000
    assert " in accuracy: ValueError: xxx" in caught.value.message
    assert caught.value.message.endswith("…")


def test_it_runs_without_gradients() -> None:
    def accuracy(model: Any) -> float:
        return float(torch.is_grad_enabled())

    assert evaluate(None, accuracy)[0] == 0.0


def test_a_keyboard_interrupt_is_no_failure_of_the_evaluation() -> None:
    def accuracy(model: Any) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(None, accuracy)
