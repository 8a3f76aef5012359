"""Layer by layer: the same bits as a model that was in memory as a whole, and far less memory."""

import collections
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import Override, Quantization
from quantuner.engine.layer_wise.conversion import LayerWise
from quantuner.engine.quantized import load
from quantuner.space.config import FP32
from quantuner.space.samplers import initial
from tests.unit.engine.layer_wise.cases import DATA, Encoder, empty, saved
from tests.unit.engine.models import engine_of
from tests.unit.engine.recipes.cases import normal, squared_error


def layer_wise(folder: Path, approach: str = "static", **more: Any) -> LayerWise:
    return LayerWise(empty(Encoder), folder, [DATA], Quantization(approach, **more))


def rounded(algorithm: str) -> Override:
    return Override("Linear", {("weight", "algorithm"): (algorithm,)})


@pytest.mark.parametrize("approach", ["static", "dynamic", "weight_only"])
def test_it_has_the_bits_of_a_model_that_was_in_memory(approach: str, tmp_path: Path) -> None:
    model = saved(Encoder, tmp_path)
    engine = engine_of(model, loader=[DATA], approach=approach)
    engine.calibrate()
    others = {op.name: FP32 for op in engine.captured.ops if op.type != "Linear"}
    expected = engine.quantized(initial(engine.space).having(others))
    found = layer_wise(tmp_path, approach).quantized()
    with torch.no_grad():
        assert torch.equal(found(DATA), expected(DATA))
        assert not torch.equal(found(DATA), model(DATA))


class Pictures(nn.Module):
    """Convolutions, which stay in fp32, with a norm that is folded into one; then linears."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.wide = nn.Conv2d(8, 16, 3)
        self.up, self.last = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 3, H, W)` to `(N, P, 4)`."""
        y = self.wide(self.stem(x)).flatten(2).transpose(1, 2)
        z: torch.Tensor = self.last(self.up(y).relu())
        return z


@pytest.mark.parametrize("approach", ["static", "dynamic", "weight_only"])
def test_a_model_of_convolutions_has_these_bits_too_and_takes_other_batches(approach: str, tmp_path: Path) -> None:
    model = saved(Pictures, tmp_path)
    data = [normal(1, 3, 10, side) for side in (10, 10, 10, 12)]  # one image each, as usual where a model is large
    engine = engine_of(model, loader=data, approach=approach, eval_func=lambda _: 1.0)
    engine.calibrate()
    linears = {name for name, module in model.named_modules() if type(module) is nn.Linear}
    others = {op.name: FP32 for op in engine.captured.ops if op.name not in linears}
    expected = engine.quantized(initial(engine.space).having(others))
    found = LayerWise(empty(Pictures), tmp_path, data, Quantization(approach)).quantized()
    for x in (*data, normal(5, 3, 10, 9)):
        with torch.no_grad():
            assert torch.equal(found(x), expected(x))
            assert not torch.equal(found(x), model(x))


def test_what_torch_alone_cannot_load_is_refused_before_it_is_saved(tmp_path: Path) -> None:
    class Boxed(nn.Linear):
        def forward(self, input: torch.Tensor) -> Any:  # noqa: A002  # torch's name for it
            return Box(super().forward(input))

    whole = nn.Sequential(nn.Linear(4, 4), Boxed(4, 4))
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(SearchError, match=r"forward\(\) returns a .*Box, which torch alone cannot make"):
        LayerWise(whole.to("meta"), tmp_path, [torch.ones(2, 4)], Quantization("dynamic")).quantized()


Box = collections.namedtuple("Box", "x")  # as users have them


@pytest.mark.parametrize("approach", ["static", "dynamic", "weight_only"])
def test_it_is_saved_as_any_model_is(approach: str, tmp_path: Path) -> None:
    saved(Encoder, tmp_path)
    found = layer_wise(tmp_path, approach).quantized()
    with torch.no_grad():
        assert torch.equal(load(found.save(tmp_path / "model"))(DATA[:3]), found(DATA[:3]))
    assert set(found.q_config["ops"]) == {"up", "down", "head"}


@pytest.mark.parametrize("algorithm", ["GPTQ", "AWQ"])
def test_algorithms_that_look_at_inputs_see_those_of_the_fp32_model(algorithm: str, tmp_path: Path) -> None:
    model = saved(Encoder, tmp_path)
    constraint = Quantization("weight_only", op_types=(rounded(algorithm),))
    engine = engine_of(model, loader=[DATA], approach="weight_only")
    found = LayerWise(empty(Encoder), tmp_path, [DATA], constraint)
    engine.calibrate()
    expected = engine.quantized(found.config)
    quantized = found.quantized()
    torch.testing.assert_close(quantized(DATA), expected(DATA))


def test_an_op_may_stay_in_fp32(tmp_path: Path) -> None:
    model = saved(Encoder, tmp_path)
    kept = Override(".*", {("weight", "dtype"): ("fp32",), ("activation", "dtype"): ("fp32",)})
    some = layer_wise(tmp_path, op_names=(Override("head", kept.options),)).quantized()
    every = layer_wise(tmp_path).quantized()
    assert some.q_config["ops"]["head"] == {"mode": "fp32"}
    assert squared_error(some, model, DATA) < squared_error(every, model, DATA)


class Mixed(nn.Module):
    """A linear in bf16 between two in fp32."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 8), nn.Linear(8, 8).bfloat16(), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.middle(self.first(x).bfloat16()).float())
        return y


@pytest.mark.parametrize("approach", ["static", "dynamic", "weight_only"])
def test_a_linear_in_bf16_stays_so(approach: str, tmp_path: Path) -> None:
    model, data = saved(Mixed, tmp_path), normal(8, 8)
    found = LayerWise(empty(Mixed), tmp_path, [data], Quantization(approach)).quantized()
    assert set(found.q_config["ops"]) == {"first", "last"}
    with torch.no_grad():
        torch.testing.assert_close(found(data), model(data), atol=0.2, rtol=0.1)
        assert torch.equal(load(found.save(tmp_path / "model"))(data), found(data))


def test_a_linear_that_reads_infinity_is_named(tmp_path: Path) -> None:
    save_file({"0.weight": torch.ones(4, 4), "0.bias": torch.zeros(4)}, tmp_path / "model.safetensors")
    data = torch.ones(2, 4)
    data[0, 0] = torch.inf
    model = LayerWise(nn.Sequential(nn.Linear(4, 4, device="meta")), tmp_path, [data], Quantization("static"))
    with pytest.raises(SearchError, match=r"the input of 0 was not finite during calibration \(1.0 … inf\)") as caught:
        model.quantized()
    assert caught.value.reason is Failure.CALIBRATION_FAILED


def test_the_fp32_accuracy_is_that_of_the_model_in_memory(tmp_path: Path) -> None:
    model = saved(Encoder, tmp_path)

    def judge(candidate: Any) -> float:
        return float(candidate(DATA).square().mean())

    whole = layer_wise(tmp_path)
    with torch.no_grad():
        assert whole.accuracy(judge) == judge(model)
    assert all(parameter.is_meta for parameter in whole.model.parameters())


def test_the_users_model_stays_empty(tmp_path: Path) -> None:
    saved(Encoder, tmp_path)
    model = empty(Encoder)
    LayerWise(model, tmp_path, [DATA], Quantization("dynamic")).quantized()
    assert all(parameter.is_meta for parameter in model.parameters())
    assert type(model.get_submodule("up")) is nn.Linear


@pytest.mark.parametrize(
    ("model", "approach", "reason", "says"),
    [
        (
            empty(Encoder),
            "auto",
            Failure.CONFIGURATION_INVALID,
            "goes with the approaches static, dynamic, weight_only",
        ),
        (Encoder(), "static", Failure.TASK_INVALID, r"make the model under torch\.device\('meta'\)"),
        (
            empty(Encoder).bfloat16(),
            "static",
            Failure.TASK_INVALID,
            r"with some torch\.nn\.Linear in float32 in it; what is in bf16 or fp16 stays so",
        ),
        (
            nn.Sequential(nn.Linear(2, 2, device="meta")),
            "static",
            Failure.TASK_INVALID,
            r"0\.weight is on the meta device, and .* has no tensor of this name; save it there",
        ),
    ],
)
def test_what_cannot_be_quantized_is_refused(
    model: nn.Module, approach: str, reason: Failure, says: str, tmp_path: Path
) -> None:
    saved(Encoder, tmp_path)
    with pytest.raises(SearchError, match=says) as caught:
        LayerWise(model, tmp_path, [DATA], Quantization(approach))
    assert caught.value.reason == reason


LAYERS, SIDE = 24, 1472
MEASURED = f"""
import json, sys, torch
from pathlib import Path
from torch import nn
from quantuner.api.spec import Quantization
from quantuner.engine.footprint import Footprint
from quantuner.engine.layer_wise.conversion import LayerWise

folder, approach = Path(sys.argv[1]), sys.argv[2]
data = [torch.randn(2, 8, generator=torch.Generator().manual_seed(0))]

def make(layers, side):
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(8, side), *(nn.Linear(side, side) for _ in range(layers)))

LayerWise(make(1, 64), folder / "small", data, Quantization(approach)).quantized()  # what importing and compiling take
resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
with Footprint() as footprint:
    model = LayerWise(make({LAYERS}, {SIDE}), folder / "large", data, Quantization(approach)).quantized()
print(json.dumps([footprint.mebi - resident, sum(b.nbytes for b in model.state_dict().values()) / 2**20]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 198 MiB, and one that is small."""
    folder = tmp_path_factory.mktemp("large")
    for name, layers, side in (("small", 1, 64), ("large", LAYERS, SIDE)):
        (folder / name).mkdir()
        shapes = [(side, 8), *[(side, side)] * layers]
        tensors = {f"{i}.weight": torch.rand(shape).sub_(0.5).mul_(0.05) for i, shape in enumerate(shapes)}
        tensors |= {f"{i}.bias": torch.zeros(side) for i in range(len(shapes))}
        save_file(tensors, folder / name / "model.safetensors")
    return folder


@pytest.mark.parametrize("approach", ["static", "dynamic", "weight_only"])
def test_peak_memory_is_less_than_half_of_the_weights(large: Path, approach: str) -> None:
    """In a fresh process: int8 weights are a quarter, and one fp32 weight with its copies comes on top."""
    done = subprocess.run([sys.executable, "-c", MEASURED, str(large), approach], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    growth, held = json.loads(done.stdout.splitlines()[-1])
    weights = LAYERS * SIDE * SIDE * 4 / 2**20
    assert held < 0.3 * weights
    assert growth < 0.5 * weights
