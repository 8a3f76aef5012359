"""An evaluation in shares: the accuracy of all together is that of one process, to the bit."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantuner.api.errors import AbandonedError
from quantuner.api.trial import Limit
from quantuner.engine.engine import Engine
from quantuner.engine.measuring import SHARES
from quantuner.engine.metrics import Evaluation, evaluation
from quantuner.engine.modulewise.engine import ModulewiseEngine
from quantuner.engine.shares import Share, sums
from quantuner.space import samplers
from quantuner.space.config import TuneConfig
from tests.unit.engine.models import Net, engine_of, images, seeded

PARTS = range(1, 8)
METRICS: dict[str, Any] = {
    "topk": "topk",
    "MAE": "MAE",
    "MSE": "MSE",
    "RMSE": "RMSE",
    "weighted": {"topk": 1, "RMSE": {}, "weight": [0.3, -0.7]},
    "two errors": {"MAE": {}, "MSE": {}, "weight": [0.1, 1.9]},
}
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def same(x: torch.Tensor) -> torch.Tensor:
    """The "model": its input is its output."""
    return x


def uneven(count: int, seed: int) -> Batches:
    """Outputs `(N, 1)` of every magnitude, so that the order of additions shows, and labels 0 or 1; N is 1 to 5."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 6, (count,), generator=generator).tolist()
    return [
        (
            torch.randn(n, 1, generator=generator) * 10.0 ** float(torch.randint(-6, 7, (1,), generator=generator)),
            torch.randint(0, 2, (n,), generator=generator),
        )
        for n in sizes
    ]


def shared(judge: Evaluation, model: Any, parts: int) -> list[Share]:
    """All shares, as messages bring them."""
    return [pickle.loads(pickle.dumps(judge.share(model, part, parts))) for part in range(parts)]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@settings(deadline=None)  # the first call of an operator may take long
@given(count=st.integers(1, 17), seed=st.integers(0, 2**16))
def test_all_shares_together_are_the_whole_to_the_bit(metric: Any, count: int, seed: int) -> None:
    loader = uneven(count, seed)
    whole = evaluation(loader, metric)
    accuracy, rows = whole(same), whole.rows
    for parts in PARTS:
        judge = evaluation(loader, metric)
        assert judge.together(shared(judge, same, parts)) == (accuracy, rows)


def test_the_order_of_additions_is_that_of_batches() -> None:
    """Each 1 is lost beside 1e16, but not where shares were added up first."""
    values = [1e16, *[1.0] * 30]
    loader = [(torch.tensor([[x]], dtype=torch.float64), torch.tensor([0])) for x in values]
    judge = evaluation(loader, "MAE")
    whole = judge(same)
    assert whole != (1e16 + 30.0) / 31
    assert [judge.together(shared(judge, same, parts))[0] for parts in PARTS] == [whole] * len(PARTS)


def test_every_batch_is_evaluated_by_one_share_alone() -> None:
    loader = uneven(10, seed=3)
    judge, calls = evaluation(loader, "topk"), Counter[int]()

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls[id(x)] += 1
        return x

    for part in range(4):
        judge.share(counted, part, 4)
    assert calls == {id(x): 1 for x, _ in loader}


def test_an_evaluation_in_between_does_not_change_what_is_put_together() -> None:
    """Another thread of rank 0 may be at a trial."""
    judge = evaluation(uneven(5, seed=1), "RMSE")
    whole, shares = judge(same), shared(judge, same, 2)
    steps = judge.bounds(lambda x: 2 * x, Limit(accuracy=None, higher_is_better=False, rows=judge.rows))
    next(steps)
    assert judge.together(shares)[0] == whole
    *_, other = steps
    assert other == evaluation(uneven(5, seed=1), "RMSE")(lambda x: 2 * x)


class Shuffling:
    """A loader that gives its batches in another order at each pass."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        self.batches = self.batches[1:] + self.batches[:1]
        return iter(self.batches)


def test_shares_of_a_loader_that_shuffles_are_refused() -> None:
    judge = evaluation(Shuffling(uneven(6, seed=5)), "topk")
    with pytest.raises(ValueError, match="a loader that does not shuffle can"):
        judge.together(shared(judge, same, 2))


@pytest.mark.parametrize("other", [{"data": "b"}, {"batches": 3}], ids=["other content", "more batches"])
def test_shares_of_other_data_are_refused(other: Any) -> None:
    share = Share("a", 2, (((1.0, 1),),))
    assert sums([share, share]) == [(2.0, 2)]
    with pytest.raises(ValueError, match="other batches"):
        sums([share, replace(share, **other)])


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        pytest.param([(torch.tensor([[math.nan]]), torch.tensor([0]))], "not a finite number", id="NaN"),
        pytest.param([torch.ones(3, 1)], r"must be \(input, label\)", id="without labels"),
    ],
)
def test_a_share_that_cannot_be_judged_raises(loader: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        evaluation(loader, "MAE").share(same, 0, 2)


def test_no_batch_at_all_is_refused_as_for_a_whole() -> None:
    judge = evaluation([], "topk")
    with pytest.raises(ValueError, match="gave no batch"):
        judge.together(shared(judge, same, 2))


# --- an engine's trials


def batches(count: int = 5) -> Batches:
    """Images of Net, and labels."""
    return [(images(3 + i, seed=i), torch.arange(3 + i) % 3) for i in range(count)]


def dividing(metric: Any = "topk", objectives: tuple[str, ...] = ("accuracy",), **more: Any) -> Engine:
    """An engine judged by a built-in metric on Net's outputs."""
    engine = engine_of(seeded(Net), eval_func=evaluation(batches(), metric), objectives=objectives, **more)
    engine.calibrate()
    return engine


def config_of(engine: Engine, position: int = 0) -> TuneConfig:
    return list(samplers.op_type_wise(engine.space))[position].calibrated_with(100)


def test_a_trial_in_shares_is_the_whole_trial() -> None:
    engine = dividing({"topk": 1, "Accuracy": {"k": 2}, "weight": [0.4, 0.9]}, ("accuracy", "performance", "modelsize"))
    for position in range(3):
        config = config_of(engine, position)
        whole = engine.trial(config)
        assert whole.accuracy is not None
        for parts in PARTS:
            shares = [engine.trial_part(config, part, parts) for part in range(parts)]
            found = engine.trial_of_parts(config, shares)
            assert (found.accuracy, found.rows, found.error) == (whole.accuracy, whole.rows, whole.error)
            assert found.objectives == {
                "accuracy": whole.accuracy,
                "performance": sum(one.evaluation_seconds for one in shares),
                "modelsize": whole.objectives["modelsize"],
            }
            assert found.seconds == sum(one.seconds for one in shares) >= found.objectives["performance"]


def test_the_footprint_is_the_largest() -> None:
    engine = dividing(objectives=("footprint",))
    config = config_of(engine)
    shares = [engine.trial_part(config, part, 2) for part in range(2)]
    assert min(one.footprint for one in shares) > 0
    found = engine.trial_of_parts(config, [replace(shares[0], footprint=5.0), replace(shares[1], footprint=3.0)])
    assert found.objectives == {"footprint": 5.0}


def test_a_share_hears_before_each_of_its_batches_that_it_does_not_matter() -> None:
    engine, heard = dividing(), list[None]()

    def check() -> None:
        heard.append(None)
        if len(heard) == 2:
            raise AbandonedError

    engine.between_batches = check
    with pytest.raises(AbandonedError):
        engine.trial_part(config_of(engine), 0, 2)
    assert len(heard) == 2


def test_other_rows_than_the_baselines_are_not_put_together() -> None:
    engine = dividing()
    config, rows = config_of(engine), engine.baseline().rows
    shares = [engine.trial_part(config, part, 2) for part in range(2)]
    limit = Limit(accuracy=None, higher_is_better=True, rows=rows)
    assert engine.trial_of_parts(config, shares, limit).accuracy == engine.trial(config).accuracy
    with pytest.raises(ValueError, match="for the baseline"):
        engine.trial_of_parts(config, shares, replace(limit, rows=(rows[0] + 1,)))


class Own:
    """A user's metric."""

    def reset(self) -> None:
        self.rows = 0

    def update(self, preds: Any, labels: Any) -> None:
        self.rows += len(labels)

    def result(self) -> float:
        return float(self.rows)


def timed(engine: Engine) -> None:
    engine.timed = True


class Rewriting:
    """A strategy's own algorithms."""

    rewrites_models = True


def rewritten(engine: Engine) -> None:
    engine.algorithms = Rewriting()  # type: ignore[assignment]


def corrected(config: TuneConfig) -> TuneConfig:
    return replace(config, recipes={**config.recipes, "fast_bias_correction": True})


@pytest.mark.parametrize(
    ("make", "change"),
    [
        pytest.param(lambda: dividing(Own()), None, id="the user's metric"),
        pytest.param(lambda: engine_of(seeded(Net)), None, id="the user's function"),
        pytest.param(dividing, timed, id="compared by measured objectives"),
        pytest.param(dividing, rewritten, id="converted and rewritten"),
        pytest.param(lambda: engine_of(seeded(Net), eval_func=evaluation(batches(1), "topk")), None, id="one batch"),
    ],
)
def test_what_is_not_divided(make: Callable[[], Engine], change: Callable[[Engine], None] | None) -> None:
    engine = make()
    engine.baseline()
    if change is not None:
        assert engine.shares(config_of(engine)) == len(batches())
        change(engine)
    assert engine.shares(config_of(engine)) == 1


def test_corrected_trials_are_not_divided() -> None:
    engine = dividing()
    assert engine.shares(config_of(engine)) > 1
    assert engine.shares(corrected(config_of(engine))) == 1


def test_a_share_for_each_batch_as_far_as_they_are_known() -> None:
    engine = dividing()
    assert engine.shares(config_of(engine)) == SHARES
    engine.baseline()
    assert engine.shares(config_of(engine)) == len(batches())


def test_a_model_that_is_not_captured_is_not_divided() -> None:
    known = engine_of(seeded(Net), approach="dynamic")
    task = replace(known.task, eval_func=evaluation(batches(), "topk"))
    engine = ModulewiseEngine(task, known.quantization, ("accuracy",))
    engine.baseline()
    assert engine.shares(TuneConfig()) == 1
