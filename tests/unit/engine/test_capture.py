"""Capturing: ops have the user's names, what cannot be captured is told with the user's line."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.capture import capture, digest_of
from quantuner.space.capability import Op
from quantuner.space.config import FP32
from quantuner.space.samplers import initial
from tests.unit.engine.models import Branching, Computed, Net, Shared, Volumes, engine_of, images, seeded

ROWS = torch.ones(3, 4)


def named(model: nn.Module, x: torch.Tensor) -> list[tuple[str, str]]:
    return [(op.name, op.type) for op in capture(model, (x,)).ops]


@pytest.mark.parametrize(
    ("make", "x", "ops"),
    [
        pytest.param(Net, images(), [("stem.0", "Conv2d"), ("head", "Linear")], id="module paths, in order"),
        pytest.param(Shared, ROWS, [("fc", "Linear")], id="a module called twice is one op"),
        pytest.param(
            Volumes,
            ROWS,
            [("one", "Conv1d"), ("two", "Conv2d"), ("three.deep", "Conv3d"), ("last", "Linear")],
            id="every type, and no dead code",
        ),
        pytest.param(Computed, ROWS, [("fc", "Linear")], id="an op with a computed weight is none"),
    ],
)
def test_ops_are_named_by_their_modules(
    make: Callable[[], nn.Module], x: torch.Tensor, ops: list[tuple[str, str]]
) -> None:
    assert named(make(), x) == ops


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight)


def test_a_functional_call_is_named_by_its_module_and_node() -> None:
    assert named(nn.Sequential(Functional(), nn.ReLU()), ROWS) == [("0.linear", "Linear")]


class Twice(nn.Module):
    """Calls a function with a weight of its own, and then a module that is called as that call's node is."""

    def __init__(self) -> None:
        super().__init__()
        self.blur, self.conv2d = nn.Parameter(torch.ones(2, 1, 3, 3)), nn.Conv2d(2, 4, 1)
        self.proj_weight, self.proj = nn.Parameter(torch.ones(4, 4)), nn.Linear(4, 4)
        self.conv2d_1 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 2, 4, 4)` to `(N, 4)`."""
        y = self.conv2d(nn.functional.conv2d(x, self.blur, groups=2)).mean((2, 3))
        z: torch.Tensor = self.proj(nn.functional.linear(y, self.proj_weight))
        return z


def test_a_functional_call_has_no_name_of_a_modules() -> None:
    functional, modules = ["conv2d_2", "linear"], ["conv2d", "proj"]
    both = [functional[0], modules[0], functional[1], modules[1]]
    assert [op.name for op in capture(Twice(), (images(),)).ops] == both
    nested = nn.Sequential(Twice())
    assert [op.name for op in capture(nested, (images(),)).ops] == [f"0.{name}" for name in both]


def test_ops_whose_names_were_alike_are_quantized_apart() -> None:
    engine = engine_of(seeded(Twice))
    engine.calibrate()
    start = initial(engine.space)
    outputs = [engine.quantized(start.having({name: FP32}))(images()) for name in start]
    outputs += [engine.switchable(start).model(start.having({name: FP32}))(images()) for name in start]
    assert all(torch.equal(outputs[i], outputs[i + len(start)]) for i in range(len(start)))
    assert not any(torch.equal(outputs[i], outputs[j]) for i in range(len(start)) for j in range(i))


def test_weights_are_counted() -> None:
    assert [op.weight_elements for op in capture(Net(), (images(),)).ops] == [4 * 2 * 3 * 3, 3 * 16]


def test_control_flow_on_data_is_not_capturable_and_its_line_is_named() -> None:
    with pytest.raises(SearchError) as caught:
        capture(Branching(), (ROWS,))
    lines, start = inspect.getsourcelines(Branching.forward)
    number = start + next(i for i, line in enumerate(lines) if "the line that the error must name" in line)
    assert caught.value.reason == Failure.MODEL_NOT_CAPTURABLE
    assert caught.value.message.startswith(f"torch.export of the model raised at models.py:{number} in forward: ")
    assert "data-dependent" in caught.value.message
    assert "x.sum() > 0" in caught.value.traceback


def test_a_model_without_quantizable_ops_is_refused_with_what_would_be_one() -> None:
    with pytest.raises(SearchError, match="none of the quantizable ops Conv1d, Conv2d, ") as caught:
        capture(nn.ReLU(), (ROWS,))
    assert caught.value.reason == Failure.NOTHING_TO_QUANTIZE


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_model_of_another_type_is_told_to_be_made_float(dtype: torch.dtype) -> None:
    with pytest.raises(
        SearchError, match=rf"compute in {dtype}, and only what is in float32 .* model\.float\(\)"
    ) as caught:
        capture(nn.Linear(4, 2).to(dtype), (ROWS.to(dtype),))
    assert caught.value.reason == Failure.NOTHING_TO_QUANTIZE


def test_a_weight_that_is_computed_is_told_to_be_stored() -> None:
    model = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
    with pytest.raises(
        SearchError, match=r"weights of the model's ops \(Linear\) are computed, .*remove_parametrizations"
    ):
        capture(model, (ROWS,))
    nn.utils.parametrize.remove_parametrizations(model, "weight")
    assert [op.type for op in capture(model, (ROWS,)).ops] == ["Linear"]


class Writing(nn.Module):
    """Writes to its input, and takes four columns."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += 1
        y: torch.Tensor = self.fc(x)
        return y


def test_inputs_that_the_model_does_not_take_are_told_in_its_own_words(capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.ones(3, 5)
    with pytest.raises(SearchError) as caught:
        capture(Writing(), (x,))
    assert caught.value.reason == Failure.CALIBRATION_FAILED
    assert "it was called with torch.float32 of shape (3, 5), in evaluation mode, and raised at" in caught.value.message
    assert "mat1 and mat2 shapes cannot be multiplied (3x5 and 4x2)" in caught.value.message
    assert bool((x == 1).all())
    assert capfd.readouterr().err == ""


def test_torch_prints_no_graph_of_a_model_that_it_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SearchError):
        capture(Branching(), (ROWS,))
    assert capfd.readouterr() == ("", "")
    assert "print" not in vars(torch.export._trace)


def test_the_graph_computes_what_the_model_does_for_any_batch() -> None:
    model = seeded(Net)
    graph = capture(model, (images(2),)).graph
    for count in (1, 2, 5):
        torch.testing.assert_close(graph(images(count)), model(images(count)))


def test_the_model_is_captured_in_evaluation_mode_and_left_as_it_was() -> None:
    model = seeded(Net).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = capture(model, (images(),)).graph
    assert model.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(graph(images()), model.eval()(images()))


class TestDigest:
    def test_equal_models_have_an_equal_digest(self) -> None:
        assert capture(seeded(Net), (images(),)).digest == capture(seeded(Net), (images(3),)).digest

    def test_it_changes_with_the_last_bit_of_a_weight(self) -> None:
        model, other = seeded(Net), seeded(Net)
        weight = other.get_parameter("head.weight").data
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
        assert capture(model, (images(),)).digest != capture(other, (images(),)).digest

    def test_it_changes_with_a_buffer(self) -> None:
        model, other = seeded(Net), seeded(Net)
        other.get_buffer("stem.1.running_mean")[0] += 1
        assert capture(model, (images(),)).digest != capture(other, (images(),)).digest

    def test_it_changes_with_a_buffer_that_is_not_saved(self) -> None:
        class Shifted(nn.Linear):
            def __init__(self, by: float) -> None:
                super().__init__(4, 4)
                self.register_buffer("shift", torch.full((4,), by), persistent=False)

            shift: torch.Tensor

            def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name for it
                y: torch.Tensor = super().forward(input) + self.shift
                return y

        one, other = (seeded(functools.partial(Shifted, by)) for by in (1.0, 2.0))
        assert capture(one, (ROWS,)).digest != capture(other, (ROWS,)).digest

    def test_it_leaves_out_what_is_no_tensor(self) -> None:
        class Noted(nn.Linear):
            def get_extra_state(self) -> Any:
                return {"version": 1}

            def set_extra_state(self, state: Any) -> None: ...

        assert len(capture(seeded(lambda: Noted(4, 4)), (ROWS,)).digest) == 16

    def test_it_is_that_of_earlier_versions(self) -> None:
        """Journals carry it: a search that was begun before goes on."""
        ops = (Op("fc", "Linear", 16),)
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        model.append(model[0])
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(3)
        assert digest_of(ops, model) == "0629286d6d8a3dc8"
