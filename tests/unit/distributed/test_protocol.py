"""Messages: what comes out of pickle is what went in."""

import pickle

import pytest

from quantuner.distributed.protocol import Assign, Job, Pace, Task

JOBS = (Job(Task(3, batch=2), {"index": (3,)}), Job(Task(4, 1, 2, 2), ("whole",), alone=True, kind="trains"))


@pytest.mark.parametrize("jobs", [JOBS, JOBS[:1]])
@pytest.mark.parametrize("paces", [{}, {"": Pace(1.0, 60.0), "trains": Pace(600.0, 6000.0)}])
def test_tasks_that_are_given_cross_as_they_are(jobs: tuple[Job, ...], paces: dict[str, Pace]) -> None:
    received = pickle.loads(pickle.dumps(Assign(jobs, paces)))
    assert received == Assign(jobs, paces)
    assert all(type(pace) is Pace for pace in received.paces.values())
    assert {(type(job), type(job.task), job.alone) for job in received.jobs} <= {(Job, Task, False), (Job, Task, True)}


def test_tasks_are_in_the_order_of_trials() -> None:
    assert sorted([Task(2, 1, 2), Task(10), Task(2, 0, 2), Task(1)]) == [
        Task(1),
        Task(2, 0, 2),
        Task(2, 1, 2),
        Task(10),
    ]
