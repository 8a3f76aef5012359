"""A batch's inputs are told from its label, and its samples are found wherever they are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from quantuner.engine.batches import inputs_wanted, model_inputs, positional, samples_in

X, Y = torch.ones(1), torch.zeros(1)


@pytest.mark.parametrize(
    ("batch", "count", "inputs"),
    [
        pytest.param(X, 1, (X,), id="an input"),
        pytest.param((X, Y), 1, (X,), id="input and label"),
        pytest.param([X, Y], 1, (X,), id="as a list"),
        pytest.param(((X, Y), 3), 1, (X, Y), id="two inputs and a label"),
        pytest.param((X,), 1, (X,), id="a tuple of one input"),
        pytest.param((X, Y, X), 1, (X, Y, X), id="three inputs"),
        pytest.param((X, Y), 2, (X, Y), id="a pair for a model of two"),
        pytest.param([X, Y], 2, (X, Y), id="a pair as a list"),
        pytest.param(((X, Y), 3), 2, (X, Y), id="two inputs and a label for a model of two"),
        pytest.param(((X, Y), None), 2, (X, Y), id="two inputs and no label"),
        pytest.param((X, Y), 3, (X,), id="a pair is never three inputs"),
    ],
)
def test_the_inputs_of_a_batch(batch: Any, count: int, inputs: tuple[Any, ...]) -> None:
    found = model_inputs(batch, count)
    assert len(found) == len(inputs)
    assert all(one is other for one, other in zip(found, inputs, strict=True))


@pytest.mark.parametrize("inputs", [X, [X], (X,)], ids=["a tensor", "a list", "a tuple"])
def test_inputs_by_position(inputs: Any) -> None:
    (found,) = positional(inputs)
    assert found is X


def test_a_dict_is_one_input() -> None:
    named = {"x": X, "y": Y}
    assert positional(named) == (named,)


def _model(forward: Callable[..., Any]) -> nn.Module:
    model = nn.Module()
    model.forward = forward
    return model


@pytest.mark.parametrize(
    ("forward", "count"),
    [
        pytest.param(lambda x: x, 1, id="one"),
        pytest.param(lambda x, mask=None: (x, mask), 1, id="one, and one that may be left out"),
        pytest.param(lambda x, y, /, *, scale: (x, y, scale), 2, id="two, and one by name"),
        pytest.param(lambda *xs: xs, 0, id="any number"),
    ],
)
def test_the_inputs_that_a_model_cannot_do_without(forward: Callable[..., Any], count: int) -> None:
    assert inputs_wanted(_model(forward)) == count


@pytest.mark.parametrize(
    ("inputs", "count"),
    [
        pytest.param((torch.zeros(4, 2),), 4, id="a tensor"),
        pytest.param((torch.tensor(1.0), torch.zeros(3)), 3, id="a scalar holds none"),
        pytest.param(({"ids": torch.zeros(5, 2), "mask": torch.zeros(5, 2)},), 5, id="a dict"),
        pytest.param((("a", [torch.zeros(6)]),), 6, id="a tuple with a list"),
        pytest.param(("a word",), 1, id="none"),
    ],
)
def test_the_samples_of_a_batch(inputs: Any, count: int) -> None:
    assert samples_in(inputs) == count
