"""Calibration data from a function that runs the model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.batches import model_inputs
from quantuner.engine.recording import recorded_batches
from tests.unit.engine.models import Net, images, seeded


class Two(nn.Module):
    """Two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.classes = 2

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.fc(x + y)
        return z


def test_batches_are_the_inputs_of_every_call_in_order() -> None:
    data = [images(2), images(3, seed=4)]

    def run(model: Any) -> None:
        for batch in data:
            assert torch.equal(model(batch), seeded(Net)(batch))

    batches = recorded_batches(seeded(Net), run)
    assert [torch.equal(model_inputs(b)[0], one) for b, one in zip(batches, data, strict=True)] == [True, True]


def test_a_call_with_two_inputs_is_one_batch_of_two() -> None:
    pair = (torch.ones(3, 4), torch.zeros(3, 4))
    (batch,) = recorded_batches(Two(), lambda model: model(*pair))
    assert [torch.equal(a, b) for a, b in zip(model_inputs(batch), pair, strict=True)] == [True, True]


def test_the_function_gets_a_model_like_the_users() -> None:
    seen: list[Any] = []

    def run(model: Any) -> None:
        seen.extend([type(model), model.classes, model.training, torch.is_grad_enabled()])
        model(torch.ones(2, 4), torch.ones(2, 4))

    recorded_batches(Two().train(), run)
    assert seen == [Two, 2, False, False]


def test_the_users_model_is_not_changed() -> None:
    model = seeded(Net).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def run(candidate: Any) -> None:
        candidate.train()(images())
        candidate.stem[1].bias.fill_(3.0)

    recorded_batches(model, run)
    assert model.training
    assert not model._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def _raise(model: Any) -> None:
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("run", "says"),
    [
        pytest.param(lambda _: None, "calib_func never called the model", id="no call"),
        pytest.param(_raise, "in _raise: OSError: the disk is gone", id="it raises"),
        pytest.param(
            lambda model: model(torch.ones(2, 4), y=torch.ones(2, 4)), "y by name; give all inputs", id="name"
        ),
    ],
)
def test_what_is_wrong_with_the_function_is_said(run: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(SearchError, match=says) as caught:
        recorded_batches(Two(), run)
    assert caught.value.reason == Failure.CALIBRATION_FAILED
