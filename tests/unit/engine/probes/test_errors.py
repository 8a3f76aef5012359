"""Errors per op: what they measure, and that they order ops as quantization hurts them."""

import math

import pytest
import torch
from torch import nn

from quantuner.api.task import Task
from quantuner.engine.engine import Engine
from quantuner.engine.probes.errors import DISTANCES, activation_errors, distance, own_errors
from quantuner.space.config import FP32
from quantuner.space.samplers import initial
from tests.unit.engine.models import Routed, engine_of, seeded
from tests.unit.engine.recipes.cases import routed


class Uneven(nn.Module):
    """Two linears in line; the second one's input has an outlier that ruins an int8 grid."""

    def __init__(self) -> None:
        super().__init__()
        self.good = nn.Linear(8, 8)
        self.bad = nn.Linear(8, 4)
        nn.init.zeros_(self.good.bias)
        with torch.no_grad():
            self.good.bias[0] = 300.0
            self.bad.weight[:, 0] = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bad(self.good(x))
        return y


@pytest.fixture(scope="module")
def engine() -> Engine:
    torch.manual_seed(0)
    made = engine_of(Uneven().eval(), loader=[torch.randn(16, 8), torch.randn(16, 8)], eval_func=lambda _: 1.0)
    made.calibrate()
    return made


@pytest.mark.parametrize("metric", sorted(DISTANCES))
def test_the_op_whose_input_has_an_outlier_has_most_error(engine: Engine, metric: str) -> None:
    errors = engine.probes.single_op_errors(initial(engine.space), metric)
    assert set(errors) == {"good", "bad"}
    assert errors["bad"] > 10 * errors["good"] > 0


class Masked(nn.Module):
    """Logits of which one is always impossible."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(self.first(x)) + torch.tensor([0.0, 0.0, 0.0, -math.inf])
        return y


@pytest.mark.parametrize("metric", sorted(DISTANCES))
def test_a_masked_logit_hides_no_error(metric: str) -> None:
    torch.manual_seed(0)
    made = engine_of(Masked().eval(), loader=[torch.randn(16, 8)], eval_func=lambda _: 1.0)
    made.calibrate()
    errors = made.probes.single_op_errors(initial(made.space), metric)
    assert all(math.isfinite(error) and error > 0 for error in errors.values())


def test_an_op_in_fp32_has_no_single_error(engine: Engine) -> None:
    config = initial(engine.space).having({"bad": FP32})
    assert set(engine.probes.single_op_errors(config)) == {"good"}


def test_another_metric_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="metric must be one of mse, kl, not 'cosine'"):
        engine.probes.single_op_errors(initial(engine.space), "cosine")


def test_leaving_out_the_worst_op_leaves_least_error(engine: Engine) -> None:
    errors = engine.probes.leave_one_out_errors(initial(engine.space), 2)
    assert errors["bad"] < errors["good"]


def test_putting_back_the_worst_op_adds_most_error(engine: Engine) -> None:
    base = initial(engine.space)
    nothing = base.having(dict.fromkeys(base, FP32))
    errors = engine.probes.put_back_errors(nothing, {name: base[name] for name in base}, 2)
    assert errors["bad"] > errors["good"]


def test_every_batch_counts() -> None:
    """Neural Compressor's first confidence batch had no say: here one batch and two differ."""
    torch.manual_seed(0)
    engine = engine_of(Uneven().eval(), loader=[torch.randn(4, 8), 10 * torch.randn(4, 8)], eval_func=lambda _: 1.0)
    engine.calibrate()
    one, two = (engine.probes.leave_one_out_errors(initial(engine.space), batches) for batches in (1, 2))
    assert one["bad"] != two["bad"]


def test_an_activation_error_is_that_of_the_scaled_output(engine: Engine) -> None:
    errors = engine.probes.activation_errors(initial(engine.space))
    assert errors["bad"] > errors["good"] > 0
    assert all(error <= 1 for error in errors.values())
    fp32 = initial(engine.space).having(dict.fromkeys(errors, FP32))
    assert engine.probes.activation_errors(fp32) == {"good": 0.0, "bad": 0.0}


def test_distances_by_hand() -> None:
    exact, other = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    assert float(distance("mse")(exact, other)) == pytest.approx(math.log(3.0) ** 2 / 2)
    assert float(distance("kl")(exact, other)) == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert float(distance("kl")(exact[0], other[0])) == float(distance("kl")(exact, other))


def test_a_model_with_several_outputs_is_measured_over_all() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"left": self.left(x), "right": self.right(x), "labels": x.argmax(1)}

    torch.manual_seed(0)
    task = Task(model=Twins().eval(), calib_dataloader=[torch.randn(8, 4)], eval_func=lambda _: 1.0)
    engine = Engine(task, engine_of(Uneven().eval(), loader=[torch.randn(2, 8)]).quantization, ("performance",))
    engine.calibrate()
    errors = engine.probes.single_op_errors(initial(engine.space))
    assert errors["left"] > 0
    assert errors["right"] > 0


def test_an_op_to_which_no_row_is_routed_has_no_error() -> None:
    """The mean of nothing is NaN, which would rank anywhere."""
    engine = engine_of(seeded(Routed), loader=[routed(False), routed(True)], eval_func=lambda _: 1.0)
    engine.calibrate()
    base = initial(engine.space)
    graph, none, some = engine.switchable(base), (routed(False),), (routed(True),)
    both, alone = (own_errors(graph, batches, dict(base)) for batches in ([none, some], [some]))
    assert both["expert.0"] == alone["expert.0"] > 0
    for found in (own_errors(graph, [none], dict(base)), activation_errors(graph, none, base)):
        assert found["first"] > found["expert.0"] == found["expert.1"] == 0
    assert all(error > 0 for error in activation_errors(graph, some, base).values())
