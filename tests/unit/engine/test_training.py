"""Quantization-aware training: what is trained computes as what is returned, and training helps."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.engine import Engine
from quantuner.engine.precision import DTYPES
from quantuner.engine.quantize import quantize
from quantuner.engine.quantized import load
from quantuner.engine.quiet import quiet
from quantuner.engine.training import KEPT, Training
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, OpConfig, TuneConfig
from quantuner.space.samplers import initial
from tests.unit.engine.models import Learned, Net, Shared, engine_of, images, rows, seeded

DATA, WANTED = images(32, seed=3), torch.ones(32, 3)


def qat_engine(model: nn.Module | None = None, data: torch.Tensor = DATA) -> Engine:
    engine = engine_of(model or seeded(Net), loader=[data], approach="qat", eval_func=lambda _: 0.0)
    engine.calibrate()
    return engine


def loss_of(model: Any) -> torch.Tensor:
    loss: torch.Tensor = (model(DATA) - WANTED).square().mean()
    return loss


def descend(model: Any, steps: int = 20, rate: float = 1e-3) -> None:
    """Steps of gradient descent, with the modes that training code sets."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    model.eval()


def trained(engine: Engine, function: Any, config: TuneConfig | None = None, **hooks: Any) -> GraphModule:
    engine.train_with(function, hooks)
    return engine.quantized(config or initial(engine.space))


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        pytest.param({}, 0, id="untrained"),
        pytest.param({}, 5, id="trained"),
        pytest.param({"head": FP32}, 5, id="the linear in fp32"),
        pytest.param({"stem.0": FP32}, 5, id="the convolution and its batch norm in fp32"),
        pytest.param({"head": OpConfig(Mode.BF16)}, 5, id="the linear in bf16"),
        pytest.param({"stem.0": OpConfig(Mode.FP16)}, 5, id="the convolution and its batch norm in fp16"),
    ],
)
def test_the_model_that_was_trained_computes_as_the_one_returned(config: Any, steps: int) -> None:
    """To the bit: both round the same values to the same grids."""
    engine, last = qat_engine(), list[Any]()

    def train(model: Any) -> None:
        descend(model, steps)
        model(DATA)  # the last step's weights are seen
        last.append(model(DATA).detach())

    model = trained(engine, train, initial(engine.space).having(config))
    with torch.no_grad():
        assert torch.equal(model(DATA), last[0])


@pytest.mark.parametrize("mode", [Mode.BF16, Mode.FP16])
def test_an_op_in_half_precision_is_trained_in_fp32_and_stored_in_its_own(mode: Mode) -> None:
    engine, seen = qat_engine(), list[torch.Tensor]()

    def train(model: Any) -> None:
        descend(model, 5)
        seen.append(model.head.weight.detach().clone())

    model = trained(engine, train, initial(engine.space).having({"head": OpConfig(mode)}))
    (stored,) = [t for t in model.state_dict().values() if t.dtype is DTYPES[mode] and t.dim() == 2]
    assert seen[0].dtype is torch.float32
    assert torch.equal(stored, seen[0].to(DTYPES[mode]))
    head: Any = seeded(Net).head
    assert not torch.equal(stored, head.weight.to(DTYPES[mode]))


def test_a_trained_model_fits_better_than_a_quantized_one() -> None:
    engine = qat_engine()
    model = trained(engine, descend)
    with torch.no_grad():
        assert float(loss_of(model)) < 0.7 * float(loss_of(seeded(Net)))


@pytest.mark.parametrize("eps", [1e-5, 0.5], ids=str)
def test_without_a_step_it_is_the_quantized_model(eps: float) -> None:
    """Also where a batch norm's eps is not torch's default, and where training never ran the model."""
    model = seeded(Net)
    model.get_submodule("stem.1").eps = eps  # type: ignore[assignment]
    engine = qat_engine(model)
    config = initial(engine.space)
    activations = engine.switchable(config).rounding.activations
    with torch.no_grad():
        assert torch.equal(trained(engine, lambda _: None)(DATA), quantize(engine.captured, activations, config)(DATA))


def test_the_weights_range_shrinks_with_the_weight() -> None:
    """A range that only widens would leave a weight a few of its steps."""

    def shrink(model: Any) -> None:
        model(DATA)
        with torch.no_grad():
            model.head.weight.mul_(0.01)

    engine = qat_engine()
    model = trained(engine, shrink)
    with torch.no_grad():
        exact = seeded(Net)
        exact.head.weight.mul_(0.01)  # type: ignore[union-attr, operator]
        assert float((model(DATA) - exact(DATA)).abs().max()) < 0.01


def test_it_is_trained_under_the_users_names() -> None:
    names: list[str] = []

    def see(model: Any) -> None:
        assert all(p.requires_grad for p in model.parameters())
        assert torch.is_grad_enabled()
        names.extend(name for name, _ in model.named_parameters())

    trained(qat_engine(), see)
    assert {"stem.0.weight", "head.weight", "head.bias"} <= set(names)


class Frozen(nn.Module):
    """Two convolutions with batch norms, of which the first is frozen, an order of outputs, and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).requires_grad_(False)
        self.mixed = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.order = nn.Parameter(torch.tensor([2, 1, 0]), requires_grad=False)
        self.head = nn.Linear(16, 3)
        self.head.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 2, 4, 4)` to `(N, 3)`."""
        y: torch.Tensor = self.head(self.mixed(self.base(x)).flatten(1))[:, self.order]
        return y


@pytest.mark.parametrize("recipes", [{}, {"smooth_quant": True}], ids=["plain", "smoothed"])
def test_what_the_user_froze_is_not_trained(recipes: dict[str, Any]) -> None:
    """A batch norm's part is in the bias of its convolution."""
    wanted: dict[str, bool] = {}
    changed: set[str] = set()

    def train(model: Any) -> None:
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        descend(model, 3)
        wanted.update((name, p.requires_grad) for name, p in model.named_parameters())
        changed.update(name for name, p in model.named_parameters() if not torch.equal(p, before[name]))

    engine = qat_engine(seeded(Frozen))
    trained(engine, train, initial(engine.space).with_recipes(recipes))
    trainable = {name for name, wants in wanted.items() if wants}
    assert trainable == changed == {"mixed.0.weight", "mixed.0.weight_bias", "head.weight"}
    assert set(wanted) - trainable == {"base.0.weight", "base.0.weight_bias", "order", "head.bias"}


def test_smoothed_weights_are_trained_too() -> None:
    engine = qat_engine()
    config = initial(engine.space).with_recipes({"smooth_quant": True})
    names: list[str] = []
    trained(engine, lambda model: names.extend(name for name, _ in model.named_parameters()), config)
    assert {"stem.0.weight", "head.weight"} <= set(names)


def test_hooks_stand_around_the_training() -> None:
    events: list[Any] = []
    model = trained(
        qat_engine(),
        lambda model: events.append(("train", model)),
        on_train_begin=lambda model: events.append(("begin", model)),
        on_train_end=lambda model: events.append(("end", model)),
    )
    assert [event for event, _ in events] == ["begin", "train", "end"]
    assert len({id(given) for _, given in events}) == 1
    assert isinstance(model, GraphModule)


@pytest.mark.parametrize("returned", [None, 0.25, {"loss": 1.0}], ids=["nothing", "a number", "a dict"])
def test_what_is_no_model_may_be_returned(returned: Any) -> None:
    def train(model: Any) -> Any:
        descend(model, 3)
        return returned

    with torch.no_grad():
        expected = trained(qat_engine(), lambda model: descend(model, 3))(DATA)
        assert torch.equal(trained(qat_engine(), train)(DATA), expected)


def test_a_model_that_is_returned_is_the_trained_one() -> None:
    """As the best of several epochs."""
    kept: list[Any] = []

    def train(model: Any) -> Any:
        with quiet():
            best = copy.deepcopy(model)
        descend(model, 3)
        kept.append(best)
        return best

    with torch.no_grad():
        untrained = trained(qat_engine(), lambda _: None)(DATA)
        assert torch.equal(trained(qat_engine(), train, on_train_end=kept.append)(DATA), untrained)
    assert kept[0] is kept[1]


def test_a_module_called_twice_is_trained_once() -> None:
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    engine, last = qat_engine(seeded(Shared), data), list[Any]()

    def train(model: Any) -> None:
        model(data).square().mean().backward()
        with torch.no_grad():
            model.fc.weight -= model.fc.weight.grad
        last.append(model(data).detach())

    model = trained(engine, train)
    with torch.no_grad():
        assert torch.equal(model(data), last[0])


def test_a_model_that_holds_inputs_of_its_ops_is_trained() -> None:
    """Their scale stays the calibrated one, as that of any input."""
    engine, last = qat_engine(seeded(Learned), rows()), list[Any]()

    def train(model: Any) -> None:
        model(rows()).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(parameter.grad, alpha=-0.1)
        last.append(model(rows()).detach())

    model = trained(engine, train)
    with torch.no_grad():
        assert torch.equal(model(rows()), last[0])
        assert not torch.equal(model(rows()), trained(engine, lambda _: None)(rows()))


def test_every_training_draws_the_same_numbers() -> None:
    drawn: list[list[float]] = []
    engine = qat_engine()
    for _ in range(2):
        trained(engine, lambda _: drawn.append(torch.rand(3).tolist()))
    assert drawn[0] == drawn[1]


def test_a_model_that_was_trained_lately_is_not_trained_again(tmp_path: Path) -> None:
    """As a winner that is saved, with the bits of its trial; one that is given up is trained anew, to the same bits."""
    trainings: list[float] = []

    def train(model: Any) -> None:
        descend(model, 2)
        trainings.append(loss_of(model).item())

    engine = qat_engine()
    engine.train_with(train, {})
    first = initial(engine.space)
    others = [first.with_recipes({"smooth_quant": True, "smooth_quant_args": {"alpha": i / 10}}) for i in range(KEPT)]
    with torch.no_grad():
        expected = engine.quantized(first)(DATA)
    engine.save(first, tmp_path / "model")
    assert len(trainings) == 1
    for config in others:
        engine.quantized(config)
    assert len(trainings) == 1 + KEPT
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "model")(DATA), expected)
        assert torch.equal(engine.quantized(first)(DATA), expected)
    assert len(trainings) == 2 + KEPT
    assert trainings[0] == trainings[-1]


def test_another_training_function_trains_anew() -> None:
    engine = qat_engine()
    with torch.no_grad():
        assert not torch.equal(trained(engine, lambda _: None)(DATA), trained(engine, descend)(DATA))


def test_the_users_model_is_not_trained() -> None:
    engine = qat_engine()
    trained(engine, descend)
    assert all(torch.equal(v, seeded(Net).state_dict()[n]) for n, v in engine.task.model.state_dict().items())


def test_a_training_that_raises_is_a_failed_trial_that_says_where() -> None:
    def broken(model: Any) -> None:
        raise RuntimeError("no data left")

    engine = qat_engine()
    engine.train_with(broken, {})
    result = engine.trial(initial(engine.space))
    assert result.accuracy is None
    assert "train_func raised at test_training.py" in result.error
    assert "in broken: RuntimeError: no data left" in result.error


def test_without_a_function_nothing_is_trained() -> None:
    with pytest.raises(SearchError, match=r"needs Task\.train_func or q_func") as caught:
        Training()(nn.Linear(2, 2))
    assert caught.value.reason == Failure.TASK_INVALID


def test_a_hook_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="q_hooks may have on_train_begin and on_train_end, not before_epoch"):
        Training(descend, {"before_epoch": descend, "on_train_end": descend})
