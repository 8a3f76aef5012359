"""`fit` with the recipe layer_wise_quant: a model without weights in, a quantized one out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quantuner.config import AccuracyCriterion, PostTrainingQuantConfig, manifest_of
from quantuner.quantization import fit
from tests.unit.engine.layer_wise.cases import DATA, Encoder, empty, saved


def configured(path: Path | None = None, loss: float = 0.01) -> PostTrainingQuantConfig:
    where: dict[str, Any] = {} if path is None else {"layer_wise_quant_args": {"path": path}}
    return PostTrainingQuantConfig(
        approach="dynamic",
        recipes={"layer_wise_quant": True, **where},
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=loss),
    )


def agreement(model: nn.Module) -> Any:
    """How near a candidate comes to the model with its weights."""

    def judge(candidate: Any) -> float:
        with torch.no_grad():
            return 1.0 - float((candidate(DATA) - model(DATA)).abs().max())

    return judge


def test_it_is_quantized_without_a_judge(tmp_path: Path) -> None:
    saved(Encoder, tmp_path)
    model = fit(empty(Encoder), configured(tmp_path), [DATA])
    assert model is not None
    assert model.q_config["recipes"] == {"layer_wise_quant": True}


def test_the_model_itself_may_name_its_checkpoint(tmp_path: Path) -> None:
    saved(Encoder, tmp_path)
    bare = empty(Encoder)
    bare.path = str(tmp_path)  # type: ignore[assignment]
    assert fit(bare, configured(), [DATA]) is not None


@pytest.mark.parametrize(("loss", "meets"), [(0.5, True), (1e-6, False)])
def test_it_is_judged_against_the_fp32_model(loss: float, meets: bool, tmp_path: Path) -> None:
    model = saved(Encoder, tmp_path)
    found = fit(empty(Encoder), configured(tmp_path, loss), [DATA], eval_func=agreement(model))
    assert (found is not None) == meets


@pytest.mark.parametrize(
    ("path", "loader", "says"),
    [
        (None, [DATA], r"give the recipe layer_wise_quant_args \{'path': …\}, or model\.path"),
        (".", None, "calib_dataloader"),
    ],
)
def test_what_is_missing_is_named(path: Any, loader: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fit(empty(Encoder), configured(path), loader)


def test_no_resource_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a resource has no recipe layer_wise_quant, .*; call fit instead"):
        manifest_of(configured(tmp_path), "digits", "digits:task")
