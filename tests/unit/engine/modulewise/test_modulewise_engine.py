"""A model that cannot be captured is searched, saved and loaded all the same."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import quantuner
from quantuner import options as options_of
from quantuner.api.conditions import Failure
from quantuner.api.errors import ArtifactError, SearchError
from quantuner.api.spec import Quantization
from quantuner.api.task import Task
from quantuner.config import AccuracyCriterion, PostTrainingQuantConfig, TuningCriterion
from quantuner.engine import artifact
from quantuner.engine.engine import Engine
from quantuner.engine.modulewise.engine import ModulewiseEngine, engine_of
from quantuner.quantization import fit
from quantuner.space.config import FP32, TuneConfig
from quantuner.space.samplers import initial, op_wise_candidates
from tests.unit.engine.digits_net import CALIBRATION, HELD_OUT
from tests.unit.engine.models import engine_of as captured_engine
from tests.unit.engine.models import seeded
from tests.unit.engine.modulewise.models import EarlyExit, accuracy, batches, engine, trained
from tests.unit.engine.test_artifact import REPORT
from tests.unit.engine.weight_only.models import Two, options, rows

OPS = ["stem", "exit", "trunk", "head"]
BOTH = pytest.mark.parametrize("approach", ["dynamic", "weight_only"])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(x) for x, _ in batches(HELD_OUT)])


def test_the_model_reads_digits_and_takes_both_ways() -> None:
    model = trained()
    assert accuracy(model) > 0.9
    assert 10 < model.deep < 90  # of 100 batches


@BOTH
def test_its_linears_are_its_ops_a_shared_one_once(approach: str) -> None:
    made = engine(approach)
    assert [(op.name, op.type) for op in made.captured.ops] == [(name, "Linear") for name in OPS]
    assert made.baseline().accuracy == 1.0


@BOTH
def test_a_trial_gives_the_bits_of_the_quantized_and_of_the_loaded_model(approach: str, tmp_path: Path) -> None:
    made = engine(approach)
    start = initial(made.space)
    candidates = op_wise_candidates(made.space)
    several = [start, start.having({"trunk": FP32}), start.having({n: c[-1] for n, c in candidates.items()}), start]
    for number, config in enumerate(several):
        expected = logits(made.quantized(config))
        assert torch.equal(logits(made.switchable(config).model(config)), expected)
        trial, saved = made.trial(config), made.save(config, tmp_path / str(number))
        assert trial.accuracy == saved < 1.0
        assert torch.equal(logits(quantuner.load(tmp_path / str(number), model=EarlyExit())), expected)
    assert torch.equal(logits(made.task.model), logits(trained()))  # the user's is as it was


def test_every_option_of_a_weight_comes_back(tmp_path: Path) -> None:
    made = engine("weight_only")
    for config in (options(4, 32, "asym", "AWQ"), options(4, -1, "asym", "HQQ"), options(8, 64, "asym", "GPTQ")):
        whole = TuneConfig(dict.fromkeys(OPS, config))
        made.save(whole, tmp_path / config.short().replace("/", "-"))
        loaded = quantuner.load(tmp_path / config.short().replace("/", "-"), model=EarlyExit())
        assert torch.equal(logits(loaded), logits(made.quantized(whole)))


@BOTH
def test_module_by_module_it_is_the_captured_model_where_there_is_one(approach: str) -> None:
    """To the bit, for a model that can be captured."""
    loader: list[Any] = [(rows(), None)]
    graph = captured_engine(seeded(Two), loader=loader, approach=approach)
    task = Task(model=seeded(Two), calib_dataloader=loader, eval_func=lambda _: 1.0)
    modules = ModulewiseEngine(task, Quantization(approach), ())
    graph.calibrate(), modules.calibrate()
    for name, picked in op_wise_candidates(graph.space).items():
        for config in picked:
            whole = initial(graph.space).having({name: config})
            with torch.no_grad():
                assert torch.equal(graph.quantized(whole)(rows(9, 3)), modules.quantized(whole)(rows(9, 3)))


@pytest.mark.parametrize("strategy", ["auto", "sensitivity", "basic", "mse", "mse_v2", "conservative", "tpe"])
def test_strategies_search_it_and_fit_gives_the_model_that_was_verified(strategy: str, tmp_path: Path) -> None:
    conf = PostTrainingQuantConfig(
        approach="weight_only",
        op_type_dict={"Linear": {"weight": {"bits": 4, "algorithm": ["RTN", "GPTQ"]}}},
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.01),
        tuning_criterion=TuningCriterion(strategy=strategy, max_trials=12),
    )
    options_of.set_workspace(tmp_path / "workspace")
    try:
        found = fit(trained(), conf, calib_dataloader=batches(CALIBRATION), eval_func=accuracy)
    finally:
        options_of.set_workspace(None)
    assert found is not None
    assert accuracy(found) >= 0.99 * accuracy(trained())
    assert "weight_only" in {op["mode"] for op in found.q_config["ops"].values()}


def test_a_fresh_process_loads_the_weights_into_the_users_class(tmp_path: Path) -> None:
    made = engine("weight_only")
    config = initial(made.space)
    made.save(config, tmp_path / "model")
    code = (
        "import quantuner\n"
        "from tests.unit.engine.modulewise.models import EarlyExit, accuracy\n"
        f"print(repr(accuracy(quantuner.load({str(tmp_path / 'model')!r}, model=EarlyExit()))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == accuracy(made.quantized(config))


def test_what_is_saved_is_tensors_that_are_really_smaller(tmp_path: Path) -> None:
    made = engine("weight_only")
    config = initial(made.space)
    made.save(config, tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["SHA256SUMS", "config.yaml", "weights.pt"]
    weights = artifact.load_weights(tmp_path / "model")
    assert "stem.weight" not in weights
    assert weights["stem.stored.values"].dtype is torch.uint8
    stored = sum(t.nbytes for name, t in weights.items() if "again" not in name)
    assert stored < 0.3 * sum(t.nbytes for name, t in trained().state_dict().items() if "again" not in name)


def test_its_card_says_whose_module_takes_the_weights(tmp_path: Path) -> None:
    made = engine("weight_only")
    made.save(initial(made.space), tmp_path / "model")
    artifact.write_report(tmp_path / "model", REPORT)
    card = (tmp_path / "model" / "README.md").read_text()
    assert 'quantuner.load("FOLDER", model=MyModel())' in card
    assert "model.pt2" not in card


class Other(EarlyExit):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48, 11)


class Renamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.root = nn.Linear(64, 48)


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        (None, ValueError, r"give your fp32 module, as load\(folder, model=MyModel\(\)\)"),
        (Other(), ArtifactError, "saved weights do not fit the module .*head.bias"),
        (Renamed(), ArtifactError, "has no Linear stem, exit, trunk, head; give the class that was quantized"),
    ],
    ids=["none", "other shapes", "other names"],
)
def test_a_module_that_is_missing_or_another_one_is_refused(
    model: nn.Module | None, error: type[Exception], says: str, tmp_path: Path
) -> None:
    made = engine("weight_only")
    made.save(initial(made.space), tmp_path / "model")
    with pytest.raises(error, match=r"(?s)" + says):
        quantuner.load(tmp_path / "model", model=model)


def test_a_whole_program_takes_no_module(tmp_path: Path) -> None:
    made = captured_engine(seeded(Two), loader=[(rows(), None)], approach="weight_only", eval_func=lambda _: 1.0)
    made.calibrate()
    made.save(initial(made.space), tmp_path / "model")
    with pytest.raises(ValueError, match="holds a whole program; leave model out"):
        quantuner.load(tmp_path / "model", model=seeded(Two))


def test_it_is_not_compiled_whole() -> None:
    made = engine("dynamic")
    with pytest.raises(ValueError, match="could not be captured, so it cannot be compiled whole"):
        made.quantized_model(initial(made.space)).compiled()


@pytest.mark.parametrize("approach", ["static", "auto", "qat"])
def test_other_approaches_say_the_line_and_what_works_without_a_graph(approach: str) -> None:
    task = Task(model=trained(), calib_dataloader=batches(CALIBRATION), eval_func=accuracy)
    with pytest.raises(SearchError, match=r"at models\.py:\d+ in forward") as caught:
        engine_of(task, Quantization(approach), ())
    assert caught.value.reason is Failure.MODEL_NOT_CAPTURABLE
    assert "dynamic and weight_only would quantize the model's Linears without one" in caught.value.message


def test_what_needs_a_graph_is_refused_by_name() -> None:
    task = Task(model=trained(), calib_dataloader=batches(CALIBRATION), eval_func=accuracy)
    with pytest.raises(SearchError, match="cannot be captured, and bf16 needs its graph; leave bf16 out"):
        engine_of(task, Quantization("dynamic", precisions=("fp32", "bf16")), ())
    with pytest.raises(SearchError, match="smooth_quant needs its graph"):
        engine_of(task, Quantization("dynamic", recipes={"smooth_quant": True}), ())


def test_hawq_is_refused_with_a_remedy() -> None:
    with pytest.raises(SearchError, match="choose another strategy than hawq_v2"):
        engine("dynamic").probes.hessian_traces(None, 0)


def test_a_model_that_can_be_captured_is() -> None:
    task = Task(model=seeded(Two), calib_dataloader=[(rows(), None)], eval_func=lambda _: 1.0)
    assert type(engine_of(task, Quantization("weight_only"), ())) is Engine


def test_other_calibration_data_have_another_digest() -> None:
    made = engine("weight_only")
    task = Task(model=trained(), calib_dataloader=batches(slice(100, 200)), eval_func=accuracy)
    other = engine_of(task, Quantization("weight_only"), ())
    other.calibrate()
    assert made.digest == other.digest
    assert len(made.ranges_digest) == 16
    assert made.ranges_digest != other.ranges_digest
