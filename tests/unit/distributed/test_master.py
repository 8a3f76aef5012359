"""What a master sends: its slave is answered for by the communicator."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from quantuner.api.trial import TrialResult
from quantuner.distributed.communicator import ANY, RanksLostError
from quantuner.distributed.executors import Told
from quantuner.distributed.losses import Losses
from quantuner.distributed.master import MESSAGE, Master
from quantuner.distributed.protocol import Answer, Assign, Base, Begins, Done, Limits


@dataclass
class Answering:
    """A world whose rank 1 has each task done as soon as it is sent."""

    rank: int = 0
    size: int = 2
    evaluators: Sequence[int] = (1,)
    given_up: set[int] = field(default_factory=set)
    sent: list[Any] = field(default_factory=list)
    _answers: deque[Done | Begins] = field(default_factory=deque)

    def now(self) -> float:
        return 0.0

    def send(self, message: Any, to: int) -> None:
        self.sent.append(message)
        if isinstance(message, Assign):
            [base] = [one for one in self.sent if isinstance(one, Base)]
            answers = (Answer(job.task, TrialResult(accuracy=1.0), 0.0, 0.0) for job in message.jobs)
            self._answers.append(Done(base.epoch, 0.0, tuple(answers)))

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        assert self._answers, "it waits for an answer that never comes"
        return self.pending(source)

    def pending(self, source: int = ANY) -> tuple[int, Any] | None:
        return (1, self._answers.popleft()) if self._answers else None


def test_many_quick_trials_are_sent_in_messages_of_which_the_first_goes_before_the_last_is_written() -> None:
    comm = Answering()
    written: list[int] = []

    class Payloads(list[Any]):
        """Knows when a payload is asked for."""

        def __getitem__(self, index: Any) -> Any:
            written.append(sum(isinstance(message, Assign) for message in comm.sent))
            return {"index": index}

    told: list[int] = []

    def tell(one: Told) -> bool:
        told.append(one.index)
        return False

    Master(comm, limits=Limits(known=(0.0,))).run(1, Payloads(range(300)), tell)
    assert told == list(range(1, 301))
    sizes = [len(message.jobs) for message in comm.sent if isinstance(message, Assign)]
    assert sizes[:4] == [MESSAGE] * 4
    assert sum(sizes) == 300
    assert max(sizes) == MESSAGE
    assert set(written) == set(range(len(sizes)))


@dataclass
class Silent(Answering):
    """A world whose rank 1 begins each task and never answers; time passes when it is waited for."""

    time: float = 0.0

    def now(self) -> float:
        return self.time

    def send(self, message: Any, to: int) -> None:
        self.sent.append(message)
        if isinstance(message, Assign):
            [base] = [one for one in self.sent if isinstance(one, Base)]
            self._answers.append(Begins(base.epoch, message.jobs[0].task))

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        if not self._answers:
            assert deadline is not None, "it waits for an answer that never comes"
            self.time = deadline
        return self.pending(source)


@pytest.mark.parametrize(("answer", "counts"), [(True, 1), (False, 0.5)])
def test_a_rank_that_is_given_up_while_a_host_does_not_answer_counts_half(answer: bool, counts: float) -> None:
    losses = Losses()
    master = Master(Silent(), limits=Limits(known=(1.0,)), losses=losses, hosts_answer=lambda: answer)
    with pytest.raises(RanksLostError, match="no rank is left"):
        master.run(7, [{"index": 7}], lambda _: False)
    assert losses.known == {7: counts}


@dataclass
class Frozen(Silent):
    """Rank 1 ends after 50 s; where all are frozen then, at the end of that, as by its own timer, which runs on."""

    frozen: float = 0.0

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        if self._answers:
            return self.pending(source)
        assert deadline is not None, "it waits for an answer that never comes"
        self.time = min(deadline, 50.0)
        if self.time < 50.0:
            return None
        self.time += self.frozen
        raise RanksLostError((1,))


@pytest.mark.parametrize(("frozen", "counts"), [(0.0, 1), (12.0, 0.5)])
def test_a_rank_that_is_lost_after_all_were_frozen_counts_half(frozen: float, counts: float) -> None:
    """The master would not have looked before 65 s for its own sake."""
    losses = Losses()
    master = Master(Frozen(frozen=frozen), limits=Limits(known=(1.0,)), losses=losses)
    with pytest.raises(RanksLostError, match="no rank is left"):
        master.run(7, [{"index": 7}], lambda _: False)
    assert losses.known == {7: counts}
