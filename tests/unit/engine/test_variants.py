"""Models that algorithms made of the captured one: made once, calibrated alike, whichever trial comes first."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.api.spec import Quantization
from quantuner.api.task import Task
from quantuner.engine.engine import Engine
from quantuner.engine.recipes.scheduler import Batches
from quantuner.engine.variants import KEPT
from quantuner.space.config import FP32, TuneConfig
from quantuner.space.samplers import initial
from tests.unit.engine.models import Net, engine_of, images, seeded


class Plan:
    """Schedules algorithms of the user's own before quantization, and none after."""

    rewrites_models = False

    def __init__(self, *algorithms: Any) -> None:
        self.algorithms = algorithms

    def set_param_for_pre_quantization_algos(self, algo_scheduler: Any, tune_cfg: Any, fp32_model: Any) -> None:
        for algorithm in self.algorithms:
            algo_scheduler.append_algorithm(algorithm)

    def set_param_for_post_quantization_algos(self, *_: Any) -> None:
        """None."""


class Shift:
    """Adds to the last bias; counts its runs and the samples it saw."""

    def __init__(self, by: float = 1.0) -> None:
        self.by, self.samples = by, list[int]()

    def __call__(self, origin_model: GraphModule, q_model: GraphModule, batches: Batches) -> GraphModule:
        self.samples.append(sum(len(inputs[0]) for inputs in batches()))
        return changed(q_model, self.by)


class KeyedShift(Shift):
    def __init__(self, by: float = 1.0) -> None:
        super().__init__(by)
        self.key = f"shift {by}"


def changed(model: GraphModule, by: float) -> GraphModule:
    result = copy.deepcopy(model)
    result.get_parameter("head.bias").add_(by)
    return result


def engine(sizes: tuple[int, ...] = (8,), *algorithms: Any) -> Engine:
    data = [images(4, seed=1), 3 * images(4, seed=2)]
    task = Task(model=seeded(Net), calib_dataloader=data, eval_func=lambda m: float(m(images(4)).mean()))
    made = Engine(task, Quantization(calibration_sampling_sizes=sizes), ("performance",))
    made.calibrate()
    made.algorithms = Plan(*algorithms) if algorithms else None
    return made


def output(engine: Engine, config: TuneConfig) -> float:
    with torch.no_grad():
        return float(engine.quantized(config)(images(4)).mean())


def test_without_algorithms_it_is_the_model_itself() -> None:
    made = engine()
    config = initial(made.space)
    assert made.switchable(config) is made.switchable(config.having({"head": FP32}))
    assert made.quantized(config) is not made.switchable(config).program.model


def test_an_algorithm_with_a_key_runs_once_for_all_trials() -> None:
    shift = KeyedShift()
    made = engine((8,), shift)
    config = initial(made.space)
    assert output(made, config) == output(made, config.calibrated_with(8))
    assert len(shift.samples) == 1


def test_one_without_a_key_runs_for_every_trial_on_its_data() -> None:
    shift = Shift()
    made = engine((4, 8), shift)
    config = initial(made.space)
    for size in (4, 8, 4):
        output(made, config.calibrated_with(size))
    assert shift.samples == [4, 8, 4]


def test_one_of_several_without_a_key_makes_all_run_again() -> None:
    keyed, other = KeyedShift(), Shift()
    made = engine((8,), keyed, other)
    config = initial(made.space)
    assert output(made, config) == output(made, config)
    assert (len(keyed.samples), len(other.samples)) == (2, 2)


@pytest.mark.parametrize("recipes", [{}, {"smooth_quant": True}], ids=["the user's own", "smooth quant"])
def test_the_order_of_calibration_sizes_does_not_matter(recipes: Any) -> None:
    """Ranks meet them in different orders, and must compute the same."""
    found = []
    for order in ((4, 8), (8, 4)):
        made = engine((4, 8), *([] if recipes else [KeyedShift()]))
        config = initial(made.space).with_recipes(recipes)
        outputs = {size: output(made, config.calibrated_with(size)) for size in order}
        found.append((outputs[4], outputs[8]))
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]  # the ranges are those of the size


def test_algorithms_change_the_trial_and_not_the_model() -> None:
    made = engine()
    config = initial(made.space)
    plain = output(made, config)
    made.algorithms = Plan(KeyedShift(2.0))
    assert output(made, config) == pytest.approx(plain + 2.0, abs=1e-5)  # float32 sums of about 1
    made.algorithms = None
    assert output(made, config) == plain


def test_a_variant_that_was_given_up_for_room_is_made_again_alike() -> None:
    made = engine()
    config = initial(made.space)
    shifts = [KeyedShift(float(by)) for by in range(KEPT + 1)]
    outputs = []
    for shift in [*shifts, shifts[0]]:
        made.algorithms = Plan(shift)
        outputs.append(output(made, config))
    assert [len(shift.samples) for shift in shifts] == [2, *[1] * KEPT]
    assert outputs[0] == outputs[-1]


def test_a_variant_has_ranges_of_its_own() -> None:
    """An op behind the changed one sees other values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).eval()
    made = engine_of(model, loader=[torch.ones(8, 4)], eval_func=lambda _: 0.0)
    made.calibrate()
    config = initial(made.space)
    before = made.switchable(config).rounding.activations
    made.algorithms = Plan(Rise())
    after = made.switchable(config).rounding.activations
    assert float(after.ranges["1"].maximum) == pytest.approx(float(before.ranges["1"].maximum) + 5.0)
    assert torch.equal(after.ranges["0"].maximum, before.ranges["0"].maximum)


class Rise:
    key = "rise"

    def __call__(self, origin_model: GraphModule, q_model: GraphModule, batches: Batches) -> GraphModule:
        result = copy.deepcopy(q_model)
        result.get_parameter("0.bias").add_(5.0)
        return result
