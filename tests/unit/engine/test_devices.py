"""What a processor's instructions mean for the tuning space, and the device that is asked for."""

from typing import Any

import pytest
import torch

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import Quantization
from quantuner.engine.devices import INSTRUCTIONS, device_of, features, in_order, left_out
from quantuner.engine.engine import Engine
from quantuner.space.capability import Mode
from tests.unit.engine.models import ALL_FAST, Net, engine_of, seeded

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
