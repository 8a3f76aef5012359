"""Who evaluates what. Each test arranges ranks and times by hand; the last draws what happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quantuner.distributed.dispatch import Dispatcher
from quantuner.distributed.hands import Orders
from quantuner.distributed.protocol import Known, Limits, Pace, Task

SECOND = Limits(known=(1.0,))
"""Trials take a second: give up after 60 + 5 s, take over after 2.01 s."""


def dispatcher(
    ranks: int, trials: int = 0, limits: Limits = SECOND, shares: int = 1, blame: Mapping[int, int] | None = None
) -> Dispatcher:
    made = Dispatcher(range(1, ranks + 1), limits, lambda _: shares, blame)
    if trials:
        made.offer(range(1, trials + 1))
    return made


def trial(index: int, batch: int = 1) -> Task:
    return Task(index, batch=batch)


def given_out(orders: Orders) -> dict[int, list[int]]:
    return {rank: [task.index for task in tasks] for rank, tasks in orders.assigned.items() if tasks}


def taken_back(orders: Orders) -> dict[int, list[int]]:
    return {rank: [task.index for task in tasks] for rank, tasks in orders.cancelled.items() if tasks}


# --- who is given what


def test_idle_ranks_are_given_the_lowest_trials_first() -> None:
    assert given_out(dispatcher(3, 3).plan(0.0)) == {1: [1], 2: [2], 3: [3]}


def test_work_ahead_comes_after_every_rank_has_something_and_each_in_turn() -> None:
    assert given_out(dispatcher(3, 100).plan(0.0)) == {1: [1, 4], 2: [2, 5], 3: [3, 6]}


@pytest.mark.parametrize(
    ("seconds", "each"),
    [
        (1.0, 2),  # one ahead, however slow trials are
        (0.01, 2),
        (0.0025, 5),  # 0.01 s of work ahead
        (0.0, 8),  # `most`
    ],
)
def test_as_much_is_held_as_keeps_a_rank_busy_for_a_while(seconds: float, each: int) -> None:
    orders = dispatcher(2, 1000, Limits(known=(seconds,), most=8)).plan(0.0)
    assert {rank: len(tasks) for rank, tasks in orders.assigned.items()} == {1: each, 2: each}


def test_the_last_trials_are_not_hoarded() -> None:
    d = dispatcher(2, 64, Limits(known=(0.0,)))
    for rank in [1] + [2] * 60:
        d._give(rank, d._waiting.pop(0), 0.0, Orders())
    assert len(d.plan(0.0).assigned[1]) == 2  # its half of what waits, and the one that it has
    assert len(d._waiting) == 1


def test_a_rank_is_supplied_again_when_half_of_its_work_is_done() -> None:
    d = dispatcher(1, 1000, Limits(known=(0.0025,)))
    first = d.plan(0.0).assigned[1]
    assert len(first) == 5
    counts = []
    for task in first[:3]:
        d.answered(1, task, 0.0, 0.0025)
        counts.append(len(d.plan(0.0).assigned.get(1, [])))
    assert counts == [0, 0, 3]


def test_nothing_is_given_out_twice_and_nothing_is_left() -> None:
    d = dispatcher(3, 50)
    done: Counter[int] = Counter()
    while (orders := d.plan(0.0)).assigned:
        for rank, tasks in orders.assigned.items():
            for task in tasks:
                done[task.index] += 1
                assert d.answered(rank, task, 0.0, 1.0) is not None
    assert done == Counter(range(1, 51))
    assert d.running == 0


# --- shares


def parts_of(orders: Orders) -> list[tuple[int, int, int]]:
    return sorted((task.index, task.part, task.parts) for tasks in orders.assigned.values() for task in tasks)


@pytest.mark.parametrize(
    ("ranks", "trials", "shares", "expected"),
    [
        (4, 1, 8, {1: 4}),
        (4, 1, 3, {1: 3}),  # no more than it has
        (7, 3, 8, {1: 2, 2: 2, 3: 2}),
        (4, 3, 8, {1: 1, 2: 1, 3: 1}),  # not enough ranks for two each
        (4, 2, 1, {1: 1, 2: 1}),
    ],
)
def test_few_trials_are_divided_among_idle_ranks(
    ranks: int, trials: int, shares: int, expected: dict[int, int]
) -> None:
    orders = dispatcher(ranks, trials, shares=shares).plan(0.0)
    wanted = [(index, part, parts) for index, parts in expected.items() for part in range(parts)]
    assert parts_of(orders) == wanted
    assert all(len(tasks) == 1 for tasks in orders.assigned.values())


def test_a_trial_whose_share_failed_goes_whole_and_its_shares_come_too_late() -> None:
    d = dispatcher(2, 1, shares=2)
    d.plan(0.0)
    assert d.answered(1, Task(1, 0, 2, 1), 0.0) is not None
    assert taken_back(d.whole(1, 0.0)) == {2: [1]}
    assert d.answered(2, Task(1, 1, 2, 1), 0.0) is None
    assert parts_of(d.plan(0.0)) == [(1, 0, 1)]


def test_a_trial_that_may_end_a_rank_is_not_divided() -> None:
    assert parts_of(dispatcher(4, 1, shares=4, blame={1: 1}).plan(0.0)) == [(1, 0, 1)]


# --- taking over


def loaded(ranks: int, trials: int, seconds: float) -> Dispatcher:
    """Rank 1 holds all trials, as it was alone when they were given out; the others are idle."""
    d = Dispatcher([1], Limits(known=(seconds,), ahead=1e6, least=1e9))
    d.offer(range(1, trials + 1))
    d.plan(0.0)
    for rank in range(2, ranks + 1):
        d._ranks[rank] = type(d._ranks[1])()
    d.limits = Limits(known=(seconds,))
    return d


def test_an_idle_rank_takes_half_of_what_the_richest_has_not_begun() -> None:
    d = loaded(2, 6, seconds=1.0)
    orders = d.plan(0.0)
    assert taken_back(orders) == {1: [4, 5, 6]}
    assert given_out(orders) == {2: [4, 5, 6]}


def test_several_idle_ranks_share_what_is_not_begun() -> None:
    d = loaded(4, 9, seconds=1.0)
    orders = d.plan(0.0)
    assert {rank: len(held.tasks) for rank, held in d._ranks.items()} == {1: 3, 2: 2, 3: 2, 4: 2}
    assert 1 not in orders.assigned


def test_what_is_done_sooner_than_a_message_comes_is_left_where_it_is() -> None:
    assert not loaded(2, 4, seconds=0.001).plan(0.0).assigned


def test_what_is_begun_is_not_taken() -> None:
    assert not loaded(2, 1, seconds=1.0).plan(0.0).assigned


def test_a_slow_trial_is_given_to_a_second_rank_and_to_no_third() -> None:
    d = dispatcher(3, 1)
    d.plan(0.0)
    assert not d.plan(2.0).assigned
    assert d.wake() == pytest.approx(2.01)
    assert given_out(d.plan(2.01)) == {2: [1]}
    assert not d.plan(30.0).assigned
    assert d.holders(trial(1)) == 2


def test_the_trial_that_runs_longest_is_duplicated_first() -> None:
    d = dispatcher(3, 2)
    d.plan(0.0)
    d._ranks[1].since = 1.0
    assert given_out(d.plan(10.0)) == {3: [2]}


def test_the_first_result_counts_and_the_other_rank_may_stop() -> None:
    d = dispatcher(2, 1)
    d.plan(0.0)
    d.plan(3.0)
    orders = d.answered(2, trial(1), 4.0, 1.0)
    assert orders is not None
    assert taken_back(orders) == {1: [1]}
    assert d.answered(1, trial(1), 4.0, 4.0) is None
    assert d.running == 0


def test_what_follows_a_trial_that_was_taken_back_has_its_whole_time() -> None:
    d = dispatcher(2, 1)
    d.plan(0.0)
    d.plan(3.0)  # rank 2 has it too
    d.offer([2, 3])
    d.plan(3.0)  # and more behind it
    assert [task.index for task in d._ranks[1].tasks] == [1, 2]
    d.answered(2, trial(1), 50.0, 1.0)
    assert d.overdue(64.0) == {}
    d.left(1, trial(1), 64.0)
    assert d.overdue(66.0) == {}
    assert d.overdue(64.0 + 65.0) == {1: 60.0, 2: 60.0}


def told_to_leave(*kinds: str) -> Dispatcher:
    """Rank 1 was told to leave trial 1, of the first kind, which it had begun at 0 s; the trial after is in the next
    batch. What trains takes 1,000 s, all else one."""
    d = Dispatcher([1, 2, 3], Limits(), kind=lambda index: kinds[index - 1])
    d.expect(Known(1.0, {"": [1.0], "trains": [1000.0]}))
    d.offer([1])
    d.plan(0.0)
    d.forget_all()
    d.offer([2])
    return d


def test_a_rank_is_given_nothing_before_it_has_left_what_it_was_told_to() -> None:
    d = told_to_leave("", "")
    assert given_out(d.plan(1.0)) == {2: [2]}
    d.answered(2, trial(2, batch=2), 2.0, 1.0)
    d.left(1, trial(1), 2.0)
    d.offer([3, 4, 5])
    assert set(given_out(d.plan(2.0))) == {1, 2, 3}


def test_a_rank_that_is_deep_in_what_it_was_told_to_leave_has_that_trials_time() -> None:
    """Training is not left before it ends, and the quick trial after it would be over in a second."""
    d = told_to_leave("trains", "")
    d.plan(1.0)
    d.answered(2, trial(2, batch=2), 2.0, 1.0)
    assert d.overdue(10_004.0) == {}
    assert d.wake() == 10_005.0
    assert d.overdue(10_005.0) == {1: 10_000.0}


def test_a_rank_that_never_answers_is_given_up_however_often_others_take_over() -> None:
    d = dispatcher(2, 1)
    d.plan(0.0)
    for index in range(1, 26):
        d.plan(3.0 * index)
        d.answered(2, trial(index, index), 3.0 * index, 1.0)
        d.forget_all()
        d.offer([index + 1])
        assert d.overdue(3.0 * index) == ({} if 3.0 * index < 65.0 else {1: 60.0})


def test_no_trial_is_blamed_for_a_rank_that_had_not_left_another() -> None:
    d = dispatcher(2, 2)
    d.plan(0.0)
    d._ranks[1].tasks.append(trial(3))  # as one that is given ahead
    d._open.add(trial(3))
    d._holders[trial(3)].add(1)
    d.forget(1, 1.0)
    assert d.lost(1, 2.0) == (None, False, Orders())
    assert d.blame(3) == 0
    d.answered(2, trial(2), 3.0, 1.0)
    assert given_out(d.plan(3.0)) == {2: [3]}


def test_a_rank_may_have_two_trials_to_leave() -> None:
    d = dispatcher(1, 2)
    d.plan(0.0)
    d.forget(1, 1.0)
    d.forget(2, 1.0)
    d.offer([3])
    d.left(1, trial(1), 5.0)
    assert not d.plan(5.0).assigned
    assert d.overdue(69.0) == {}
    d.left(1, trial(2), 70.0)
    assert given_out(d.plan(70.0)) == {1: [3]}


def test_a_trial_that_may_end_a_rank_is_never_duplicated() -> None:
    d = dispatcher(3, 1, blame={1: 1})
    d.plan(0.0)
    assert not d.plan(30.0).assigned


# --- time


@pytest.mark.parametrize(("known", "deadline"), [((), None), ((1.0,), 60.0), ((20.0, 1.0, 9.0), 200.0)])
def test_a_trial_is_given_up_after_ten_times_the_longest_or_a_minute(
    known: tuple[float, ...], deadline: float | None
) -> None:
    assert dispatcher(1, 1, Limits(known=known)).deadline(1) == deadline


def test_a_rank_is_given_up_a_grace_after_the_deadline_of_what_it_has_begun() -> None:
    d = dispatcher(2, 4)
    d.plan(0.0)
    d.answered(1, trial(1), 50.0, 1.0)
    assert d.overdue(64.9) == {}
    assert d.overdue(65.0) == {2: 60.0}
    assert d.overdue(115.0) == {1: 60.0, 2: 60.0}


def test_time_in_which_the_master_was_away_counts_for_no_rank() -> None:
    d = dispatcher(2, 1)
    d.plan(100.0)
    d.offer([2])
    d.plan(130.0)
    d.excuse(40.0, 150.0)
    assert d.overdue(204.9) == {}
    assert d.overdue(205.0) == {1: 60.0}  # as if it had begun at 140
    assert d.overdue(214.9) == {1: 60.0}
    assert d.overdue(215.0) == {1: 60.0, 2: 60.0}  # nobody begins later than now


@pytest.mark.parametrize(
    ("excuse", "blame"),
    [
        pytest.param((40.0, 150.0), 0.5, id="held up"),
        pytest.param((0.0, 150.0), 1, id="not held up"),
    ],
)
def test_a_rank_that_is_lost_after_the_master_was_away_counts_half(excuse: tuple[float, float], blame: float) -> None:
    """What is frozen with its master finds its own time over when it goes on."""
    d = dispatcher(2, 2)
    d.plan(100.0)
    d.begins(1, trial(1), 100.0)
    d.excuse(*excuse)
    at, failed, _ = d.lost(1, 150.0)
    assert (at, failed, d.blame(1)) == (trial(1), False, blame)
    d.answered(2, trial(2), 151.0)
    d.plan(151.0)
    d.begins(2, trial(1), 151.0)  # it was given after that
    d.lost(2, 152.0)
    assert d.blame(1) == blame + 1


def test_a_master_that_waited_for_as_long_as_it_takes_was_not_away() -> None:
    d = dispatcher(1, 1)
    d.plan(100.0)
    d.begins(1, trial(1), 100.0)
    d.excuse(40.0, 150.0, certain=False)
    d.lost(1, 150.0)
    assert d.blame(1) == 1


def test_without_a_known_trial_nobody_is_given_up() -> None:
    d = dispatcher(2, 1, Limits())
    d.plan(0.0)
    assert d.wake() is None
    assert d.overdue(1e9) == {}


def test_the_baseline_gives_the_first_trials_a_deadline_and_does_not_make_them_slow() -> None:
    d = dispatcher(2, 1, Limits())
    d.expect(Known(baseline=8.0))
    d.plan(0.0)
    assert d.wake() == 85.0  # given up, and not given to the idle rank before
    assert not d.plan(84.0).assigned
    assert d.overdue(85.0) == {1: 80.0}


def test_what_was_told_before_is_known() -> None:
    d = dispatcher(2, 1, Limits())
    d.expect(Known(8.0, {"": [10.0, 30.0, 20.0]}))
    d.plan(0.0)
    assert d.deadline(1) == 300.0
    assert d.wake() == pytest.approx(40.01)


def test_seconds_are_learned_from_what_is_answered() -> None:
    d = dispatcher(1, 5, Limits())
    for seconds in (10.0, 20.0, 12.0):
        [task, *_] = [*d.plan(0.0).assigned[1]]
        d.answered(1, d._ranks[1].tasks[0], 0.0, seconds)
    assert d.deadline(5) == 200.0
    assert task.index == 4


def test_trials_that_did_not_run_to_their_end_do_not_shorten_the_deadline() -> None:
    """A baseline of 1000 s, 20 trials abandoned after 20 s: the first good one needs its 1000 s."""
    d = dispatcher(2, 30, Limits())
    d.expect(Known(baseline=1000.0))
    d.plan(0.0)
    for index in range(1, 21):
        rank = 1 if d._ranks[1].tasks[0] == trial(index) else 2
        d.answered(rank, trial(index), 20.0 * index, 20.0, whole=False)
        d.plan(20.0 * index)
    assert d.deadline(21) == 10_000.0
    assert d.overdue(400.0 + 9_000.0) == {}


def test_a_kind_of_trials_has_no_deadline_before_one_of_it_ran_to_its_end() -> None:
    """One that trains, beside those that do what the baseline does; whatever these took."""
    d = Dispatcher([1, 2, 3], Limits(), kind=lambda index: "trains" if index > 1 else "")
    d.expect(Known(5.0, {"": [5.0]}))
    d.offer([1, 2, 3])
    d.plan(0.0)
    assert d.overdue(65.0) == {1: 60.0}
    d.answered(1, trial(1), 10.0, 10.0)
    assert d.wake() is None  # the idle rank does not know whether the others are slow
    assert d.overdue(1e9) == {}
    d.answered(2, trial(2), 1000.0, 1000.0, whole=False)
    assert d.overdue(1e9) == {}
    d.offer([2])
    d.plan(1000.0)
    d.answered(1, trial(2, batch=2), 2000.0, 1000.0)
    assert d.overdue(10_005.0) == {3: 10_000.0}
    assert d.paces == {"": Pace(7.5, 100.0), "trains": Pace(1000.0, 10_000.0)}


# --- losses


def test_what_a_lost_rank_had_goes_to_others_and_each_alone() -> None:
    d = dispatcher(2, 4)
    d.plan(0.0)
    d.begins(1, trial(1), 0.0)
    assert d.lost(1, 1.0) == (trial(1), False, Orders())
    assert d.blame(1) == 1
    assert d.blame(3) == 0
    assert d.is_alone(trial(1))
    assert d.is_alone(trial(3))
    assert not d.is_alone(trial(2))
    given = []
    while d._ranks[2].tasks:
        assert not (len(d._ranks[2].tasks) > 1 and d.is_alone(d._ranks[2].tasks[0])), "something is behind it"
        given.append(d._ranks[2].tasks[0].index)
        d.answered(2, d._ranks[2].tasks[0], 1.0, 1.0)
        d.plan(1.0)
    assert given == [2, 4, 1, 3]


def test_a_trial_fails_with_the_second_rank_lost_while_it_is_alone() -> None:
    d = dispatcher(3, 1)
    d.plan(0.0)
    d.begins(1, trial(1), 0.0)
    assert d.lost(1, 0.0) == (trial(1), False, Orders())
    d.plan(0.0)
    d.begins(2, trial(1), 0.0)
    task, failed, _ = d.lost(2, 0.0)
    assert (task, failed) == (trial(1), True)
    assert not d.plan(0.0).assigned
    assert d.blame(1) == 2


def test_a_loss_that_counts_half_needs_another_one() -> None:
    d = dispatcher(4, 1)
    for rank, weight, fails in ((1, 0.5, False), (2, 1, False), (3, 0.5, True)):
        d.plan(0.0)
        d.begins(rank, trial(1), 0.0)
        assert d.lost(rank, 0.0, weight)[1] == fails
    assert d.blame(1) == 2


def test_a_trial_is_not_blamed_for_ranks_that_never_said_that_they_began_it() -> None:
    """They may have been lost before it came to them, or behind another, whose answer was lost with them."""
    d = dispatcher(4, 1)
    for rank in (1, 2, 3):
        d.plan(0.0)
        d.begins(rank, trial(9), 0.0)
        assert d.lost(rank, 0.0) == (trial(1), False, Orders())
    assert d.blame(1) == 0
    assert d.is_alone(trial(1))
    assert given_out(d.plan(0.0)) == {4: [1]}


def test_a_ranks_time_runs_from_when_it_began() -> None:
    d = dispatcher(2, 1)
    d.plan(0.0)
    d.begins(1, trial(1), 30.0)
    assert d.overdue(94.0) == {}
    assert d.overdue(95.0) == {1: 60.0}


def test_losses_of_earlier_launches_count() -> None:
    d = dispatcher(2, 1, blame={1: 1})
    d.plan(0.0)
    d.begins(1, trial(1), 0.0)
    assert d.lost(1, 0.0)[1]


def test_a_trial_that_was_only_behind_the_first_is_not_blamed_for_it() -> None:
    d = dispatcher(1, 2)
    d._ranks[2] = type(d._ranks[1])()
    d._ranks[3] = type(d._ranks[1])()
    d._ranks[1].tasks.clear()
    for index in (1, 2):
        task = d._waiting.pop(0)
        assert task.index == index
        d._give(1, task, 0.0, Orders())
    d.lost(1, 0.0)
    d.plan(0.0)
    assert [task.index for task in d._ranks[3].tasks] == [2]
    assert d.lost(3, 0.0) == (trial(2), False, Orders())  # alone, and its first


def test_a_duplicate_is_not_given_out_again_for_the_loss_of_one_of_its_ranks() -> None:
    d = dispatcher(3, 1)
    d.plan(0.0)
    d.plan(3.0)
    d.lost(1, 4.0)
    assert not d.plan(4.0).assigned
    assert d.holders(trial(1)) == 1


def test_a_failed_trial_is_taken_from_whoever_else_has_it() -> None:
    d = dispatcher(3, 1, shares=2)
    d.plan(0.0)
    d._blame[1], d._alone = 1, {1}
    d.begins(1, d._ranks[1].tasks[0], 0.0)
    _, failed, orders = d.lost(1, 0.0)
    assert failed
    assert taken_back(orders) == {2: [1]}


@pytest.mark.parametrize("rank", [1, 9])
def test_nothing_is_blamed_for_a_rank_that_had_nothing_or_is_not_there(rank: int) -> None:
    d = dispatcher(2)
    assert d.lost(rank, 0.0) == (None, False, Orders())


def test_a_decided_batch_is_taken_back_and_its_late_answers_do_not_count() -> None:
    d = dispatcher(2, 3)
    d.plan(0.0)
    assert taken_back(d.forget_all()) == {1: [1, 3], 2: [2]}
    d.offer([1, 2])  # the numbers of what was forgotten are given again
    d.plan(0.0)
    assert d.answered(1, trial(1, batch=1), 0.0, 1.0) is None
    assert d.answered(1, trial(1, batch=2), 0.0, 1.0) is not None


# --- whatever happens

SECONDS = st.sampled_from([0.0, 0.001, 0.02, 1.0, 5.0])


class Events(RuleBasedStateMachine):
    """A master's calls in any order that its messages can have."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.next = 1
        self.results: Counter[int] = Counter()
        self.d = Dispatcher(range(1, 6), Limits(known=(0.02,)), shares=lambda _: 3)
        self.sent: list[tuple[int, Task]] = []
        """What ranks were given and have not answered; taken back or not."""
        self.parts: dict[int, set[int]] = {}

    def planned(self) -> None:
        orders = self.d.plan(self.now)
        self.sent += [(rank, task) for rank, tasks in orders.assigned.items() for task in tasks]

    @rule(count=st.integers(1, 12))
    def offer(self, count: int) -> None:
        if self.d._open or not self.d.ranks:  # one batch at a time
            return
        self.d.offer(range(self.next, self.next + count))
        self.next += count
        self.planned()

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), seconds=SECONDS)
    def answer(self, data: st.DataObject, seconds: float) -> None:
        rank, task = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
        self.now += seconds
        counts = self.d.answered(rank, task, self.now, seconds if task.parts == 1 else None) is not None
        if counts and task.parts == 1:
            self.results[task.index] += 1
        elif counts:
            self.parts.setdefault(task.index, set()).add(task.part)
            if len(self.parts[task.index]) == task.parts:
                self.results[task.index] += 1
        self.planned()

    @precondition(lambda self: any(task.parts > 1 and task in self.d._open for _, task in self.sent))
    @rule()
    def share_fails(self) -> None:
        rank, task = next((r, t) for r, t in self.sent if t.parts > 1 and t in self.d._open)
        assert self.d.answered(rank, task, self.now) is not None
        self.d.whole(task.index, self.now)
        self.parts.pop(task.index, None)
        self.planned()

    @precondition(lambda self: any(one.tasks for one in self.d._ranks.values()))
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        rank = data.draw(st.sampled_from([rank for rank, one in self.d._ranks.items() if one.tasks]))
        self.d.begins(rank, self.d._ranks[rank].tasks[0], self.now)

    @precondition(lambda self: len(self.d.ranks) > 1)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        rank = data.draw(st.sampled_from(self.d.ranks))
        blamed, failed, _ = self.d.lost(rank, self.now)
        self.sent = [(r, task) for r, task in self.sent if r != rank]
        if failed and blamed is not None:
            self.results[blamed.index] += 1
        self.planned()

    @precondition(lambda self: self.d.wake() is not None)
    @rule()
    def sleep(self) -> None:
        due = self.d.wake()
        assert due is not None
        self.now = max(self.now, due)
        late = self.d.overdue(self.now)
        for rank in late:
            blamed, failed, _ = self.d.lost(rank, self.now)
            self.sent = [(r, task) for r, task in self.sent if r != rank]
            if failed and blamed is not None:
                self.results[blamed.index] += 1
        orders = self.d.plan(self.now)
        self.sent += [(rank, task) for rank, tasks in orders.assigned.items() for task in tasks]
        assert late or any(orders.assigned.values()), "it woke for nothing, and would again"

    @rule()
    def decide(self) -> None:
        self.d.forget_all()
        for index in range(1, self.next):
            self.results[index] = 1
        self.parts.clear()

    @invariant()
    def every_open_task_is_held_or_waits(self) -> None:
        waiting = Counter(self.d._waiting)
        held = Counter(task for one in self.d._ranks.values() for task in one.tasks)
        assert set(waiting) | set(held) == self.d._open
        assert not set(waiting) & set(held)
        assert all(count == 1 for count in waiting.values())
        assert all(count <= 2 for count in held.values())
        assert {task: self.d.holders(task) for task in self.d._open} == {task: held[task] for task in self.d._open}
        assert set(self.d._holders) == set(held)

    @invariant()
    def every_trial_has_one_result_or_is_open(self) -> None:
        unfinished = {task.index for task in self.d._open}
        for index in range(1, self.next):
            assert self.results[index] == (0 if index in unfinished else 1), f"trial {index}"

    @invariant()
    def nobody_waits_while_somebody_is_idle(self) -> None:
        idle = any(one.idle for one in self.d._ranks.values())
        assert not (idle and self.d._waiting)

    @invariant()
    def whoever_has_something_to_leave_still_owes_an_answer(self) -> None:
        assert {(r, one.leaving) for r, one in self.d._ranks.items() if one.leaving} <= set(self.sent)

    @invariant()
    def a_rank_was_sent_what_it_is_thought_to_have(self) -> None:
        sent = set(self.sent)
        for rank, one in self.d._ranks.items():
            assert len(set(one.tasks)) == len(one.tasks)
            assert {(rank, task) for task in one.tasks} <= sent
            assert one.since <= self.now


Events.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestEvents = Events.TestCase


def spread(held: Iterable[int]) -> int:
    counts = list(held)
    return max(counts) - min(counts)


@given(ranks=st.integers(1, 8), trials=st.integers(1, 200), seconds=st.sampled_from([0.0, 0.0005, 0.003, 1.0]))
def test_a_first_plan_is_fair_and_bounded(ranks: int, trials: int, seconds: float) -> None:
    d = dispatcher(ranks, trials, Limits(known=(seconds,), most=16))
    d.plan(0.0)
    held = [len(one.tasks) for one in d._ranks.values()]
    assert spread(held) <= 1
    assert max(held) <= 16
    assert sum(held) == trials or min(held) >= 1


def test_a_divided_trial_took_what_its_shares_took_together() -> None:
    """A search that divides every trial knows so, too, when a rank is stuck."""
    d = dispatcher(2, 1, Limits(least=0.0, patience=10.0), shares=2)
    orders = d.plan(0.0)
    [[one], [other]] = [orders.assigned[rank] for rank in (1, 2)]
    d.answered(1, one, now=2.0, seconds=2.0)
    assert d.deadline(1) is None
    d.answered(2, other, now=3.0, seconds=3.0)
    assert d.deadline(1) == 10.0 * (2.0 + 3.0)
