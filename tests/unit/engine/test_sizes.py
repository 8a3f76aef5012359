"""Modelled sizes: a weight that several ops read counts once for each form in which it is stored."""

from typing import Any

import pytest
import torch
from torch import nn

from quantuner.api.spec import Quantization
from quantuner.api.task import Task
from quantuner.engine.footprint import MEBI
from quantuner.engine.modulewise.engine import ModulewiseEngine
from quantuner.engine.sizes import bytes_of
from quantuner.space.config import FP32, TuneConfig
from quantuner.space.samplers import initial
from tests.unit.engine.layer_wise.cases import DATA, Encoder
from tests.unit.engine.models import Tied, engine_of, ids, rows, seeded


class Transposed(nn.Module):
    """A linear whose weight is multiplied with once more."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x).relu() @ self.fc.weight
        return y


@pytest.mark.parametrize(
    ("make", "data", "fp32", "size"),
    [
        (Tied, ids(), [], 40 + 16 + 4 * 4),
        (Tied, ids(), ["tokens"], 4 * 40 + 40 + 16 + 4 * 4),
        (Tied, ids(), ["linear_1"], 4 * 40 + 40 + 16 + 4 * 4),
        (Tied, ids(), ["tokens", "linear_1"], 4 * 40 + 16 + 4 * 4),
        (Transposed, rows(), [], 4 * 16 + 16 + 4 * 4),
    ],
    ids=["alike", "one in fp32", "the other in fp32", "both in fp32", "read by what is no op"],
)
def test_a_tied_weight_counts_as_it_is_stored(make: Any, data: torch.Tensor, fp32: list[str], size: int) -> None:
    engine = engine_of(seeded(make), loader=[data], eval_func=lambda _: 1.0)
    engine.calibrate()
    config = initial(engine.space).having(dict.fromkeys(fp32, FP32))
    assert engine.size(config) * MEBI == size
    stored = engine.quantized_model(config).model.state_dict()
    grids = ("_scale", "_zero_point", "_ones")  # are left out
    assert sum(tensor.nbytes for name, tensor in stored.items() if not name.startswith(grids)) == size


@pytest.mark.parametrize("fp32", [[], ["up"], ["head"], ["up", "down", "head"]])
def test_of_weights_in_few_bits_it_is_that_of_the_model(fp32: list[str]) -> None:
    engine = engine_of(seeded(Encoder), loader=[DATA], eval_func=lambda _: 1.0, approach="weight_only")
    engine.calibrate()
    config = initial(engine.space).having(dict.fromkeys(fp32, FP32))
    assert engine.size(config) * MEBI == bytes_of(engine.quantized_model(config))


@pytest.mark.parametrize("fp32", [[], ["up"], ["head"], ["up", "down", "head"]])
def test_module_by_module_it_is_that_of_the_model(fp32: list[str]) -> None:
    task = Task(model=seeded(Encoder), calib_dataloader=[(DATA, None)], eval_func=lambda _: 1.0)
    engine = ModulewiseEngine(task, Quantization("weight_only"), ())
    engine.calibrate()
    config = initial(engine.space).having(dict.fromkeys(fp32, FP32))
    assert engine.size(config) * MEBI == bytes_of(engine.quantized_model(config))


def test_a_parameter_that_is_held_twice_counts_once() -> None:
    model = seeded(Encoder)
    assert bytes_of(model) == sum(t.nbytes for t in model.parameters())
    engine = engine_of(model, loader=[DATA], eval_func=lambda _: 1.0)
    assert engine.size(TuneConfig()) * MEBI == bytes_of(model)
