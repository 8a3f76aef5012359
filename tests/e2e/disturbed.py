"""A search that is still running when something happens to it, and what must come of it."""

import functools
import tempfile
from pathlib import Path
from typing import Any

from quantuner.api.journal import Finished, History
from tests.e2e.kube import Kube, Object, condition, has_ended, is_true
from tests.e2e.steady import run_here, steady, steady_code
from tests.e2e.tunings import history, told


def slow(kube: Kube, name: str, **spec: Any) -> None:
    kube.apply(steady_code(), steady(name, **spec))


def await_trials(kube: Kube, name: str, count: int) -> Object:
    def holds(body: Object) -> bool:
        return body.get("status", {}).get("trials", {}).get("completed", 0) >= count or has_ended(body)

    body = kube.await_object("qtune", name, holds, f"at trial {count}")
    assert not has_ended(body), "the search ended before it could be disturbed; make it slower"
    return body


def ended(kube: Kube, name: str) -> tuple[Object, History]:
    body = kube.await_object("qtune", name, has_ended, "ended")
    assert is_true("Complete")(body), condition(body, "Failed")
    return body, history(kube, name)


def is_the_undisturbed_answer(body: Object, found: History) -> None:
    """The history is that of a search in one process, which nothing happened to, and so is the winner."""
    assert isinstance(found.end, Finished)
    assert body["status"]["best"]["trial"] == found.end.best
    expected = undisturbed()
    assert isinstance(expected.end, Finished)
    assert told(found) == told(expected)
    assert (found.end.best, found.end.accuracy) == (expected.end.best, expected.end.accuracy)


@functools.cache
def undisturbed() -> History:
    with tempfile.TemporaryDirectory() as folder:
        return run_here(steady("undisturbed"), Path(folder))
