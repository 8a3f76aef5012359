"""Models whose data decide which rows an op sees: they are captured, and an op may see none."""

from pathlib import Path

import pytest
import torch

from quantuner.api.spec import Quantization
from quantuner.api.task import Task
from quantuner.engine.modulewise.engine import ModulewiseEngine
from quantuner.space.samplers import initial
from tests.unit.engine.models import Net, Routed, engine_of, rows, seeded

NONE = -rows(1).abs()  # of which the expert gets none


@pytest.mark.parametrize("approach", ["static", "dynamic", "weight_only"])
def test_a_model_that_routes_rows_is_searched_and_saved(approach: str, tmp_path: Path) -> None:
    engine = engine_of(
        seeded(Routed), loader=[rows()], eval_func=lambda model: float(model(rows(5)).mean()), approach=approach
    )
    assert [op.flops for op in engine.captured.ops] == [32, 64, 64]  # as if all came the expert's way
    engine.calibrate()
    config = initial(engine.space)
    assert engine.trial(config).accuracy == engine.save(config, tmp_path / "model")
    loaded, trial = engine.load(tmp_path / "model"), engine.switchable(config).model(config)
    with pytest.raises(ValueError, match="data decide how many rows an op sees"):
        loaded.compiled()
    for x in (rows(1), rows(3), rows(16), NONE):
        assert torch.equal(loaded(x), engine.quantized(config)(x))
        assert torch.equal(loaded(x), trial(x))


def test_a_model_that_does_not_keeps_the_ranges_of_its_inputs() -> None:
    engine = engine_of(seeded(Net), approach="dynamic")
    engine.calibrate()
    graph = engine.quantized(initial(engine.space)).graph
    assert not [node for node in graph.nodes if "cat" in str(node.target)]


def test_module_by_module_an_op_may_see_no_row() -> None:
    task = Task(model=seeded(Routed), calib_dataloader=[(rows(), None)], eval_func=lambda _: 1.0)
    engine = ModulewiseEngine(task, Quantization("dynamic"), ())
    engine.calibrate()
    with torch.no_grad():
        assert engine.quantized(initial(engine.space))(NONE).shape == (1, 4)
