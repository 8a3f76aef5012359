"""What a processor's instructions mean for the tuning space, and the device that is asked for."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import Quantization
from quantuner.engine.devices import INSTRUCTIONS, device_of, device_where, features, in_order, left_out, on_device
from quantuner.engine.engine import Engine
from quantuner.engine.quiet import quiet
from quantuner.engine.recipes import FastBiasCorrection, SmoothQuant, WeightCorrection
from quantuner.space.capability import Mode
from quantuner.space.samplers import initial
from tests.unit.engine.models import ALL_FAST, Net, engine_of, images, seeded

HALVES = (Mode.BF16, Mode.FP16)


@pytest.mark.parametrize(
    ("found", "slow"),
    [
        pytest.param({}, HALVES, id="nothing known"),
        pytest.param({"avx2": True, "avx512_f": True, "avx512_vnni": True}, HALVES, id="AVX-512 alone"),
        pytest.param({"avx512_bf16": True}, (Mode.FP16,), id="AVX-512 with bf16"),
        pytest.param({"avx512_bf16": False, "amx_bf16": True}, (Mode.FP16,), id="AMX with bf16"),
        pytest.param({"avx512_bf16": True, "avx512_fp16": True}, (), id="both"),
        pytest.param({"architecture": "aarch64", "fp16_arith": True}, (Mode.BF16,), id="Arm with fp16"),
        pytest.param({"architecture": "aarch64", "fp16_arith": True, "bf16": True}, (), id="Arm with both"),
    ],
)
def test_a_precision_is_left_out_where_no_instruction_multiplies_in_it(
    found: dict[str, Any], slow: tuple[Mode, ...]
) -> None:
    assert tuple(left_out((*HALVES, Mode.FP32), found)) == slow
    assert not left_out([Mode.FP32], found)


def test_the_reason_names_the_processor_and_what_it_lacks() -> None:
    (why,) = left_out([Mode.FP16], {"cpu_name": "Z80"}).values()
    assert why == "Z80 has none of avx512_fp16, amx_fp16, fp16_arith"


def test_this_processor_is_asked_by_names_that_torch_knows() -> None:
    found = features(torch.device("cpu"))
    assert found is not None
    own = found["architecture"] in ("x86_64", "aarch64", "arm64")
    assert not own or any(name in found for names in INSTRUCTIONS.values() for name in names)


def test_fallback_has_one_order_whatever_the_users() -> None:
    assert in_order(["fp32", "fp16", "bf16"]) == (Mode.BF16, Mode.FP16, Mode.FP32)


def test_a_gpu_that_is_not_there_is_said_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SearchError, match=r"quantization.device is 'cuda', but torch .* finds no GPU here; ") as caught:
        device_of("cuda")
    assert caught.value.reason == Failure.CONFIGURATION_INVALID
    with pytest.raises(SearchError, match="finds no GPU"):
        Engine(engine_of(seeded(Net)).task, Quantization(device="cuda"), ())


def test_an_engine_offers_what_was_asked_for_and_is_fast_and_says_what_is_not() -> None:
    task = engine_of(seeded(Net)).task
    asked = Quantization(precisions=("fp32", "bf16", "fp16"))
    engine = Engine(task, asked, (), {"avx512_bf16": True, "cpu_name": "Z80"})
    assert engine.precisions == (Mode.BF16, Mode.FP32)
    assert engine.left_out == {Mode.FP16: "Z80 has none of avx512_fp16, amx_fp16, fp16_arith"}
    assert all(list(c.modes) == [Mode.STATIC, Mode.BF16, Mode.FP32] for c in engine.space)


def test_without_being_asked_for_no_precision_is_offered_and_none_is_missed() -> None:
    engine = Engine(engine_of(seeded(Net)).task, Quantization(), (), ALL_FAST)
    assert (engine.precisions, engine.left_out) == ((Mode.FP32,), {})
    slow = Engine(engine.task, Quantization(), (), {})
    assert (slow.precisions, slow.left_out) == ((Mode.FP32,), {})


def test_what_is_excluded_is_neither_offered_nor_missed() -> None:
    asked = Quantization(precisions=("bf16", "fp16", "fp32"), excluded_precisions=("fp16",))
    engine = Engine(engine_of(seeded(Net)).task, asked, (), {"avx512_bf16": True})
    assert (engine.precisions, engine.left_out) == ((Mode.BF16, Mode.FP32), {})


# --- a task on its device. torch's meta device, which holds shapes alone, shows that all is moved and nothing else.

META = torch.device("meta")


def test_a_task_on_the_cpu_that_stays_there_is_left_as_it_is() -> None:
    task = engine_of(seeded(Net)).task
    assert on_device(task, torch.device("cpu")) is task


def test_model_batches_and_example_inputs_are_moved_and_the_users_are_not() -> None:
    batches = [({"x": torch.ones(2)}, torch.zeros(2)), (torch.ones(3), [1, torch.zeros(3)])]
    task = replace(engine_of(seeded(Net)).task, calib_dataloader=batches, example_inputs=(torch.ones(2), 7))
    there = on_device(task, META)
    for _ in range(2):  # read anew each time
        read = list(there.calib_dataloader)
        assert [len(batch) for batch in read] == [2, 2]
        assert all(leaf.device == META for leaf in tree_leaves(read) if isinstance(leaf, torch.Tensor))
        assert read[1][1][0] == 1
    assert there.example_inputs is not None
    assert (there.example_inputs[0].device, there.example_inputs[1]) == (META, 7)
    assert {tensor.device for tensor in there.model.state_dict().values()} == {META}
    assert device_where(there.model) == META
    assert device_where(task.model).type == "cpu"
    assert (there.eval_func, there.train_func) == (task.eval_func, task.train_func)


@pytest.mark.parametrize("model", [nn.ReLU(), abs], ids=["no tensors", "no module"])
def test_a_model_without_tensors_counts_as_on_the_cpu(model: Any) -> None:
    assert device_where(model) == torch.device("cpu")


def test_a_model_whose_only_tensors_are_buffers_is_where_they_are() -> None:
    assert device_where(nn.BatchNorm1d(2, affine=False, device="meta")) == META


@pytest.mark.parametrize(
    "recipe", [SmoothQuant("auto"), FastBiasCorrection(), WeightCorrection()], ids=lambda recipe: type(recipe).__name__
)
def test_a_recipe_makes_its_tensors_where_the_models_are(recipe: Any) -> None:
    engine = engine_of(seeded(Net))
    engine.calibrate()
    q_model = engine.captured.graph if isinstance(recipe, SmoothQuant) else engine.quantized(initial(engine.space))
    batches = engine.calibration_inputs(initial(engine.space))
    with quiet():
        wanted = recipe(engine.captured.graph, q_model, batches)
    with quiet(), META:  # where torch now makes whatever names no device
        found = recipe(engine.captured.graph, q_model, batches)
    with torch.no_grad():
        assert torch.equal(found(images()), wanted(images()))


def test_traces_are_drawn_alike_wherever_the_weights_are() -> None:
    engine = engine_of(seeded(Net), loader=[(images(), torch.zeros(8, dtype=torch.int64))])
    engine.calibrate()
    wanted = engine.probes.hessian_traces(None, 7)
    with META:
        assert engine.probes.hessian_traces(None, 7) == wanted
