"""The quantized model in a user's hands: it runs, says its configuration, is small, saves and loads."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from quantuner.engine.quantized import QuantizedModel, load
from quantuner.engine.quiet import quiet
from quantuner.space.samplers import initial
from tests.unit.engine.models import Net, engine_of, images, seeded

DATA = images(5, seed=7)
WIDTH = 512


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def made(**recipes: bool) -> QuantizedModel:
    engine = engine_of(seeded(Net))
    engine.calibrate()
    return engine.quantized_model(initial(engine.space).with_recipes(recipes))


@pytest.fixture(scope="module")
def model() -> QuantizedModel:
    return made(fast_bias_correction=True)


def bits(model: nn.Module) -> list[float]:
    with torch.no_grad():
        values: list[float] = model(DATA).flatten().tolist()
    return values


def test_it_computes_about_what_the_users_model_does(model: QuantizedModel) -> None:
    with torch.no_grad():
        assert 0 < float((model(DATA) - seeded(Net)(DATA)).abs().max()) < 0.05


def test_it_has_one_mode(model: QuantizedModel) -> None:
    before = bits(model)
    assert bits(model.train()) == bits(model.eval()) == before


def test_its_configuration_names_every_op_and_the_recipes(model: QuantizedModel) -> None:
    assert list(model.q_config["ops"]) == ["stem.0", "head"]
    assert model.q_config["ops"]["head"]["activation"]["scheme"] == "asym"
    assert model.q_config["recipes"] == {"fast_bias_correction": True}


def test_a_copy_is_a_model_of_its_own(model: QuantizedModel) -> None:
    with quiet():
        copied = copy.deepcopy(model)
    before = bits(model)
    with torch.no_grad():
        copied.model.get_buffer("_corrected_bias_0").add_(1.0)
    assert bits(copied.eval()) != bits(model) == before


def test_saved_and_loaded_it_has_every_bit(model: QuantizedModel, tmp_path: Path) -> None:
    assert model.save(tmp_path / "model") == tmp_path / "model"
    again = load(str(tmp_path / "model"))
    assert bits(again) == bits(model)
    assert again.q_config == model.q_config
    assert yaml.safe_load((tmp_path / "model" / "config.yaml").read_text()) == model.q_config


def test_a_loaded_model_is_saved_though_its_folder_is_gone(model: QuantizedModel, tmp_path: Path) -> None:
    loaded = load(model.save(tmp_path / "first"))
    shutil.rmtree(tmp_path / "first")
    assert bits(load(loaded.save(tmp_path / "second"))) == bits(model)


def test_a_loaded_model_is_itself_though_its_folder_holds_another(model: QuantizedModel, tmp_path: Path) -> None:
    loaded = load(model.save(tmp_path / "model"))
    made().save(tmp_path / "model")
    assert bits(load(loaded.save(tmp_path / "copy"))) == bits(model) != bits(load(tmp_path / "model"))


def test_a_model_that_is_there_is_replaced_whole(model: QuantizedModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    (tmp_path / "model" / "left.over").write_text("of the model before")
    loaded = load(tmp_path / "model")
    loaded.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["SHA256SUMS", "config.yaml", "model.pt2"]
    assert bits(load(tmp_path / "model")) == bits(model)


def test_int8_weights_take_a_byte_and_fp32_ones_are_gone(tmp_path: Path) -> None:
    """In memory, on disk and loaded. The file's own structure takes 60 kB; a forgotten fp32 weight would be 1 MB."""
    torch.manual_seed(0)
    engine = engine_of(wide().eval(), loader=[torch.randn(8, WIDTH)], eval_func=lambda _: 0.0)
    engine.calibrate()
    model = engine.quantized_model(initial(engine.space))
    weights = 2 * WIDTH**2
    file = model.save(tmp_path / "model") / "model.pt2"
    assert file.stat().st_size < 1.2 * weights
    for held in (model, load(tmp_path / "model")):
        assert sum(t.numel() * t.element_size() for t in held.state_dict().values()) < 1.1 * weights  # and the scales


def test_a_search_saves_the_small_model_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    engine = engine_of(wide().eval(), loader=[torch.randn(8, WIDTH)], eval_func=lambda _: 0.0)
    engine.calibrate()
    engine.save(initial(engine.space), tmp_path / "model")
    assert (tmp_path / "model" / "model.pt2").stat().st_size < 1.2 * 2 * WIDTH**2


def test_there_is_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="SHA256SUMS does not exist; name the folder of a saved model"):
        load(tmp_path)


class Masked(nn.Module):
    """Takes two inputs that have names, and one that nobody gives."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        y: torch.Tensor = self.fc(ids) * attention_mask * scale
        return y


def test_inputs_may_be_given_by_the_names_that_the_users_model_has(tmp_path: Path) -> None:
    ids, mask = torch.linspace(-1, 1, 8).view(2, 4), torch.ones(2, 1)
    engine = engine_of(seeded(Masked), loader=[((ids, mask), torch.zeros(2))], eval_func=lambda _: 0.0)
    engine.calibrate()
    model = engine.quantized_model(initial(engine.space))
    loaded = load(model.save(tmp_path / "model"))
    again = load(loaded.save(tmp_path / "again"))
    assert (tmp_path / "again" / "model.pt2").read_bytes() == (tmp_path / "model" / "model.pt2").read_bytes()
    with torch.no_grad():
        expected = model(ids, mask)
        for one in (model, loaded, again):
            assert torch.equal(one(attention_mask=mask, ids=ids), expected)
            assert torch.equal(one(ids, attention_mask=mask), expected)
            with pytest.raises(TypeError, match="missing a required argument: 'attention_mask'"):
                one(ids=ids)
            with pytest.raises(TypeError, match="unexpected keyword argument 'scale'"):
                one(ids, mask, scale=3.0)


def test_a_copy_takes_names_too(model: QuantizedModel) -> None:
    with quiet():
        copied = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(copied(x=DATA), model(DATA))
