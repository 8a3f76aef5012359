"""Helm upgrades the operator under a running search, which does not notice."""

import pytest

from tests.e2e.kube import Kube, has_ended, is_true
from tests.e2e.others import RELEASE
from tests.e2e.release import OURS, Release
from tests.e2e.tunings import example, example_code, history

pytestmark = pytest.mark.cluster


def test_an_upgrade_replaces_the_operator_and_not_the_search(kube: Kube, release: Release) -> None:
    (before,) = release.kube.items("pods", "-l", OURS)
    kube.apply(example_code(), example())
    kube.await_object("qtune", "digits", is_true("Accepted"), "accepted")
    release.helm("upgrade", RELEASE, *release.chart(), "--set", "log.level=debug")
    pods = [p for p in release.kube.items("pods", "-l", OURS) if "deletionTimestamp" not in p["metadata"]]
    (after,) = pods
    assert after["metadata"]["name"] != before["metadata"]["name"]

    done = kube.await_object("qtune", "digits", has_ended, "complete")
    assert is_true("Complete")(done)
    assert len(history(kube, "digits").launches) == 1, "the search was started again"
