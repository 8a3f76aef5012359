"""Captured graphs read, changed and run node by node, against the same done by hand or by the whole model."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.engine.capture import capture
from quantuner.engine.graphs import (
    attribute,
    constant,
    copied,
    drop_unused,
    flat_inputs,
    folded,
    limited,
    over_channels,
    own_tensors,
    per_channel,
    replace_attribute,
    run_together,
)
from quantuner.engine.quiet import quiet
from tests.unit.engine.models import Net, images, seeded


def net() -> GraphModule:
    return capture(seeded(Net), (images(),)).graph


class Structured(nn.Module):
    """Takes a dict and a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, named: dict[str, torch.Tensor], pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        y: torch.Tensor = self.fc(named["x"]) + named["y"] * pair[0] - pair[1]
        return y


def structured(count: int, seed: int = 0) -> tuple[Any, ...]:
    a, b, c, d = torch.randn(4, count, 4, generator=torch.Generator().manual_seed(seed))
    return {"x": a, "y": b}, (c, d)


# --- running


@pytest.mark.parametrize(
    ("model", "batches"),
    [
        pytest.param(seeded(Net), [(images(4),), (images(2, seed=5),)], id="a tensor"),
        pytest.param(seeded(Structured), [structured(3), structured(2, seed=1)], id="a dict and a pair"),
    ],
)
def test_all_batches_run_through_the_model_as_one_by_one(model: nn.Module, batches: list[Any]) -> None:
    graph = capture(model, batches[0]).graph
    seen: dict[str, list[torch.Tensor]] = {}

    def see(node: torch.fx.Node, values: Any) -> Any:
        seen[node.name] = list(values)
        return values

    run_together(graph, batches, see)
    last: Any = graph.graph.output_node().args[0]
    with torch.no_grad():
        for found, batch in zip(seen[last[0].name], batches, strict=True):
            assert torch.equal(found, graph(*batch))


def test_what_a_visitor_returns_is_what_later_nodes_see() -> None:
    graph, outputs = net(), list[torch.Tensor]()

    def silence(node: torch.fx.Node, values: Any) -> Any:
        if node.name == "linear":
            outputs.extend(values)
        return [torch.zeros_like(v) for v in values] if node.name == "relu" else values

    run_together(graph, [(images(2),)], silence)
    assert torch.equal(outputs[0], attribute(graph, "head.bias").expand(2, 3))


def test_no_gradient_is_recorded() -> None:
    def see(_: torch.fx.Node, values: Any) -> Any:
        assert not torch.is_grad_enabled()
        return values

    with torch.enable_grad():
        run_together(net(), [(images(2),)], see)


def test_a_placeholder_gets_a_leaf_of_the_inputs() -> None:
    inputs = structured(2)
    found = list(flat_inputs(capture(Structured(), inputs).graph, inputs))
    assert [torch.equal(a, b) for a, b in zip(found, (*inputs[0].values(), *inputs[1]), strict=True)] == [True] * 4


# --- changing


def test_keys_of_a_dict_may_come_in_any_order() -> None:
    model = capture(seeded(Structured), structured(3)).graph
    named, pair = structured(3)
    turned = dict(reversed(named.items())), pair
    assert list(turned[0]) != list(named)
    assert all(map(torch.equal, flat_inputs(model, turned), flat_inputs(model, (named, pair))))
    outputs: list[Any] = []

    def see(node: Any, values: Any) -> Any:
        outputs[:] = values
        return values

    run_together(model, [(named, pair), turned], see)
    assert torch.equal(*outputs)


def test_another_number_of_inputs_is_told() -> None:
    with pytest.raises(TypeError, match="takes 1 inputs by position, not 2"):
        flat_inputs(net(), (images(), images()))


def test_a_constant_finds_a_free_name_and_is_a_copy() -> None:
    graph, value = net(), torch.ones(3)
    before = next(iter(graph.graph.nodes))
    names = [constant(graph, "_mine", value, before).target for _ in range(2)]
    value.zero_()
    assert names == ["_mine_0", "_mine_1"]
    assert [attribute(graph, str(name)).tolist() for name in names] == [[1.0] * 3] * 2
    assert {"_mine_0", "_mine_1"} <= graph.state_dict().keys()


@pytest.mark.parametrize(
    ("path", "is_parameter"),
    [
        pytest.param("head.bias", True, id="parameter"),
        pytest.param("stem.1.running_mean", False, id="buffer"),
    ],
)
def test_a_replaced_tensor_keeps_name_and_kind(path: str, is_parameter: bool) -> None:
    graph = net()
    value = torch.full_like(attribute(graph, path), 7)
    names = list(graph.state_dict())
    replace_attribute(graph, path, value)
    value.zero_()
    assert attribute(graph, path).unique().tolist() == [7.0]
    assert isinstance(attribute(graph, path), nn.Parameter) == is_parameter
    assert sorted(graph.state_dict()) == sorted(names)


def test_tensors_that_no_node_reads_are_dropped_and_the_function_stays() -> None:
    graph, data = net(), images(2)
    expected = graph(data)
    unread = constant(graph, "_unread", torch.ones(3), next(iter(graph.graph.nodes)))
    graph.register_buffer("_never_read", torch.ones(3))
    read = {name for name in graph.state_dict() if "num_batches" not in name} - {str(unread.target), "_never_read"}
    drop_unused(graph)
    assert set(graph.state_dict()) == read
    assert torch.equal(graph(data), expected)


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_folded_batch_norms_leave_the_function_and_the_argument(eps: float) -> None:
    """Up to the order of products: some units in the last place of outputs of about 10."""
    model = seeded(Net)
    model.get_submodule("stem.1").eps = eps  # type: ignore[assignment]
    graph, data = capture(model, (images(),)).graph, images(16, seed=3)
    names = sorted(graph.state_dict())
    with quiet(), torch.no_grad():
        torch.testing.assert_close(folded(graph)(data), model(data), rtol=1e-5, atol=1e-5)
    assert not [node for node in folded(graph).graph.nodes if "batch_norm" in str(node.target)]
    assert sorted(graph.state_dict()) == names


# --- shapes


@pytest.mark.parametrize(
    ("shape", "type_", "expected"),
    [
        pytest.param((2, 3), "Linear", (2, 3), id="linear"),
        pytest.param((2, 5, 3), "Linear", (10, 3), id="linear over a sequence"),
        pytest.param((2, 3, 4), "Conv1d", (8, 3), id="conv1d"),
        pytest.param((2, 3, 4, 5), "Conv2d", (40, 3), id="conv2d"),
        pytest.param((2, 3, 1, 2, 2), "Conv3d", (8, 3), id="conv3d"),
        pytest.param((3,), "Linear", (1, 3), id="linear of a row"),
        pytest.param((3, 4), "Conv1d", (4, 3), id="conv1d without a batch"),
        pytest.param((3, 4, 5), "ConvTranspose2d", (20, 3), id="transposed conv2d without a batch"),
    ],
)
def test_channels_come_last_and_broadcast_back(shape: tuple[int, ...], type_: str, expected: tuple[int, int]) -> None:
    value = torch.zeros(shape) + per_channel(torch.arange(3.0), torch.zeros(shape), type_)
    found = over_channels(value, type_)
    assert tuple(found.shape) == expected
    assert torch.equal(found, torch.arange(3.0).expand(expected))


@pytest.mark.parametrize(
    ("sizes", "samples", "expected"),
    [
        pytest.param([4, 4], 100, [4, 4], id="fewer than wanted"),
        pytest.param([4, 4, 4], 8, [4, 4], id="exactly as many"),
        pytest.param([4, 4, 4], 6, [4, 2], id="the last batch is cut"),
        pytest.param([10], 3, [3], id="the first batch is cut"),
        pytest.param([], 3, [], id="none"),
    ],
)
def test_batches_up_to_a_number_of_samples(sizes: list[int], samples: int, expected: list[int]) -> None:
    batches = [(torch.arange(size), torch.zeros(size, 2), "a word", torch.tensor(1)) for size in sizes]
    found = list(limited(batches, samples))
    assert [len(batch[0]) for batch in found] == [len(batch[1]) for batch in found] == expected
    assert all(batch[2:] == ("a word", torch.tensor(1)) for batch in found)


def test_dicts_are_cut_and_what_holds_no_samples_is_not() -> None:
    batches = [({"x": torch.arange(4), "mask": torch.zeros(1, 7)}, [torch.zeros(4, 2)])] * 2
    first, second = limited(batches, 6)
    assert first is batches[0]
    assert [len(second[0]["x"]), len(second[0]["mask"]), len(second[1][0])] == [2, 1, 2]


def test_no_batch_is_asked_for_beyond_the_limit() -> None:
    batches = iter([(torch.zeros(4),), (torch.zeros(4),)])
    list(limited(batches, 4))
    assert len(list(batches)) == 1


# --- copies


def test_a_copy_has_its_own_nodes_and_the_models_tensors() -> None:
    model = net()
    with quiet():
        copy = copied(model)
    assert {*map(id, copy.parameters())} == {*map(id, model.parameters())}
    assert {*map(id, copy.buffers())} == {*map(id, model.buffers())}
    before = [node.name for node in model.graph.nodes]
    weight, path = next(iter(model.parameters())), next(iter(dict(model.named_parameters())))
    replace_attribute(copy, path, weight * 2)
    copy.graph.erase_node(copy.graph.output_node())
    assert attribute(model, path) is weight
    assert [node.name for node in model.graph.nodes] == before


def test_own_tensors_are_equal_and_a_shared_one_stays_one() -> None:
    held, graph = nn.Module(), torch.fx.Graph()
    held.first = held.second = nn.Parameter(torch.randn(3))
    held.register_buffer("other", torch.arange(2))
    graph.output(tuple(graph.get_attr(name) for name in ("first", "second", "other")))
    model = GraphModule(held, graph)
    copy = copied(model)
    own_tensors(copy, model)
    first, second, other = (attribute(copy, name) for name in ("first", "second", "other"))
    assert first is second
    assert first is not attribute(model, "first")
    assert torch.equal(first, attribute(model, "first"))
    assert other is not attribute(model, "other")
    assert torch.equal(other, attribute(model, "other"))
