"""What the kernel of one op computes of what follows it."""

import torch
from torch import nn
from torch.fx import Node

from quantuner.engine.engine import Engine
from quantuner.engine.switch.flow import After, Rounded
from quantuner.engine.switch.integers import InputGrid
from quantuner.engine.switch.switchable import Switchable
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, TuneConfig
from quantuner.space.samplers import initial, op_wise_candidates
from tests.unit.engine.models import engine_of, images, seeded


class Branches(nn.Module):
    """A ReLU alone reads `one`, and two ops read that; more than its ReLU reads `two`, more than ops `three`'s ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(2, 2, 1) for _ in range(3))
        self.four = nn.Conv2d(2, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.one(x).relu()
        second = self.two(first)
        third = self.three(first).relu()
        z: torch.Tensor = self.four(third) + third + second + second.relu()
        return z


def made() -> tuple[Engine, Switchable, TuneConfig]:
    engine = engine_of(seeded(Branches), loader=[(images(), torch.zeros(8))])
    engine.calibrate()
    config = initial(engine.space)
    return engine, engine.switchable(config), config


def grids(model: Switchable, config: TuneConfig) -> dict[str, InputGrid | None]:
    """Op to the grid that its kernel rounds to; only ops whose kernels have a ReLU."""
    flow = model.flow(config)
    assert all(flow.grid(relu) == flow.after[op].grid for relu, op in flow.computed_by.items())
    return {model.names[op]: after.grid for op, after in flow.after.items() if after.rectifies}


def test_a_relu_that_alone_reads_an_op_is_part_of_its_kernel_and_so_is_the_one_rounding_of_all_its_readers() -> None:
    _, model, config = made()
    found = grids(model, config)
    assert found.keys() == {"one", "three"}
    assert found["one"] is not None
    assert found["one"].zero_point == 0
    assert found["three"] is None  # an addition reads it in fp32


def test_readers_that_do_not_round_alike_get_fp32() -> None:
    engine, model, config = made()
    assert grids(model, config.having({"two": FP32}))["one"] is None
    unlike = next(
        one
        for one in op_wise_candidates(engine.space)["two"]
        if one.mode is Mode.STATIC and one.get("activation", "scheme") != config["two"].get("activation", "scheme")
    )
    assert grids(model, config.having({"two": unlike}))["one"] is None
    both = grids(model, config.having({"two": unlike, "three": unlike}))["one"]
    assert both is not None
    assert both.zero_point == 0  # of a symmetric range, too: a ReLU's output needs no zero point


def test_an_op_in_fp32_has_no_kernel_to_be_part_of() -> None:
    _, model, config = made()
    assert grids(model, config.having({"one": FP32})).keys() == {"three"}


def test_a_value_that_is_kept_as_integers_is_not_taken_for_fp32() -> None:
    """The same op under the same configuration, whose readers round to another grid or not at all."""
    engine, model, config = made()
    for changed in (config, config.having({"two": FP32}), config.having({"two": FP32, "three": FP32}), config):
        with torch.no_grad():
            assert torch.equal(model.model(changed)(images()), engine.quantized(changed)(images()))


def test_probes_see_every_ops_own_output_in_fp32() -> None:
    _, model, config = made()
    values = model.run((images(),), config)
    ops: list[Node] = [node for node in model.names if model.names[node] in ("one", "three")]
    assert all((values[op] < 0).any() and values[op].dtype == torch.float32 for op in ops)


def test_after_an_op_come_its_relu_and_its_rounding() -> None:
    value, grid = torch.tensor([-1.0, 0.26, 0.74, 900.0]), InputGrid(0.5, 0, 127)
    assert After().of(value.clone()).tolist() == value.tolist()
    assert After(True).of(value.clone()).tolist() == [0, *value.tolist()[1:]]
    integers = After(True, grid).of(value.clone())
    assert (integers.dtype, integers.tolist()) == (torch.uint8, [0, 1, 1, 127])
    assert Rounded(integers, grid).fp32().tolist() == [0, 1, 1, 127]
