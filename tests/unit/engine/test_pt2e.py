"""torchao's steps, with batch norms that cannot be folded kept out of a search that would take most of a minute."""

import copy
import gc
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from torchao.quantization.pt2e import qat_utils
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e as torchaos

from quantuner.engine.pt2e import convert_pt2e, prepare_pt2e
from quantuner.engine.quantize import Activations, ConfigQuantizer, _observe_weights
from quantuner.engine.quiet import quiet
from quantuner.space.samplers import initial
from tests.unit.engine.models import Net, engine_of, images, seeded


def first_of_all() -> nn.Module:
    """No convolution before the norm could take it."""
    return nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3))


@pytest.mark.parametrize("approach", ["static", "dynamic", "qat"])
def test_torchao_does_not_search_for_norms_that_are_not_there(approach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would have done, it says by raising; and the model still computes with the norm."""

    def search(*_: Any, **__: Any) -> Any:
        raise AssertionError("torchao searches for patterns")

    for name in ("_fold_conv_bn_qat_helper", "_fuse_conv_bn_qat_helper"):
        monkeypatch.setattr(qat_utils, name, search)
    model = seeded(first_of_all)
    engine = engine_of(model, approach=approach)
    engine.calibrate()
    engine.train_with(lambda model: model(images()).sum().backward(), {})
    quantized = engine.quantized(initial(engine.space))
    with torch.no_grad():
        torch.testing.assert_close(quantized(images()), model(images()), rtol=0.1, atol=0.05)
    norms = [node for node in quantized.graph.nodes if node.target is torch.ops.aten.batch_norm.default]
    assert len(norms) == 1


@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_it_is_torchaos_conversion_to_the_bit(approach: str) -> None:
    engine = engine_of(seeded(Net), approach=approach)
    engine.calibrate()
    activations = Activations(next(iter(engine.calibrate().values())))
    found = []
    for convert in (convert_pt2e, torchaos):
        with quiet(), torch.no_grad():
            quantizer = ConfigQuantizer(initial(engine.space), activations)
            prepared = prepare_pt2e(copy.deepcopy(engine.captured.graph), quantizer)
            _observe_weights(prepared)
            found.append(convert(prepared))
    ours, theirs = found
    assert ours.code == theirs.code
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())


def graphs_in_memory() -> int:
    gc.collect()
    return sum(issubclass(type(one), GraphModule) for one in gc.get_objects())


def test_no_model_stays_in_memory() -> None:
    """Neither what was quantized nor what was made on the way: a search quantizes thousands of times."""
    engine = engine_of(seeded(first_of_all))
    engine.calibrate()
    config = initial(engine.space).with_recipes({"fast_bias_correction": True})
    engine.trial(config)
    before = graphs_in_memory()
    for _ in range(2):
        assert engine.trial(config).error == ""
    assert graphs_in_memory() == before
