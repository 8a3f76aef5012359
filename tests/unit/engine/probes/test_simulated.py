"""Simulated quantization computes what the quantized model computes, and redoes only what a switched op changes."""

import pytest
import torch

from quantuner.engine.engine import Engine
from quantuner.engine.probes.simulated import Simulated
from quantuner.space.config import FP32, TuneConfig
from quantuner.space.samplers import initial, op_type_wise
from tests.unit.engine.models import Net, Shared, engine_of, images, seeded


@pytest.fixture(scope="module", params=["static", "dynamic"])
def engine(request: pytest.FixtureRequest) -> Engine:
    made = engine_of(seeded(Net), approach=request.param)
    made.calibrate()
    return made


def simulated(engine: Engine, config: TuneConfig) -> Simulated:
    return Simulated(*engine.variant(config))


def test_it_computes_as_the_quantized_model_does(engine: Engine) -> None:
    x = images(8, seed=3)
    for config in list(op_type_wise(engine.space))[:6]:
        model = simulated(engine, config)
        with torch.no_grad():
            values = model.run((x,), config)
            torch.testing.assert_close(model.output(values)[0], engine.quantized(config)(x), rtol=0, atol=1e-5)


def test_without_a_quantized_op_it_is_the_model(engine: Engine) -> None:
    x = images(8, seed=3)
    model = simulated(engine, initial(engine.space))
    with torch.no_grad():
        torch.testing.assert_close(model.output(model.run((x,), {}))[0], seeded(Net)(x))


@pytest.mark.parametrize("name", ["stem.0", "head"])
def test_a_switched_op_gives_what_a_whole_run_gives(engine: Engine, name: str) -> None:
    base = initial(engine.space)
    changed = base.having({name: FP32})
    model = simulated(engine, base)
    with torch.no_grad():
        values = model.run((images(),), base)
        before = dict(values)
        again = model.rerun(values, changed, name)
        assert torch.equal(again[0], model.output(model.run((images(),), changed))[0])
    assert all(values[node] is before[node] for node in before)  # the base's values serve the next op


def test_all_calls_of_a_shared_module_are_switched() -> None:
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    engine = engine_of(seeded(Shared), loader=[x])
    engine.calibrate()
    base = initial(engine.space)
    model = simulated(engine, base)
    with torch.no_grad():
        again = model.rerun(model.run((x,), base), base.having({"fc": FP32}), "fc")
        assert torch.equal(again[0], model.output(model.run((x,), {}))[0])
