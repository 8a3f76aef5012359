"""Errors say who has to act, and cross MPI whole."""

import pickle

from quantuner.api.errors import InvalidResourceError, Problem, SearchError


def test_a_search_error_crosses_mpi_with_all_it_says() -> None:
    sent = SearchError("TaskRaised", "calling it raised", "Traceback …")
    arrived = pickle.loads(pickle.dumps(sent))
    assert (arrived.reason, arrived.message, arrived.traceback) == (sent.reason, sent.message, sent.traceback)
    assert str(arrived) == "calling it raised"


def test_an_invalid_resource_lists_its_problems() -> None:
    error = InvalidResourceError([Problem("spec.a", "too big"), Problem("spec.b", "missing")])
    assert str(error) == "spec.a: too big; spec.b: missing"
