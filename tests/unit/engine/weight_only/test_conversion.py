"""Trial, converted model and saved model are one model, to the bit; what is saved is small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import quantuner
from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine import artifact
from quantuner.engine.engine import Engine
from quantuner.space.config import FP32, OpConfig
from quantuner.space.samplers import initial
from tests.unit.engine.models import engine_of, seeded
from tests.unit.engine.weight_only.models import ALL, Two, options, rows


@pytest.fixture(scope="module")
def engine() -> Engine:
    made = engine_of(
        seeded(Two), loader=[(rows(), None)], approach="weight_only", eval_func=lambda m: float(m(rows(8, 2)).mean())
    )
    made.calibrate()
    return made


@pytest.mark.parametrize("config", ALL, ids=OpConfig.short)
def test_a_trial_gives_the_bits_of_the_converted_model(engine: Engine, config: OpConfig) -> None:
    for changes in ({"first": config, "second": config}, {"first": config}, {"second": config}):
        whole = initial(engine.space).having({"first": FP32, "second": FP32, **changes})
        with torch.no_grad():
            trial, converted = engine.switchable(whole).model(whole)(rows(9, 3)), engine.quantized(whole)(rows(9, 3))
        assert torch.equal(trial, converted)
        assert not torch.equal(trial, seeded(Two)(rows(9, 3)))


@pytest.mark.parametrize("config", [options(4, 32, "asym", "AWQ"), options(8, -1, "sym", "GPTQ")], ids=OpConfig.short)
def test_a_saved_model_loads_with_torch_alone_and_gives_the_same_bits(
    engine: Engine, config: OpConfig, tmp_path: Path
) -> None:
    whole = initial(engine.space).having({"first": config, "second": config})
    trial = engine.trial(whole)
    assert engine.save(whole, tmp_path / "model") == trial.accuracy
    torch.save(rows(9, 3), tmp_path / "rows.pt")
    code = (
        "import json, torch\n"
        f"model = torch.export.load({str(tmp_path / 'model' / 'model.pt2')!r}).module()\n"
        f"print(json.dumps(model(torch.load({str(tmp_path / 'rows.pt')!r})).tolist()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert torch.equal(torch.tensor(json.loads(done.stdout)), engine.quantized(whole)(rows(9, 3)))
    loaded = quantuner.load(tmp_path / "model")
    assert loaded.q_config == whole.plain()


@pytest.mark.parametrize(("bits", "share"), [(4, 0.2), (8, 0.33)])
def test_a_saved_model_holds_no_fp32_weight(bits: int, share: float, tmp_path: Path) -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256)))
    engine = engine_of(model, loader=[torch.ones(2, 256)], approach="weight_only", eval_func=lambda _: 1.0)
    engine.calibrate()
    config = initial(engine.space).having(dict.fromkeys(("0", "1"), options(bits, 64, "asym")))
    engine.save(config, tmp_path / "model")
    tensors = artifact.load_program(tmp_path / "model").state_dict.values()
    stored, fp32 = sum(t.nbytes for t in tensors), sum(t.nbytes for t in model.state_dict().values())
    assert stored < share * fp32
    assert engine.size(config) * 2**20 == stored
    assert (tmp_path / "model" / "model.pt2").stat().st_size < share * fp32 + 40_000


def test_weights_that_were_made_are_kept(engine: Engine) -> None:
    config = initial(engine.space).having({"first": options(4, 32, "sym", "GPTQ")})
    few_bits = engine.switchable(config).rounding._few_bits
    assert few_bits is not None
    assert few_bits.stored("first", config["first"]) is few_bits.stored("first", config["first"])


class Overflowing(nn.Module):
    """The second linear reads infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 32), nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        z: torch.Tensor = self.second(torch.where(y > 1, torch.inf, y)).nan_to_num(0.0, 1.0, -1.0)
        return z


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [
        pytest.param("GPTQ", "the input of second was not finite during calibration", id="GPTQ"),
        pytest.param("AWQ", "the input of second was not finite during calibration", id="AWQ"),
        pytest.param("RTN", "", id="RTN looks at none"),
    ],
)
def test_a_trial_whose_algorithm_looks_at_infinity_names_the_op(algorithm: str, says: str) -> None:
    data = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    engine = engine_of(
        seeded(Overflowing), loader=[data], approach="weight_only", eval_func=lambda model: float(model(data).mean())
    )
    engine.calibrate()
    config = initial(engine.space)
    result = engine.trial(config.having(dict.fromkeys(config, options(algorithm=algorithm))))
    assert result.error.startswith(says)
    assert (result.accuracy is None) == bool(says)


def test_a_model_without_linears_is_refused_with_what_the_approach_quantizes() -> None:
    model = seeded(lambda: nn.Conv1d(1, 2, 3))
    with pytest.raises(SearchError, match=r"weight_only quantizes Linear.*, and the model has only Conv1d") as caught:
        engine_of(model, loader=[torch.ones(2, 1, 8)], approach="weight_only")
    assert caught.value.reason is Failure.NOTHING_TO_QUANTIZE


def test_convolutions_beside_linears_stay_fp32() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(12, 4)))
    engine = engine_of(
        model, loader=[torch.ones(2, 1, 8)], approach="weight_only", eval_func=lambda m: float(m is not None)
    )
    assert [op.mode.value for op in initial(engine.space).values()] == ["fp32", "weight_only"]
