"""What is kept from one evaluation to the next: within the budget, and never a value of something else."""

import pytest
import torch
from torch.fx import Graph, Node

from quantuner.engine.switch.memory import Memory, batch_digest


def nodes(count: int) -> list[Node]:
    graph = Graph()
    return [graph.placeholder(f"x{i}") for i in range(count)]


def value(floats: int) -> torch.Tensor:
    return torch.zeros(floats)


def test_a_value_is_found_for_its_batch_and_signature_alone() -> None:
    (node,) = nodes(1)
    memory = Memory(1000, {node: 1.0})
    kept = value(10)
    memory.keep(b"a", node, ("int8",), kept)
    assert memory.known(b"a", {node: ("int8",)}) == {node: kept}
    assert memory.known(b"a", {node: ("fp32",)}) == {}
    assert memory.known(b"b", {node: ("int8",)}) == {}


def test_the_last_value_of_a_batch_takes_the_place_of_the_one_before() -> None:
    (node,) = nodes(1)
    memory = Memory(1000, {node: 1.0})
    memory.keep(b"a", node, ("int8",), value(10))
    memory.keep(b"a", node, ("fp32",), value(20))
    assert memory.held == 80
    assert memory.known(b"a", {node: ("int8",)}) == {}


def test_over_budget_the_node_that_saves_least_work_per_byte_is_given_up_for_all_batches() -> None:
    early, late = nodes(2)
    memory = Memory(900, {early: 1.0, late: 5.0})
    for batch in (b"a", b"b"):
        memory.keep(batch, early, (), value(60))
        memory.keep(batch, late, (), value(60))
        assert memory.held <= 900
    memory.keep(b"c", early, (), value(1))  # given up for good
    assert list(memory.nodes) == [late]
    assert memory.held == 480
    assert memory.known(b"a", {late: ()}).keys() == {late}


def test_a_value_larger_than_the_budget_is_not_kept() -> None:
    (node,) = nodes(1)
    memory = Memory(100, {node: 1.0})
    memory.keep(b"a", node, (), value(26))
    assert (memory.held, list(memory.nodes)) == (0, [])


def test_what_is_cleared_is_unknown_and_may_be_kept_again() -> None:
    (node,) = nodes(1)
    memory = Memory(1000, {node: 1.0})
    memory.keep(b"a", node, (), value(10))
    memory.clear()
    assert (memory.held, memory.known(b"a", {node: ()})) == (0, {})
    memory.keep(b"a", node, (), value(10))
    assert memory.held == 40


ONE = torch.arange(6.0)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([ONE + 1], id="other numbers"),
        pytest.param([ONE.view(2, 3)], id="another shape"),
        pytest.param([ONE.to(torch.float64)], id="another type"),
        pytest.param([ONE, ONE], id="one more"),
        pytest.param([ONE, None], id="an input that is none"),
        pytest.param([torch.stack([ONE, ONE], 1)[:, 0]], id="another layout, in which sums may differ"),
    ],
)
def test_batches_that_differ_have_other_digests(other: list[object]) -> None:
    assert batch_digest(other) != batch_digest([ONE])


def test_equal_batches_have_one_digest_wherever_they_lie() -> None:
    assert batch_digest([ONE.clone()]) == batch_digest([torch.arange(12.0)[:6]])
