"""One task's engine: measures configurations, changes nothing of the user's, saves what it measured."""

import gc
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import ERROR_LIMIT
from quantuner.api.spec import Quantization
from quantuner.api.task import Task
from quantuner.engine import artifact
from quantuner.engine.engine import Engine, cpu_kind, libraries
from quantuner.engine.footprint import MEBI
from quantuner.space import samplers
from quantuner.space.config import FP32, TuneConfig
from tests.unit.engine.models import Net, engine_of, images, seeded
from tests.unit.engine.weight_only.models import options

HELD_OUT = images(16, seed=2)


@pytest.fixture(scope="module")
def engine() -> Engine:
    engine = engine_of(seeded(Net), objectives=("performance", "modelsize"))
    engine.calibrate()
    return engine


def test_the_baseline_is_the_users_model(engine: Engine) -> None:
    result = engine.baseline()
    assert result.accuracy == float(seeded(Net)(HELD_OUT).mean().detach())
    assert set(result.objectives) == {"performance", "modelsize"}


def test_a_trial_is_measured_twice_with_the_same_bits(engine: Engine) -> None:
    config = samplers.initial(engine.space)
    one, other = engine.trial(config), engine.trial(config)
    assert one.accuracy == other.accuracy != engine.baseline().accuracy
    assert one.error == ""
    assert one.seconds >= one.objectives["performance"] > 0


def test_trials_that_are_compared_by_time_are_converted_and_give_the_same_accuracy() -> None:
    kinds: list[type] = []

    def mean(model: Any) -> float:
        kinds.append(type(model))
        return float(model(HELD_OUT).mean())

    engine = engine_of(seeded(Net), eval_func=mean)
    engine.calibrate()
    config = samplers.initial(engine.space)
    switched = engine.trial(config)
    engine.timed = True
    assert engine.trial(config).accuracy == switched.accuracy
    assert [issubclass(kind, torch.fx.GraphModule) for kind in kinds] == [False, True]


@pytest.mark.parametrize(
    ("recipes", "kind"),
    [
        ({}, ""),
        ({"first_conv_or_matmul_quantization": False}, ""),
        ({"smooth_quant": True}, "SmoothQuant"),
        ({"fast_bias_correction": True}, "converted FastBiasCorrection"),
        ({"smooth_quant": True, "weight_correction": True}, "converted SmoothQuant WeightCorrection"),
    ],
)
def test_trials_are_of_one_kind_where_the_same_is_made_for_them(
    engine: Engine, recipes: dict[str, Any], kind: str
) -> None:
    assert engine.kind(samplers.initial(engine.space).with_recipes(recipes)) == kind


def test_trials_that_train_search_for_few_bits_or_are_compared_by_time_are_of_other_kinds() -> None:
    def kind(approach: str, algorithm: str = "", timed: bool = False) -> str:
        made = engine_of(seeded(Net), approach=approach)
        made.timed = timed
        first = samplers.initial(made.space)
        return made.kind(first.having({name: options(algorithm=algorithm) for name in first}) if algorithm else first)

    assert kind("qat") == "converted"
    assert kind("static", timed=True) == "converted"
    assert kind("weight_only", "RTN") == ""
    assert kind("weight_only", "GPTQ") == "GPTQ"


def test_ranges_of_another_engine_give_the_same_accuracy(engine: Engine) -> None:
    other = engine_of(seeded(Net), objectives=engine.objectives)
    other.use_ranges(engine.calibrate())
    config = samplers.initial(engine.space)
    assert other.digest == engine.digest
    assert other.trial(config).accuracy == engine.trial(config).accuracy


def test_a_quantized_weight_takes_a_quarter_of_its_bytes(engine: Engine) -> None:
    config = samplers.initial(engine.space)
    whole = engine.baseline().objectives["modelsize"]
    sizes = [engine.trial(c).objectives["modelsize"] for c in (config, config.having({"head": FP32}))]
    assert [round((whole - size) * MEBI) for size in sizes] == [3 * (72 + 48), 3 * 72]


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: [x], lambda x: (x,)], ids=["a tensor", "a list", "a tuple"])
def test_example_inputs_may_be_one_tensor_or_several(kind: Any) -> None:
    task = Task(
        model=seeded(Net), calib_dataloader=[images(3)], eval_func=lambda _: 1.0, example_inputs=kind(images(6))
    )
    (found,) = Engine(task, Quantization("static"), ()).captured.example_inputs
    assert torch.equal(found, images(6))


def test_a_first_batch_without_samples_is_no_example() -> None:
    engine = engine_of(seeded(Net), loader=[images(0), images(3)])
    assert len(engine.captured.example_inputs[0]) == 3
    engine.calibrate()
    assert engine.trial(samplers.initial(engine.space)).error == ""


def test_a_scripted_model_is_refused_with_what_to_give() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of tracing
        traced = torch.jit.trace(seeded(Net), images())
    with pytest.raises(SearchError, match=r"a torch\.jit\.ScriptModule, .* give the torch\.nn\.Module that") as caught:
        engine_of(traced)
    assert caught.value.reason is Failure.TASK_INVALID


def test_the_users_model_is_not_changed() -> None:
    model = seeded(Net).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine = engine_of(model)
    engine.calibrate()
    engine.baseline()
    engine.trial(samplers.initial(engine.space))
    assert model.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_the_baseline_is_measured_in_evaluation_mode_as_trials_are() -> None:
    assert engine_of(seeded(Net).train()).baseline().accuracy == engine_of(seeded(Net)).baseline().accuracy


def test_what_is_saved_is_what_was_measured(engine: Engine, tmp_path: Path) -> None:
    config = samplers.initial(engine.space).having({"head": FP32})
    assert engine.save(config, tmp_path / "model") == engine.trial(config).accuracy
    assert TuneConfig.from_plain(yaml.safe_load((tmp_path / "model" / "config.yaml").read_text())) == config


def test_saving_keeps_nothing_of_the_trials_and_one_that_follows_has_the_same_accuracy(
    engine: Engine, tmp_path: Path
) -> None:
    config = samplers.initial(engine.space)
    before, kept = engine.trial(config).accuracy, weakref.ref(engine.switchable(config))
    engine.save(config, tmp_path / "model")
    assert kept() is None
    assert engine.trial(config).accuracy == before


def test_the_saved_model_gives_the_same_bits_for_any_batch(tmp_path: Path) -> None:
    """Every accuracy comes from the outputs: keep them instead of judging them."""
    outputs: list[torch.Tensor] = []

    def keep(model: Any) -> float:
        outputs.append(torch.cat([model(x) for x in HELD_OUT.split([1, 4, 11])]))
        return 0.0

    engine = engine_of(seeded(Net), eval_func=keep)
    engine.calibrate()
    config = samplers.initial(engine.space)
    engine.trial(config)
    engine.save(config, tmp_path / "model")
    assert torch.equal(*outputs)
    again = artifact.load(tmp_path / "model")
    assert torch.equal(again.eval()(HELD_OUT[:3]), artifact.load(tmp_path / "model")(HELD_OUT[:3]))


def test_a_trial_that_fails_is_a_result_with_its_error_and_line() -> None:
    def accuracy(model: Any) -> float:
        if not isinstance(model, Net):
            raise RuntimeError("quantized models make me dizzy " * 50)
        return 0.5

    engine = engine_of(seeded(Net), eval_func=accuracy)
    engine.calibrate()
    assert engine.baseline().accuracy == 0.5
    result = engine.trial(samplers.initial(engine.space))
    assert result.accuracy is None
    line = accuracy.__code__.co_firstlineno + 2
    assert result.error.startswith(f"eval_func raised at test_engine.py:{line} in accuracy: RuntimeError: quantized")
    assert len(result.error) <= ERROR_LIMIT


def print_nothing(model: Any) -> None:
    """Forgets to return the accuracy."""


def test_a_baseline_that_fails_ends_the_search() -> None:
    with pytest.raises(SearchError, match="must return one number, not NoneType") as caught:
        engine_of(seeded(Net), eval_func=print_nothing).baseline()
    assert caught.value.reason == Failure.EVALUATION_NOT_A_NUMBER


def test_a_model_that_is_no_module_is_refused() -> None:
    with pytest.raises(SearchError, match=r"Task\.model must be a torch\.nn\.Module, not str") as caught:
        engine_of("model")  # type: ignore[arg-type]
    assert caught.value.reason == Failure.TASK_INVALID


@pytest.mark.parametrize("recipe", ["fast_bias_correction", "weight_correction"])
def test_a_correction_of_what_is_trained_is_refused(recipe: str) -> None:
    task = Task(model=seeded(Net), calib_dataloader=[images()], eval_func=lambda _: 0.5)
    with pytest.raises(SearchError, match=f"{recipe} would take back what training .* has learnt; leave it out"):
        Engine(task, Quantization("qat", recipes={recipe: True}), ())


def test_calibration_data_that_can_be_read_only_once_are_refused() -> None:
    with pytest.raises(SearchError, match="calib_dataloader is a list_iterator, which can be read once only; give a"):
        engine_of(seeded(Net), loader=iter([images()]))


def test_a_trial_before_calibration_is_our_own_mistake() -> None:
    engine = engine_of(seeded(Net))
    assert "calibrate() or use_ranges() comes before" in engine.trial(samplers.initial(engine.space)).error


def test_versions_of_what_computed_the_accuracies() -> None:
    assert libraries()["torch"].startswith("2.13.")
    assert set(libraries()) == {"torch", "torchao"}
    assert cpu_kind()


@pytest.mark.parametrize("approach", ["static", "qat", "weight_only"])
def test_who_keeps_a_quantized_model_does_not_keep_the_engine(approach: str, tmp_path: Path) -> None:
    """It holds fp32 weights, ranges and calibration data."""
    engine = engine_of(seeded(Net), approach=approach)
    engine.train_with(lambda _: None, {})
    engine.calibrate()
    model = engine.quantized_model(samplers.initial(engine.space))
    graph = engine.captured.graph
    held = [weakref.ref(one) for one in (engine, graph, graph.get_parameter("head.weight"))]
    del engine, graph
    gc.collect()
    assert [one() for one in held] == [None, None, None]
    assert (model.save(tmp_path / "model") / "model.pt2").is_file()


def test_the_size_of_a_model_that_is_measured_is_its_own() -> None:
    """A quantized model that a strategy evaluates is about a quarter as large as the user's."""
    data, judge = torch.randn(8, 128), lambda _: 0.0
    engine = engine_of(torch.nn.Linear(128, 128), loader=[data], eval_func=judge, objectives=("modelsize",))
    engine.calibrate()
    quantized = engine.quantized_model(samplers.initial(engine.space))
    sizes = [engine.measure(model).objectives["modelsize"] for model in (quantized, engine.task.model)]
    assert sizes[0] < 0.35 * sizes[1]
    assert sizes[1] == engine.size(TuneConfig())
