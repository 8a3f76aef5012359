"""What the operator asks of the API server."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.e2e.kube import Kube, is_true
from tests.operator.process import OperatorProcess
from tests.operator.proxy import Proxy
from tests.operator.test_lifecycle import NAME, await_tuning, launched, reason, resource, tell, trial

pytestmark = pytest.mark.cluster


def looks(proxy: Proxy) -> Counter[str]:
    """How often each tuning was looked at."""
    return Counter(path.rsplit("/", 1)[1] for path in proxy.reads if "/quantizationtunings/" in path)


def suspended(kube: Kube, name: str, **spec: Any) -> None:
    """Applies a tuning that needs no more than its status, and awaits that."""
    body = resource(suspend=True, **spec)
    kube.apply({**body, "metadata": {"name": name}})
    generation = kube.get("qtune", name)["metadata"]["generation"]

    def is_told(body: dict[str, Any]) -> bool:
        return is_true("Suspended")(body) and bool(body["status"]["observedGeneration"] == generation)

    kube.await_object("qtune", name, is_told, "suspended")


def test_each_change_is_looked_at_once_and_a_status_of_its_own_not_at_all(
    kube: Kube, proxy: Proxy, fragile: OperatorProcess
) -> None:
    fragile.start()
    fragile.await_health()
    suspended(kube, "digits")
    suspended(kube, "digits", workers=2)
    for workers in (1, 2, 3, 4):  # paced: seconds in which the first would have been looked at again
        suspended(kube, "other", workers=workers)
    assert looks(proxy) == {"digits": 2, "other": 4}


def test_what_a_search_tells_is_looked_at_once_whatever_its_numbers_are(
    kube: Kube, proxy: Proxy, fragile: OperatorProcess
) -> None:
    fragile.start()
    nowhere = {"nodeSelector": {"quantuner.dev/test": "no-such-node"}}
    kube.apply(resource(workers=1, template=nowhere))
    await_tuning(kube, reason("Running", "Unschedulable"), "created")
    tell(kube, launched(), trial(0, 1.0))
    await_tuning(kube, lambda body: "baseline" in body["status"], "the baseline told")
    before = looks(proxy)[NAME]
    for count in (1, 2, 3, 4):
        tell(kube, trial(count, 1.0), start=count + 1)
        await_tuning(kube, lambda body, n=count: body["status"]["trials"]["completed"] == n, "a trial told")
        for workers in (1, 2, 3):  # paced: more than a second
            suspended(kube, "other", workers=workers)
    # Eight, if each status were looked at; one may be of the scheduler's last words.
    assert 4 <= looks(proxy)[NAME] - before <= 5
