"""A batch: answers in any order, results in index order, shares put together in theirs."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from quantuner.api.trial import TrialResult
from quantuner.distributed.batch import Batch
from quantuner.distributed.protocol import Task, Work


def result(index: int) -> TrialResult:
    return TrialResult(accuracy=float(index))


def combine(payload: Any, shares: Sequence[Any]) -> TrialResult:
    return TrialResult(accuracy=1.0, objectives={f"{payload}:{','.join(shares)}": 1.0})


def batch(*payloads: str, first: int = 5, work: Work | None = None) -> Batch:
    return Batch(first, payloads, work, next=first)


def taken(one: Batch) -> list[int]:
    return [index for index, _, _ in iter(one.take, None)]


@pytest.mark.parametrize("order", list(itertools.permutations([5, 6, 7])))
def test_results_come_in_index_order_as_soon_as_they_can(order: tuple[int, ...]) -> None:
    one = batch("a", "b", "c")
    told = []
    for count, index in enumerate(order, 1):
        one.answer(index, result(index), rank=index * 10)
        told += list(iter(one.take, None))
        known = set(order[:count])
        assert [t[0] for t in told] == list(itertools.takewhile(known.__contains__, [5, 6, 7]))
        assert one.complete == (count == 3)
    assert told == [(index, result(index), index * 10) for index in (5, 6, 7)]


def test_a_payload_is_found_by_its_trials_number() -> None:
    one = batch("a", "b", "c")
    assert [one.payload(index) for index in (5, 6, 7)] == ["a", "b", "c"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_shares_are_put_together_in_order_with_the_last_one(order: tuple[int, ...]) -> None:
    one = batch("a", "b", work=Work(lambda _: result(0), 3, combine=combine))
    for count, part in enumerate(order):
        assert taken(one) == []
        one.share(Task(5, part, 3), f"share{part}", rank=count)
    assert one.take() == (5, combine("a", ["share0", "share1", "share2"]), 2)


def test_two_trials_shares_are_kept_apart() -> None:
    one = batch("a", "b", work=Work(lambda _: result(0), 2, combine=combine))
    one.share(Task(5, 0, 2), "a0", rank=1)
    one.share(Task(6, 1, 2), "b1", rank=2)
    assert taken(one) == []
    one.share(Task(6, 0, 2), "b0", rank=1)
    one.share(Task(5, 1, 2), "a1", rank=2)
    assert [one.take(), one.take()] == [(5, combine("a", ["a0", "a1"]), 2), (6, combine("b", ["b0", "b1"]), 1)]


def test_forgotten_shares_do_not_count() -> None:
    one = batch("a", work=Work(lambda _: result(0), 2, combine=combine))
    one.share(Task(5, 0, 2), "old", rank=1)
    one.forget_shares(5)
    one.share(Task(5, 1, 2), "1", rank=1)
    assert one.take() is None
    one.answer(5, result(5), rank=3)  # whole, in place of its shares
    assert one.take() == (5, result(5), 3)


def test_a_share_that_nobody_can_put_together_is_an_error() -> None:
    with pytest.raises(TypeError, match="nobody knows how to put shares together"):
        batch("a").share(Task(5, 0, 2), "value", rank=1)


def test_what_waits_for_earlier_ones_is_named_once() -> None:
    one = batch("a", "b", "c", "d")
    one.answer(7, result(7), rank=1)
    one.answer(5, result(5), rank=2)
    assert taken(one) == [5]
    assert one.waiting() == {7: (result(7), 1)}
    assert one.waiting() == {}
    one.answer(8, result(8), rank=2)
    assert one.waiting() == {8: (result(8), 2)}
    one.answer(6, result(6), rank=1)
    assert taken(one) == [6, 7, 8]
    assert one.waiting() == {}


def test_what_is_known_beforehand_is_told_and_does_not_wait() -> None:
    one = Batch(5, ["a", "b"], None, next=5, answered={5: (result(5), 3)})
    assert one.waiting() == {}
    assert one.take() == (5, result(5), 3)
