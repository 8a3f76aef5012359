"""A switched model is the converted one to the bit, whatever was evaluated before and however little is kept."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Node

from quantuner.api.spec import Override
from quantuner.engine.engine import Engine
from quantuner.engine.quantize import Activations
from quantuner.engine.quantized import load
from quantuner.engine.switch.switchable import Switchable, _Run
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, TuneConfig
from quantuner.space.samplers import dynamic_where_possible, initial, op_wise_candidates
from tests.unit.engine.models import (
    ALL_PRECISIONS,
    Attention,
    Computed,
    Learned,
    Looked,
    Net,
    Product,
    Shared,
    Tied,
    Upsampling,
    Volumes,
    engine_of,
    ids,
    images,
    rows,
    seeded,
)


class InPlace(nn.Module):
    """A residual block whose activations write over their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.body, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.norm(self.stem(x)))
        z = self.body(y)
        z += y
        out: torch.Tensor = self.head(self.relu(z).mean((2, 3)))
        return out


class PartlyWritten(nn.Module):
    """Writes to a part of a tensor, which no value that is kept may miss."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y[:, 0] = 0.5
        z: torch.Tensor = self.second(y)
        return z


class Nested(nn.Module):
    """Takes a dict, returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        hidden = self.a(features["x"]) + features["y"]
        return {"hidden": hidden, "out": self.b(hidden)}


def pairs(count: int = 8, seed: int = 1) -> dict[str, torch.Tensor]:
    return {"x": rows(count, seed), "y": rows(count, seed + 1)}


class NotFinite(nn.Module):
    """Gives its op NaN and infinity for some inputs, which calibration has not shown."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(self.first(x.log()).relu())
        return y.nan_to_num(7.0)


class OneChannel(nn.Module):
    """A convolution chooses its layout by strides, which one channel or pixel leave open. Also a bias for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.gray, self.body = nn.Conv2d(2, 1, 1), nn.Conv2d(1, 8, 3, padding=1)
        self.pixel, self.shift, self.head = nn.Conv2d(8, 5, 4), nn.Linear(5, 3), nn.Linear(5, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pixel(self.body(self.gray(x))).flatten(1)
        return nn.functional.linear(y, self.head.weight, self.shift(y).tanh())


class Residual(nn.Module):
    """Gray images; a ReLU that two ops and an addition read, one that two ops read, and pooling between ops."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.tail = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.one, self.short = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.head, self.side = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x.repeat(1, 1, 2, 2)[:, :1]).relu()
        z = (self.one(y) + self.short(y) + y).relu()
        z = nn.functional.max_pool2d(self.tail(self.body(z).relu()).relu(), 2).mean((2, 3))
        out: torch.Tensor = self.head(z) + self.side(z).relu()
        return out


class Layers(nn.Module):
    """Linears with ReLUs between; one output is added to another that is broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.four, self.row = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.two(self.one(x).relu()).relu()
        z: torch.Tensor = (self.row(y[:1]) + self.three(y)).relu() + self.four(y)
        return z


class Narrow(nn.Module):
    """One channel behind ReLUs and additions, whose strides decide in which layout the next convolution computes."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(2, 1, 3, padding=1) for _ in range(3))
        self.body, self.tail = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(1, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(self.one(x).relu()).mean((2, 3))
        z: torch.Tensor = self.tail((self.two(x) + self.three(x)).relu()).mean((2, 3))
        return torch.cat([y, z], 1)


class Biased(nn.Module):
    """Adds an op's own input to its output, as its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).relu()
        z: torch.Tensor = self.third(nn.functional.linear(y, self.second.weight, y))
        return z


class Pooled(nn.Module):
    """A pooling that gives what is negative of what is not."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.two(nn.functional.avg_pool2d(self.one(x).relu(), 2, divisor_override=-1))
        return z


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[..., Any]]] = {
    "a convolution and a linear": (Net, images),
    "a module that is called twice": (Shared, rows),
    "every type": (Volumes, rows),
    "a weight that is computed": (Computed, rows),
    "writing in place": (InPlace, images),
    "writing to a part": (PartlyWritten, rows),
    "inputs and outputs in dicts": (Nested, pairs),
    "transposed convolutions": (Upsampling, rows),
    "products of activations": (Product, rows),
    "an embedding": (Looked, ids),
    "an embedding whose weight is multiplied with, too": (Tied, ids),
    "one channel and one pixel": (OneChannel, images),
    "gray images and additions": (Residual, images),
    "linears with ReLUs between": (Layers, rows),
    "one channel behind ReLUs": (Narrow, images),
    "an input that is the bias, too": (Biased, rows),
    "inputs that the model holds": (Learned, rows),
    "attention": (Attention, lambda *given: rows(*given).repeat(1, 3).view(-1, 3, 4)),
}
EVERY_ALGORITHM = Override(".*", {("activation", "algorithm"): ("kl", "minmax", "percentile:90")})
REQUESTED = (Override("MatMul", {("activation", "dtype"): ("uint8", *ALL_PRECISIONS)}),)
"""What has to be asked for is asked for in models that have it."""
BUDGETS = {"nothing is kept": 0, "some": 3000, "everything": 2**30}


def engine_for(make: Callable[[], nn.Module], data: Callable[..., Any], approach: str) -> Engine:
    requested = REQUESTED if make is Product and approach == "static" else ()
    made = engine_of(
        seeded(make),
        loader=[(data(), torch.zeros(8))],
        approach=approach,
        op_types=(*requested, EVERY_ALGORITHM),
        precisions=ALL_PRECISIONS,
    )
    made.calibrate()
    return made


def switchable(engine: Engine, budget: int = 2**30) -> Switchable:
    known = engine.switchable(initial(engine.space))
    work = {op.name: float(op.flops) for op in engine.captured.ops}
    activations: Activations = known.rounding.activations
    return Switchable(known.program.model, activations, work, budget)


def drawn(engine: Engine, count: int, seed: int) -> list[TuneConfig]:
    """Configurations of any kind in any order, some of them twice."""
    generator = random.Random(seed)
    candidates = op_wise_candidates(engine.space, precisions=True)
    found = [
        initial(engine.space).having({name: generator.choice(options) for name, options in candidates.items()})
        for _ in range(count)
    ]
    return [*found, found[0], initial(engine.space)]


def equal(one: Any, other: Any) -> bool:
    leaves = zip(torch.utils._pytree.tree_leaves(one), torch.utils._pytree.tree_leaves(other), strict=True)
    return all(torch.equal(a, b) for a, b in leaves)


@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize(("make", "data"), MODELS.values(), ids=MODELS.keys())
def test_it_gives_the_bits_of_the_converted_model(make: Any, data: Any, approach: str) -> None:
    engine = engine_for(make, data, approach)
    models = {budget: switchable(engine, budget) for budget in BUDGETS.values()}
    batches = [data(count, seed) for count, seed in ((8, 3), (2, 4), (8, 5))]
    for config in drawn(engine, 6, seed=0):
        converted = engine.quantized(config)
        for batch in batches:
            with torch.no_grad():
                expected = converted(batch)
            for budget, model in models.items():
                assert equal(model.model(config)(batch), expected), f"budget {budget}"


@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_ops_of_what_the_model_holds_have_their_bits_when_it_is_loaded_again(approach: str, tmp_path: Path) -> None:
    """What is rounded of it is stored as integers."""
    engine = engine_for(Learned, rows, approach)
    config = initial(engine.space)
    engine.quantized_model(config).save(tmp_path / "model")
    with torch.no_grad():
        assert equal(load(tmp_path / "model")(rows(4, 3)), switchable(engine).model(config)(rows(4, 3)))


def test_what_is_not_a_number_is_rounded_as_the_converted_model_does() -> None:
    engine = engine_for(NotFinite, lambda *_: rows().abs() + 0.1, "static")
    for config in drawn(engine, 6, seed=1):
        with torch.no_grad():
            assert equal(switchable(engine).model(config)(rows()), engine.quantized(config)(rows()))


@pytest.mark.parametrize("factor", [1e38, torch.inf])
def test_what_is_not_a_number_behind_a_relu_is_rounded_as_the_converted_model_does(factor: float) -> None:
    """A dynamic op makes NaN of infinity, and a ReLU keeps it."""
    engine = engine_for(Layers, rows, "auto")
    dynamic = dynamic_where_possible(engine.space, initial(engine.space))["one"]
    assert dynamic.mode is Mode.DYNAMIC
    batch = rows(8, 3)
    batch[-1] *= factor
    static = [one for one in op_wise_candidates(engine.space)["two"] if one.mode is Mode.STATIC]
    assert {one.get("activation", "scheme") for one in static} == {"asym", "sym"}
    for option in static:
        config = initial(engine.space).having({"one": dynamic, "two": option})
        with torch.no_grad():
            found, expected = switchable(engine).model(config)(batch), engine.quantized(config)(batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_what_a_pooling_makes_negative_is_rounded_as_such() -> None:
    engine = engine_for(Pooled, images, "static")
    for config in drawn(engine, 8, seed=3):
        with torch.no_grad():
            assert equal(switchable(engine).model(config)(images(4, 5)), engine.quantized(config)(images(4, 5)))


class Dilated(nn.Module):
    """A pooling whose window lies in padding alone where an image has one pixel: it gives -inf."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.two(nn.functional.max_pool2d(self.one(x).relu(), 2, 1, 1, 2))
        return z


def test_what_a_pooling_makes_of_padding_is_rounded_as_such() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = [torch.randn(8, 2, size, size, generator=generator) for size in (4, 5)]
    engine = engine_of(seeded(Dilated), loader=[(one, torch.zeros(8)) for one in seen], approach="static")
    engine.calibrate()
    pixel = torch.randn(8, 2, 1, 1, generator=generator)
    for config in drawn(engine, 8, seed=4):
        with torch.no_grad():
            found, expected = switchable(engine).model(config)(pixel), engine.quantized(config)(pixel)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_a_model_without_quantized_ops_is_the_folded_model() -> None:
    engine = engine_for(Net, images, "static")
    model = switchable(engine).model(initial(engine.space).having({"stem.0": FP32, "head": FP32}))
    torch.testing.assert_close(model(images(4, 9)), seeded(Net)(images(4, 9)))


def test_inputs_may_be_named_and_the_parameters_are_there() -> None:
    engine = engine_for(Net, images, "static")
    model = switchable(engine).model(initial(engine.space))
    assert torch.equal(model(x=images()), model(images()))
    assert {tuple(p.shape) for p in model.parameters()} >= {(4, 2, 3, 3), (3, 16)}
    assert not model.eval()(images()).requires_grad


def counted(model: Switchable, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever the op is computed."""
    calls: list[str] = []
    value = _Run.value

    def counting(run: _Run, node: Node, values: dict[Node, Any]) -> Any:
        calls.extend([name] if model.names.get(node) == name else [])
        return value(run, node, values)

    monkeypatch.setattr(_Run, "value", counting)
    return calls


def test_what_did_not_change_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for(Net, images, "static")
    model, base = switchable(engine), initial(engine.space)
    calls = counted(model, "stem.0", monkeypatch)
    model.model(base)(images())
    assert len(calls) == 1
    model.model(base.having({"head": FP32}))(images())
    assert len(calls) == 1  # the convolution is as before
    model.model(base.having({"stem.0": FP32}))(images())
    assert len(calls) == 2
    model.model(base)(images(4, 7))
    assert len(calls) == 3  # other images


def test_a_dict_is_known_by_its_keys_in_whatever_order_they_come() -> None:
    engine = engine_for(Nested, pairs, "static")
    config = initial(engine.space)
    model, converted = switchable(engine).model(config), engine.quantized(config)
    given = pairs(4, 7)
    turned = {"y": given["y"], "x": given["x"]}
    other = {"y": given["x"], "x": given["y"]}  # the same tensors in the same places, under other keys
    assert not equal(converted(given), converted(other))
    for batch in (given, turned, other):
        assert equal(model(batch), converted(batch))
    assert equal(model(turned), model(given))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x).mean(1) * x.shape[1]
        return y


def test_an_input_that_breaks_what_the_capture_assumed_is_refused_as_the_saved_model_refuses_it() -> None:
    data = torch.randn(8, 5, 4, generator=torch.Generator().manual_seed(0))
    engine = engine_of(seeded(Scaled), loader=[data])
    engine.calibrate()
    model = switchable(engine).model(initial(engine.space))
    model(data)
    with pytest.raises(AssertionError, match="Guard failed"):
        model(data[:, :3])
    with pytest.raises(AssertionError, match="Guard failed"):
        engine.quantized(initial(engine.space))(data[:, :3])


class Flattened(nn.Module):
    """Its op reads a view of the input, and its output is a view of what another op reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.first(x.flatten(1))
        return hidden[:, :2], self.second(hidden)


def test_what_the_caller_does_with_inputs_and_outputs_changes_no_later_result() -> None:
    engine = engine_for(Flattened, lambda *_: rows().view(8, 2, 2), "static")
    config = initial(engine.space)
    model, buffer = switchable(engine), torch.empty(8, 2, 2)
    batches = [rows(8, seed).view(8, 2, 2) for seed in (1, 2)]
    for changed in (config, config.having({"second": FP32}), config):
        for batch in batches:
            outputs = model.model(changed)(buffer.copy_(batch))  # a loader that fills one buffer again and again
            assert equal(outputs, engine.quantized(changed)(batch))
            for output in outputs:
                output.fill_(9)


@pytest.mark.parametrize("name", ["stem.0", "head"])
def test_a_rerun_gives_what_a_whole_run_gives(name: str) -> None:
    engine = engine_for(Net, images, "static")
    base = initial(engine.space)
    changed, model = base.having({name: FP32}), switchable(engine)
    with torch.no_grad():
        values = model.run((images(),), base)
        before = dict(values)
        assert torch.equal(model.rerun(values, changed, name), model.output(model.run((images(),), changed)))
    assert all(values[node] is before[node] for node in before)  # the base's values serve the next op


@pytest.mark.parametrize(("make", "name"), [(Shared, "fc"), (PartlyWritten, "first")], ids=["twice", "written"])
def test_all_that_depends_on_an_op_is_run_again(make: Any, name: str) -> None:
    engine = engine_for(make, rows, "static")
    base, model = initial(engine.space), switchable(engine)
    with torch.no_grad():
        again = model.rerun(model.run((rows(),), base), base.having({name: FP32}), name)
        assert torch.equal(again, model.output(model.run((rows(),), base.having({name: FP32}))))
