"""One function of a model from whichever way the user judges it."""

from typing import Any

import pytest
import torch

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import Quantization
from quantuner.api.task import Task
from quantuner.engine.engine import Engine
from quantuner.engine.judging import judged_by
from tests.unit.engine.models import Net, images, seeded

LOADER = [(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 1]))]


class Never:
    """A metric that says 0.25 whatever it saw."""

    def reset(self) -> None:
        """Nothing is kept."""

    def update(self, preds: Any, labels: Any) -> None:
        """Nothing is kept."""

    def result(self) -> float:
        return 0.25


@pytest.mark.parametrize(
    ("judged", "says"),
    [
        pytest.param({}, "Task: nothing is given to judge the model", id="nothing"),
        pytest.param({"eval_metric": "topk"}, "Task: only eval_metric is given", id="a metric alone"),
        pytest.param({"eval_dataloader": [], "eval_metric": "top"}, "eval_metric 'top' is not known", id="a typo"),
    ],
)
def test_a_task_that_does_not_say_how_it_is_judged_is_refused(judged: dict[str, Any], says: str) -> None:
    task = Task(model=seeded(Net), calib_dataloader=[images()], **judged)
    with pytest.raises(SearchError, match=says) as caught:
        Engine(task, Quantization(), ["performance"])
    assert caught.value.reason == Failure.TASK_INVALID


def test_a_task_may_be_judged_by_a_metric() -> None:
    labels = torch.tensor([0, 1, 2, 0])
    judged: dict[str, Any] = {"eval_dataloader": [(images(4), labels)], "eval_metric": "topk"}
    task = Task(model=seeded(Net), calib_dataloader=[images()], **judged)
    baseline = Engine(task, Quantization(), ["performance"]).baseline()
    assert baseline.rows == (4,)
    assert baseline.accuracy == float((seeded(Net)(images(4)).argmax(1) == labels).float().mean())


def same(x: Any) -> Any:
    return x


@pytest.mark.parametrize(
    ("given", "accuracy"),
    [
        pytest.param({"eval_func": lambda _: 0.75}, 0.75, id="a function"),
        pytest.param({"eval_dataloader": LOADER, "eval_metric": "topk"}, 2 / 3, id="a loader and the name of a metric"),
        pytest.param({"eval_dataloader": LOADER, "eval_metric": {"topk": 2}}, 1.0, id="a metric with its argument"),
        pytest.param({"eval_dataloader": LOADER, "eval_metric": Never()}, 0.25, id="a metric of one's own"),
    ],
)
def test_each_way_gives_the_accuracy_of_a_model(given: dict[str, Any], accuracy: float) -> None:
    assert judged_by(**{**_nothing(), **given})(same) == accuracy


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param(
            {}, r"^nothing is given to judge the model; give eval_func\(model\) -> accuracy, or", id="nothing"
        ),
        pytest.param({"eval_dataloader": LOADER}, "^only eval_dataloader is given", id="no metric"),
        pytest.param(
            {"eval_dataloader": []}, "^only eval_dataloader is given", id="an empty loader is given all the same"
        ),
        pytest.param({"eval_dataloader": torch.zeros(2, 1)}, "^only eval_dataloader is given", id="a tensor as loader"),
        pytest.param({"eval_metric": "topk"}, "^only eval_metric is given", id="no loader"),
        pytest.param({"eval_func": len, "eval_dataloader": LOADER}, "both judge the model; give one", id="two judges"),
        pytest.param(
            {"eval_func": len, "eval_metric": "topk"}, "both judge the model; give one", id="a metric too many"
        ),
        pytest.param(
            {"eval_dataloader": LOADER, "eval_metric": 3}, "eval_metric must have reset", id="no metric at all"
        ),
    ],
)
def test_a_model_that_cannot_be_judged_is_refused_with_what_is_missing(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        judged_by(**{**_nothing(), **given})


def _nothing() -> dict[str, Any]:
    return dict.fromkeys(("eval_func", "eval_dataloader", "eval_metric"))
