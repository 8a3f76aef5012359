"""The examples of the documents run as they are printed."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quantuner import options
from quantuner.config import PostTrainingQuantConfig, TuningCriterion
from quantuner.distributed.journal import read_history
from quantuner.quantization import fit
from quantuner.strategy.registry import _strategies
from tests.unit.engine.digits_net import accuracy, calibration, trained

DOCS = Path(__file__).parents[2] / "docs"
GIVEN = {"model": trained(), "loader": calibration(), "accuracy": accuracy}


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models are saved where the test is, and strategies are forgotten."""
    monkeypatch.chdir(tmp_path)
    known = dict(_strategies)
    options.set_workspace(tmp_path / "workspace")
    yield
    options.set_workspace(None)
    _strategies.clear()
    _strategies.update(known)


def examples(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / document).read_text(), flags=re.DOTALL)


def ran(example: str) -> dict[str, Any]:
    names: dict[str, Any] = {**GIVEN, "__name__": "example"}
    exec(compile(example, "example", "exec"), names)
    return names


def test_a_migrated_script(tmp_path: Path) -> None:
    script, _ = examples("migrating.md")
    assert accuracy(ran(script)["q_model"]) >= 0.99 * accuracy(trained())
    assert (tmp_path / "saved" / "model.pt2").is_file()


def test_weights_in_few_bits(tmp_path: Path) -> None:
    (script,) = examples("weight-only.md")
    q_model = ran(script)["q_model"]
    assert accuracy(q_model) >= 0.99 * accuracy(trained())
    assert {op["mode"] for op in q_model.q_config["ops"].values()} == {"weight_only", "fp32"}
    assert q_model.q_config["ops"]["head"]["mode"] == "fp32"
    assert (tmp_path / "saved" / "model.pt2").is_file()


def test_a_migrated_strategy(tmp_path: Path) -> None:
    """With a time limit it is asked to its end: everything quantized, then an op more in fp32, until none is left."""
    _, strategy = examples("migrating.md")
    ran(strategy)
    conf = PostTrainingQuantConfig(tuning_criterion=TuningCriterion("backwards", timeout=600))
    assert fit(trained(), conf, calibration(), eval_func=accuracy) is not None
    costs = [trial.cost for trial in read_history(tmp_path / "workspace" / "journal.jsonl").tried]
    assert costs == sorted(set(costs))
    assert (len(costs), costs[0], costs[-1]) == (4, 0.25, 1.0)


def test_a_strategy_of_ones_own() -> None:
    (example,) = examples("strategies.md")
    assert accuracy(ran(example)["q_model"]) >= 0.99 * accuracy(trained())
