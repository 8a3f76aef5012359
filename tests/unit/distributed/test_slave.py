"""A slave's loop, alone: its master is a list of messages, its clock set by hand."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from quantuner.api.trial import TrialResult
from quantuner.distributed.communicator import ANY
from quantuner.distributed.differences import Reference
from quantuner.distributed.protocol import (
    Abandoned,
    Answer,
    Assign,
    Base,
    Begins,
    Cancel,
    Done,
    End,
    Failed,
    Job,
    Left,
    Pace,
    Task,
    Work,
)
from quantuner.distributed.slave import HELD_SECONDS, Slave

BASE = {"index": 0}
EPOCH = 9
QUICK = {"": Pace(HELD_SECONDS / 2, 60.0)}
"""Trials are known to be so quick that their answers wait for each other."""


@dataclass
class Scripted:
    """A world whose master has said all already; what it says later is put there by an evaluation."""

    inbox: deque[Any]
    rank: int = 1
    size: int = 2
    evaluators: Sequence[int] = (1,)
    given_up: set[int] = field(default_factory=set)
    time: float = 0.0
    sent: list[Any] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def send(self, message: Any, to: int) -> None:
        assert to == 0
        self.sent.append(message)

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        assert self.inbox, "it waits for a message that never comes"
        return self.pending(source)

    def pending(self, source: int = ANY) -> tuple[int, Any] | None:
        return (0, self.inbox.popleft()) if self.inbox else None

    @property
    def messages(self) -> list[list[Answer]]:
        """Answers as they were sent together."""
        return [list(message.answers) for message in self.done]

    @property
    def done(self) -> list[Done]:
        done = [message for message in self.sent if isinstance(message, Done)]
        assert all(message.epoch == EPOCH for message in done)
        return done

    @property
    def answers(self) -> dict[Task, Any]:
        return {answer.task: answer.value for message in self.messages for answer in message}

    @property
    def together(self) -> list[list[int]]:
        return [[answer.task.index for answer in message] for message in self.messages]


def job(task: int | Task, alone: bool = False) -> Job:
    of = task if isinstance(task, Task) else Task(task)
    return Job(of, Reference(BASE).difference({"index": of.index}), alone)


def world(*messages: Any) -> Scripted:
    return Scripted(deque([Base(EPOCH, BASE), *messages]))


def result(index: int) -> TrialResult:
    return TrialResult(accuracy=float(index))


@dataclass
class Evaluation:
    """Takes `seconds` a trial and calls `check` in its middle; `during` is what the master says in that trial."""

    comm: Scripted
    seconds: float = 1.0
    during: dict[int, list[Any]] = field(default_factory=dict)
    begun: list[int] = field(default_factory=list)
    check: Callable[[], None] | None = None

    def __call__(self, payload: Any) -> TrialResult:
        index = payload["index"]
        self.begun.append(index)
        self.comm.time += self.seconds / 2
        self.comm.inbox.extend(self.during.pop(index, []))
        if self.check is not None:
            self.check()
        self.comm.time += self.seconds / 2
        return result(index)

    def run(self, work: Work | None = None) -> int:
        slave = Slave(self.comm, work or self)
        self.check = slave.check
        return slave.run()


def test_it_evaluates_what_it_has_in_order_and_leaves_at_the_end() -> None:
    comm = world(Assign((job(1), job(2))), Assign((job(3),)))
    evaluation = Evaluation(comm, during={3: [End(EPOCH)]})
    assert evaluation.run() == 2
    assert evaluation.begun == [1, 2, 3]
    assert comm.answers == {Task(1): result(1), Task(2): result(2), Task(3): Abandoned()}
    assert comm.sent[-1] == Left(EPOCH)


def ending(comm: Scripted, last: int) -> Evaluation:
    """Its master ends it after trial `last`, which is measured to its end."""
    evaluation = Evaluation(comm)
    send = comm.send

    def sent(message: Any, to: int) -> None:
        send(message, to)
        if isinstance(message, Done) and message.answers[-1].task.index == last:
            comm.inbox.append(End(EPOCH))

    comm.send = sent  # type: ignore[method-assign]
    return evaluation


def test_a_trial_that_is_cancelled_before_it_begins_is_left_out_and_answered_in_its_turn() -> None:
    comm = world(Assign((job(1), job(2), job(3))), Cancel((Task(2),)))
    evaluation = ending(comm, last=3)
    assert evaluation.run() == 2
    assert evaluation.begun == [1, 3]
    assert comm.answers == {Task(1): result(1), Task(2): Abandoned(begun=False), Task(3): result(3)}
    assert [answer.task.index for message in comm.messages for answer in message] == [1, 2, 3]


def test_an_idle_rank_answers_what_was_cancelled_before_it_began() -> None:
    comm = world(Assign((job(1),)), Cancel((Task(1),)))
    slave = Slave(comm, lambda _: result(1))
    with pytest.raises(AssertionError, match="never comes"):
        slave.run()
    assert comm.answers == {Task(1): Abandoned(begun=False)}


def test_a_trial_that_is_cancelled_while_it_runs_is_broken_off() -> None:
    comm = world(Assign((job(1), job(2))))
    evaluation = ending(comm, last=2)
    evaluation.during = {1: [Cancel((Task(1),))]}
    assert evaluation.run() == 1
    assert comm.answers == {Task(1): Abandoned(), Task(2): result(2)}
    assert comm.messages[0][0].seconds == 0.5


def test_a_cancelled_trial_that_is_given_again_at_once_is_evaluated() -> None:
    comm = world(Assign((job(1),)))
    evaluation = ending(comm, last=2)
    evaluation.during = {1: [Cancel((Task(1),)), Assign((job(1), job(2)))]}
    assert evaluation.run() == 2
    assert evaluation.begun == [1, 1, 2]
    assert [answer.value for message in comm.messages for answer in message] == [Abandoned(), result(1), result(2)]


def test_another_trials_cancelling_does_not_break_off_the_present_one() -> None:
    comm = world(Assign((job(1), job(2))))
    evaluation = ending(comm, last=1)
    evaluation.during = {1: [Cancel((Task(2), Task(1, batch=7)))]}
    assert evaluation.run() == 1
    assert comm.answers[Task(1)] == result(1)


def test_breaking_off_passes_through_an_evaluation_that_catches_every_exception() -> None:
    comm = world(Assign((job(1),)))
    evaluation = Evaluation(comm, during={1: [Cancel((Task(1),)), Assign((job(2),))], 2: [End(EPOCH)]})

    def careful(payload: Any) -> TrialResult:
        try:
            return evaluation(payload)
        except Exception as error:
            return TrialResult(accuracy=None, error=str(error))

    assert evaluation.run(Work(careful)) == 0
    assert comm.answers == {Task(1): Abandoned(), Task(2): Abandoned()}


def test_what_an_evaluation_makes_of_a_broken_off_trial_is_no_result() -> None:
    """A bare `except` catches even that; another rank may have the trial, whose result must be the only one."""
    comm = world(Assign((job(1), job(2))))
    evaluation = ending(comm, last=2)
    evaluation.during = {1: [Cancel((Task(1),))]}

    def greedy(payload: Any) -> TrialResult:
        try:
            return evaluation(payload)
        except BaseException:
            return TrialResult(accuracy=0.0)

    assert evaluation.run(Work(greedy)) == 1
    assert comm.answers == {Task(1): Abandoned(), Task(2): result(2)}


def test_between_trials_there_is_nothing_to_break_off() -> None:
    comm = world(End(EPOCH))
    slave = Slave(comm, lambda _: result(0))
    slave.check()
    assert len(comm.inbox) == 2, "it listens inside a trial only"
    assert slave.run() == 0


# --- messages


def test_quick_trials_share_a_message() -> None:
    comm = world(Assign(tuple(job(index) for index in range(1, 11)), QUICK))
    evaluation = ending(comm, last=10)
    evaluation.seconds = HELD_SECONDS * 0.3
    assert evaluation.run() == 10
    assert len(comm.together) <= 4
    assert [index for message in comm.together for index in message] == list(range(1, 11))
    for message in comm.done:
        assert 0 <= message.sent - message.answers[0].ready <= HELD_SECONDS * 1.3


def test_among_quick_trials_the_master_is_heard_now_and_then() -> None:
    comm = world(Assign(tuple(job(index) for index in range(1, 21))))
    evaluation = ending(comm, last=20)
    evaluation.seconds = HELD_SECONDS * 0.3
    evaluation.during = {1: [Cancel((Task(2), Task(9)))]}
    asked: list[float] = []
    pending = comm.pending

    def counted(source: int = ANY) -> tuple[int, Any] | None:
        asked.append(comm.time)
        return pending(source)

    comm.pending = counted  # type: ignore[method-assign]

    def evaluate(payload: Any) -> TrialResult:  # one that is not left on the way
        evaluation.check = None
        return evaluation(payload)

    evaluation.run(Work(evaluate))
    assert evaluation.begun == [index for index in range(1, 21) if index != 9]
    assert len(asked) < 15
    assert max(later - sooner for sooner, later in itertools.pairwise(asked)) <= HELD_SECONDS * 1.3


def test_a_quick_trials_result_does_not_wait_for_a_slow_one_after_it() -> None:
    comm = world(Assign((job(1), job(2)), QUICK))
    seen: list[list[list[int]]] = []

    def evaluate(payload: Any) -> TrialResult:
        if payload["index"] == 1:
            return result(1)
        for _ in range(10):  # batches
            comm.time += 1.0
            slave.check()
            seen.append(comm.together)
        comm.inbox.append(End(EPOCH))
        return result(2)

    slave = Slave(comm, evaluate)
    slave.run()
    assert seen[0] == [[1]]
    assert (comm.done[0].answers[0].ready, comm.done[0].sent) == (0.0, 1.0)
    assert comm.together == [[1], [2]]


def test_before_a_trial_that_may_end_the_rank_all_results_are_sent() -> None:
    comm = world(Assign((job(1), job(2), job(3, alone=True)), QUICK))
    sent_before: list[list[list[int]]] = []

    def evaluate(payload: Any) -> TrialResult:
        sent_before.append(comm.together)
        if payload["index"] == 3:
            comm.inbox.append(End(EPOCH))
        return result(payload["index"])

    assert Slave(comm, evaluate).run() == 3
    assert sent_before == [[], [], [[1, 2]]]
    assert comm.together == [[1, 2], [3]]


@pytest.mark.parametrize("paces", [{"": Pace(HELD_SECONDS, 60.0)}, {}], ids=["known to be slow", "not known"])
def test_before_a_trial_that_may_take_long_all_results_are_sent(paces: dict[str, Pace]) -> None:
    """It may never call `check`: one that trains, or works on weights."""
    comm = world(Assign((job(1), job(2)), paces))
    sent_before: list[list[list[int]]] = []

    def evaluate(payload: Any) -> TrialResult:
        sent_before.append(comm.together)
        if payload["index"] == 2:
            comm.inbox.append(End(EPOCH))
        return result(payload["index"])

    assert Slave(comm, evaluate).run() == 2
    assert sent_before == [[], [[1]]]


@pytest.mark.parametrize(
    ("paces", "alone", "said"), [(QUICK, False, []), (QUICK, True, [1, 2]), ({"": Pace(1.0, 60.0)}, False, [1, 2])]
)
def test_a_rank_says_what_it_begins_unless_that_is_quick(paces: dict[str, Pace], alone: bool, said: list[int]) -> None:
    """So that what a lost rank was at is certain; and before it, that it has answered all else."""
    comm = world(Assign((job(1, alone), job(2, alone)), paces))
    ending(comm, last=2).run()
    assert [message.task.index for message in comm.sent if isinstance(message, Begins)] == said
    if said:
        assert [type(message) for message in comm.sent] == [Begins, Done, Begins, Done, Left]


def test_a_trial_of_a_slow_kind_is_known_among_quick_ones() -> None:
    jobs = (job(1), job(2)._replace(kind="trains"), job(3))
    comm = world(Assign(jobs, {**QUICK, "trains": Pace(100.0, 1000.0)}))
    sent_before: list[list[list[int]]] = []
    watch = Watch()

    def evaluate(payload: Any) -> TrialResult:
        sent_before.append(comm.together)
        if payload["index"] == 3:
            comm.inbox.append(End(EPOCH))
        return result(payload["index"])

    assert Slave(comm, evaluate, watch).run() == 3
    assert sent_before == [[], [[1]], [[1]]]
    assert [one for one in watch.log if one != "stop"] == [60.0, 1000.0, 60.0]


def test_nothing_is_held_while_it_waits_for_the_master() -> None:
    comm = world(Assign((job(1),)))
    ending(comm, last=1)
    assert (
        Slave(comm, lambda payload: result(payload["index"])).run() == 1
    )  # else the scripted world has no message left
    assert comm.together == [[1]]


def test_an_unknown_message_is_an_error() -> None:
    with pytest.raises(TypeError, match="'news', which is no message of the protocol"):
        Slave(world("news"), result).run()


# --- shares


def test_a_share_is_evaluated_as_such() -> None:
    comm = world(Assign((job(Task(1, 2, 3)),)))
    ending(comm, last=1)
    Slave(comm, Work(lambda _: result(0), 3, evaluate_part=lambda payload, part, parts: (payload, part, parts))).run()
    assert comm.answers == {Task(1, 2, 3): ({"index": 1}, 2, 3)}


def test_a_share_that_raises_is_answered_and_the_rank_goes_on() -> None:
    def part(payload: Any, part: int, parts: int) -> Any:
        if part == 0:
            raise ValueError("no batch in this share")
        return part

    comm = world(Assign((job(Task(1, 0, 2)), job(Task(1, 1, 2)))))
    evaluation = Evaluation(comm)
    work = Work(evaluation, 2, evaluate_part=part)
    ending(comm, last=1)
    Slave(comm, work).run()
    assert comm.answers == {Task(1, 0, 2): Failed("no batch in this share"), Task(1, 1, 2): 1}


def test_a_share_for_a_rank_that_cannot_do_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="trial 1 came in 2 shares, but this rank evaluates whole ones only"):
        Slave(world(Assign((job(Task(1, 0, 2)),))), result).run()


# --- the watchdog


@dataclass
class Watch:
    """Writes down when it was set."""

    log: list[Any] = field(default_factory=list)

    def start(self, seconds: float) -> None:
        self.log.append(seconds)

    def stop(self) -> None:
        self.log.append("stop")


def test_the_watchdog_runs_inside_trials_alone_with_the_masters_seconds() -> None:
    comm = world(Assign((job(1),)), Assign((job(2), job(3)), QUICK))
    watch = Watch()

    def evaluate(payload: Any) -> TrialResult:
        watch.log.append(f"trial {payload['index']}")
        if payload["index"] == 2:
            comm.inbox.append(Cancel((Task(2),)))
            slave.check()
        if payload["index"] == 3:
            comm.inbox.append(End(EPOCH))
        return result(payload["index"])

    slave = Slave(comm, evaluate, watch)
    slave.run()
    assert watch.log == [60.0, "trial 1", "stop", 60.0, "trial 2", "stop", 60.0, "trial 3", "stop"]


def test_without_known_seconds_no_watchdog_runs() -> None:
    comm = world(Assign((job(1),)))
    ending(comm, last=1)
    watch = Watch()
    Slave(comm, lambda payload: result(payload["index"]), watch).run()
    assert watch.log == ["stop"]


def test_the_watchdog_stops_where_an_evaluation_raises() -> None:
    def broken(payload: Any) -> TrialResult:
        raise KeyError("bug")

    watch = Watch()
    with pytest.raises(KeyError, match="bug"):
        Slave(world(Assign((job(1),), {"": Pace(0.1, 1.0)})), broken, watch).run()
    assert watch.log == [1.0, "stop"]
