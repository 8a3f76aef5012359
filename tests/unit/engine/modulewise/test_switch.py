"""What probes read of a module that is run under hooks."""

import pytest
import torch
from torch import nn

from quantuner.api.spec import Quantization
from quantuner.api.task import Task
from quantuner.engine.modulewise.engine import ModulewiseEngine
from quantuner.engine.probes.errors import activation_errors, output_errors, own_errors
from quantuner.space.config import FP32, TuneConfig
from quantuner.space.samplers import initial
from tests.unit.engine.models import rows


class Named(nn.Module):
    """Two linears in line, called as the caller likes; their outputs are both returned."""

    def __init__(self, first: str, last: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = first, last
        self.add_module(first, nn.Linear(4, 16))
        self.add_module(last, nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.get_submodule(self.first)(x).relu()
        return self.get_submodule(self.last)(hidden), hidden


def errors(first: str, last: str) -> list[list[float]]:
    """Of both ops, by every probe."""
    task = Task(model=Named(first, last).eval(), calib_dataloader=[(rows(), None)], eval_func=lambda _: 1.0)
    made = ModulewiseEngine(task, Quantization("dynamic"), ())
    made.calibrate()
    config = initial(made.space)
    model, fp32 = made.switchable(config), TuneConfig(dict.fromkeys(config, FP32))
    found = [
        output_errors(model, [(rows(),)], fp32, config),
        own_errors(model, [(rows(),)], config),
        activation_errors(model, (rows(),), config),
    ]
    return [[one[first], one[last]] for one in found]


@pytest.mark.parametrize(("first", "last"), [("inputs", "output"), ("output", "inputs"), ("input", "model")])
def test_an_op_may_have_any_name(first: str, last: str) -> None:
    assert errors(first, last) == errors("one", "other")
