"""Arguments of `fit` that do not go together, or that nothing can be made of: refused before anything is written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quantuner import options
from quantuner.api.errors import SearchError
from quantuner.config import PostTrainingQuantConfig, QuantizationAwareTrainingConfig, TuningCriterion
from quantuner.quantization import fit
from tests.unit.engine.digits_net import accuracy, calibration, held_out, train, trained


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path) -> Iterator[Path]:
    options.set_workspace(tmp_path / "workspace")
    yield tmp_path / "workspace"
    options.set_workspace(None)


def tuned(model: Any) -> None:
    train(model, 1, 1e-4)


def _given(**arguments: Any) -> Callable[[], Any]:
    conf = arguments.pop("conf", PostTrainingQuantConfig())
    return lambda: fit(trained(), conf, **arguments)


BOTH = {"calib_dataloader": [], "calib_func": lambda _: None}
LOADER = {"eval_dataloader": [], "eval_metric": "topk"}
DATA = {"calib_dataloader": calibration()}


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        pytest.param(_given(**BOTH), ValueError, "calib_dataloader and calib_func: both", id="two calibrations"),
        pytest.param(_given(), ValueError, "calib_dataloader and calib_func: neither", id="no calibration"),
        pytest.param(_given(**DATA, eval_func=accuracy, **LOADER), ValueError, "both judge", id="two evaluations"),
        pytest.param(_given(**DATA, eval_metric="topk"), ValueError, "eval_metric", id="a metric alone"),
        pytest.param(_given(**DATA, eval_dataloader=held_out()), ValueError, "eval_dataloader", id="a loader alone"),
        pytest.param(
            _given(**DATA, eval_dataloader=held_out(), eval_metric="AUC"), ValueError, "'AUC' is not known", id="metric"
        ),
        pytest.param(
            _given(calib_dataloader=iter(calibration())), ValueError, "calib_dataloader can be read once", id="iterator"
        ),
        pytest.param(
            _given(**DATA, eval_dataloader=(b for b in held_out()), eval_metric="topk"),
            ValueError,
            "eval_dataloader can be read once",
            id="generator",
        ),
        pytest.param(_given(**DATA, q_func=tuned), ValueError, "q_func trains the model, but", id="training unasked"),
        pytest.param(
            _given(**DATA, conf=QuantizationAwareTrainingConfig()),
            ValueError,
            "needs a training function",
            id="no q_func",
        ),
        pytest.param(
            _given(**DATA, conf=QuantizationAwareTrainingConfig(), q_func=tuned, q_hooks={"on_epoch_end": tuned}),
            ValueError,
            "q_hooks may have on_train_begin and on_train_end, not on_epoch_end",
            id="hook",
        ),
        pytest.param(
            _given(**DATA, eval_func=accuracy, q_hooks={"on_train_begin": tuned}),
            ValueError,
            "q_hooks are called around training, but the approach is static.*or leave q_hooks out",
            id="hooks unasked",
        ),
        *(
            pytest.param(
                _given(**DATA, conf=QuantizationAwareTrainingConfig(), q_func=tuned, q_hooks=hooks),
                ValueError,
                "q_hooks must be a dict of on_train_begin and on_train_end to functions, not ",
                id=f"hooks {hooks}",
            )
            for hooks in ([1], {"on_train_begin": 1})
        ),
        *(
            pytest.param(
                _given(**DATA, eval_func=accuracy, conf=conf),
                ValueError,
                "conf must be a PostTrainingQuantConfig or a QuantizationAwareTrainingConfig, not .*; give one",
                id=f"conf {conf!r:.20}",
            )
            for conf in (None, {"approach": "static"}, TuningCriterion())
        ),
        pytest.param(
            _given(**DATA, conf=PostTrainingQuantConfig(tuning_criterion=TuningCriterion("basik"))),
            SearchError,
            "'basik' is not known.*basic",
            id="strategy",
        ),
        pytest.param(
            _given(calib_func=lambda _: None), SearchError, "calib_func never called the model", id="idle calibration"
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    call: Callable[[], Any], error: type[Exception], says: str, workspace: Path
) -> None:
    with pytest.raises(error, match=says):
        call()
    assert not workspace.exists()
