"""Communicators: collectives of the in-memory world, and the world of one. MPI's is tested by its ranks."""

import threading
from typing import Any

import pytest

from quantuner.distributed.communicator import Communicator, Solo
from tests.unit.distributed.in_memory import World


def on_every_rank(size: int, step: Any) -> list[Any]:
    """What `step(comm)` returns on each rank, run at the same time."""
    world = World(size)
    results: list[Any] = [None] * size

    def rank(number: int) -> None:
        results[number] = step(world.comm(number))

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("size", [2, 4])
def test_a_broadcast_gives_rank_0s_message_to_all(size: int) -> None:
    def step(comm: Communicator) -> Any:
        return comm.broadcast(("from", comm.rank))

    assert on_every_rank(size, step) == [("from", 0)] * size


@pytest.mark.parametrize("size", [2, 4])
def test_gathering_gives_rank_0_all_messages_in_rank_order(size: int) -> None:
    def step(comm: Communicator) -> Any:
        return comm.gather(comm.rank * 10)

    gathered, *others = on_every_rank(size, step)
    assert gathered == [rank * 10 for rank in range(size)]
    assert others == [None] * (size - 1)


def test_a_world_of_one_talks_to_itself_alone() -> None:
    solo = Solo()
    assert (solo.rank, solo.size) == (0, 1)
    assert solo.broadcast("message") == "message"
    assert solo.gather("message") == ["message"]
    with pytest.raises(ValueError, match="no rank 1 in a world of one"):
        solo.send("message", to=1)
    with pytest.raises(ValueError, match="nobody to receive from"):
        solo.receive()
