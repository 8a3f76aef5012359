"""The operator dies at any write, or the API server goes away: the end is the same, and nothing is created twice."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.e2e.kube import Kube, is_true
from tests.e2e.patience import eventually
from tests.operator.process import OperatorProcess
from tests.operator.proxy import Proxy, Write
from tests.operator.test_lifecycle import FINISHED, NAME, SEARCH, await_tuning, change, events, resource, tell

pytestmark = pytest.mark.cluster

OBJECTS = 7
MAX_LIVES = 20


def created(proxy: Proxy) -> Counter[str]:
    """How often the server created an object of each kind; events aside."""
    paths = (w.path for w in proxy.writes if w.method == "POST" and w.status == 201)
    return Counter(path.rsplit("/", 1)[1] for path in paths if not path.endswith("/events"))


def live_until_quiet(fragile: OperatorProcess, proxy: Proxy) -> int:
    """Kills the operator after each of its writes and starts it again, until one life changes nothing more; how
    many lives that took."""
    proxy.after_write = lambda _: fragile.kill()
    for life in range(1, MAX_LIVES):
        fragile.start()
        if not fragile.await_end_or_quiet():
            return life
    raise AssertionError(f"still writing after {MAX_LIVES} lives: {proxy.writes}")


def test_killed_after_every_write_of_a_creation(kube: Kube, proxy: Proxy, fragile: OperatorProcess) -> None:
    kube.apply(resource(workers=1))
    lives = live_until_quiet(fragile, proxy)
    assert lives > OBJECTS
    expected = {"configmaps": 3, "serviceaccounts": 1, "roles": 1, "rolebindings": 1, "mpijobs": 1}
    assert created(proxy) == expected
    assert kube.get("qtune", NAME)["status"]["observedGeneration"] == 1


def test_killed_after_every_write_of_an_end(kube: Kube, proxy: Proxy, fragile: OperatorProcess) -> None:
    kube.apply(resource(workers=1))
    fragile.start()
    kube.await_object("mpijob", NAME, bool, "created")
    fragile.kill()
    fragile.wait()
    tell(kube, *SEARCH, FINISHED)
    live_until_quiet(fragile, proxy)
    body = kube.get("qtune", NAME)
    assert body["status"]["phase"] == "Complete"
    assert len(events(kube, "TargetMet")) == len(events(kube, "TrialsFailed")) == 1
    assert created(proxy)["mpijobs"] == 1


def test_killed_after_every_write_of_a_replacement(kube: Kube, proxy: Proxy, fragile: OperatorProcess) -> None:
    kube.apply(resource(workers=1))
    fragile.start()
    first = kube.await_object("mpijob", NAME, bool, "created")["metadata"]["uid"]
    fragile.kill()
    fragile.wait()
    change(kube, workers=2)
    proxy.after_write = lambda _: fragile.kill()
    replaced = False
    for _ in range(MAX_LIVES):
        fragile.start()
        fragile.await_end_or_quiet()
        jobs = kube.items("mpijobs")
        replaced = bool(jobs) and jobs[0]["metadata"]["uid"] != first
        if replaced:
            break
    assert replaced
    assert created(proxy)["mpijobs"] == 2
    assert jobs[0]["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"] == 2


def test_the_api_server_is_away_for_a_while(kube: Kube, proxy: Proxy, fragile: OperatorProcess) -> None:
    kube.apply(resource(workers=1))
    fragile.start()
    kube.await_object("mpijob", NAME, bool, "created")
    proxy.away = True
    tell(kube, *SEARCH, FINISHED)
    eventually(lambda: "no answer from the API server" in fragile.log() or not fragile.is_running(), "noticed")
    proxy.away = False
    await_tuning(kube, is_true("Complete"), "complete")


def test_a_role_that_was_changed_by_hand_is_mended(kube: Kube, proxy: Proxy, fragile: OperatorProcess) -> None:
    kube.apply(resource(workers=1))
    fragile.start()
    kube.await_object("mpijob", NAME, bool, "created")
    fragile.stop()
    kube.run("patch", "role", f"{NAME}-tuner", "--type=merge", "-p", json.dumps({"rules": []}))
    mended: list[Write] = []
    proxy.after_write = mended.append
    fragile.start()
    eventually(lambda: any("/roles/" in w.path for w in mended), "the Role is patched")
    assert kube.get("role", f"{NAME}-tuner")["rules"]
