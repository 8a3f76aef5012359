"""An assembled program is the one that torch.export would trace."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quantuner.engine.artifact import save
from quantuner.engine.capture import Captured, capture
from quantuner.engine.graphs import drop_unused
from quantuner.engine.precision import cast_ops, store_weights
from quantuner.engine.programs import assembled, calling_of, is_flat
from quantuner.engine.quantized import load
from quantuner.engine.quiet import quiet
from quantuner.space.capability import Mode
from quantuner.space.config import OpConfig, TuneConfig, default_config
from tests.unit.engine.models import Net, engine_of, images, seeded

Inputs = tuple[Any, ...]


class Structured(nn.Module):
    """Takes a dict and a flag, and returns a dict that holds an input, None and two results of one op."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(4))

    def forward(self, given: dict[str, torch.Tensor], twice: bool) -> dict[str, Any]:
        y = self.fc(given["x"]) + self.shift
        halves = (y * 2 if twice else y).split(2, dim=1)
        return {"halves": halves, "as given": given["y"], "nothing": None}


class Conditional(nn.Module):
    """Its graph calls two others."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.cond(x.sum() > 0, lambda v: v.sin(), lambda v: v.cos(), (self.fc(x),))
        return y


STRUCTURED: Inputs = ({"x": torch.linspace(-1, 1, 12).reshape(3, 4), "y": torch.zeros(3)}, True)


def quantized(make: Callable[[], nn.Module], inputs: Inputs) -> tuple[torch.fx.GraphModule, Captured, TuneConfig]:
    engine = engine_of(seeded(make), loader=[(inputs, None)])
    engine.calibrate()
    config = TuneConfig({one.op.name: default_config(one) for one in engine.space})
    model = engine.quantized(config)
    drop_unused(model)
    return model, engine.captured, config


def traced(model: torch.fx.GraphModule, captured: Captured) -> torch.export.ExportedProgram:
    return torch.export.export(model, captured.example_inputs, dynamic_shapes=captured.dynamic_shapes)


def described(program: torch.export.ExportedProgram) -> list[Any]:
    """Operators and the types of what they give, in order, but for what tracing asserts of casts; tensors by name."""
    called = [node for node in program.graph.nodes if node.op == "call_function" and "_assert" not in str(node.target)]
    values = [node.meta["val"] for node in called]
    return [
        [str(node.target) for node in called],
        [(value.dtype, value.dim()) if isinstance(value, torch.Tensor) else type(value) for value in values],
        sorted((name, tuple(tensor.shape), tensor.dtype) for name, tensor in program.state_dict.items()),
        [(spec.kind, spec.target) for spec in program.graph_signature.input_specs if spec.target is None],
        [spec.kind for spec in program.graph_signature.output_specs],
        list(program.range_constraints.values()),
        program.call_spec.in_spec,
        program.call_spec.out_spec,
    ]


@pytest.mark.parametrize(("make", "inputs"), [(Net, (images(),)), (Structured, STRUCTURED)])
def test_it_says_and_computes_what_a_traced_one_does(make: Callable[[], nn.Module], inputs: Inputs) -> None:
    model, captured, _ = quantized(make, inputs)
    assert captured.calling is not None
    program, other = assembled(model, captured.calling), traced(model, captured)
    assert described(program) == described(other)
    torch.testing.assert_close(program.module()(*inputs), model(*inputs), rtol=0, atol=0)


def test_the_model_that_it_is_made_of_stays_as_it_is() -> None:
    model, captured, _ = quantized(Net, (images(),))
    assert captured.calling is not None
    before = str(model.graph)
    first = assembled(model, captured.calling)
    assert str(model.graph) == before
    assert described(assembled(model, captured.calling)) == described(first)


def test_it_refuses_inputs_of_another_shape_and_takes_other_batch_sizes() -> None:
    model, captured, _ = quantized(Net, (images(),))
    assert captured.calling is not None
    module = assembled(model, captured.calling).module()
    assert module(images(5)).shape == (5, 3)
    with pytest.raises(RuntimeError, match="shape"):
        module(torch.zeros(5, 2, 5, 4))


def test_values_in_another_precision_are_described_as_such() -> None:
    captured = capture(seeded(Net), (images(),))
    model = captured.graph
    cast_ops(model, {"head": OpConfig(Mode.BF16)})
    store_weights(model)
    drop_unused(model)
    assert captured.calling is not None
    program = assembled(model, captured.calling)
    types = {node.name: node.meta["val"].dtype for node in program.graph.nodes if node.op == "call_function"}
    assert types["linear"] == torch.bfloat16
    assert described(program) == described(traced(model, captured))


def test_a_graph_that_calls_others_is_traced_again(tmp_path: Path) -> None:
    model, captured, config = quantized(Conditional, (STRUCTURED[0]["x"],))
    assert not is_flat(model)
    save(tmp_path / "model", model, captured.called, config)
    inputs = STRUCTURED[0]["x"]
    torch.testing.assert_close(load(tmp_path / "model")(inputs), model(inputs), rtol=0, atol=0)


def test_neither_do_graphs_that_it_calls_name_folders(tmp_path: Path) -> None:
    for name in ("one", "again"):
        model, captured, config = quantized(Conditional, (STRUCTURED[0]["x"],))
        save(tmp_path / name, model, captured.called, config)
    content = (tmp_path / "one" / "model.pt2").read_bytes()
    assert content == (tmp_path / "again" / "model.pt2").read_bytes()
    with zipfile.ZipFile(tmp_path / "one" / "model.pt2") as file:
        assert not [name for name in file.namelist() if str(Path(__file__).parent).encode() in file.read(name)]


def test_a_program_that_changes_a_buffer_has_no_calling() -> None:
    class Counting(nn.Module):
        calls: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x + self.calls

    with quiet():
        program = torch.export.export(Counting(), (torch.ones(2),)).run_decompositions({})
    assert calling_of(program) is None


class Alike(nn.Module):
    """Paths that differ in a dot, one of which is called as the input is."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.fc_weight = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, p_fc_weight: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(p_fc_weight).relu() @ self.fc.weight * self.fc_weight
        return y


def test_tensors_whose_paths_look_alike_stay_apart(tmp_path: Path) -> None:
    captured = capture(seeded(Alike), (torch.ones(2, 4),))
    assert captured.calling is not None
    inputs = torch.linspace(-1, 1, 8).reshape(2, 4)
    save(tmp_path / "model", captured.graph, captured.called, TuneConfig())
    torch.testing.assert_close(load(tmp_path / "model")(inputs), captured.graph(inputs), rtol=0, atol=0)
