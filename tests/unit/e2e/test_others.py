"""Which clusters the tests refuse: those with an operator or a search that is not theirs."""

import pytest

from tests.e2e.kube import Object
from tests.e2e.others import RELEASE, SYSTEM, refusal


def deployment(namespace: str, name: str = "quantuner", **labels: str) -> Object:
    return {"metadata": {"namespace": namespace, "name": name, "labels": labels}}


def operator(namespace: str, release: str, name: str = "quantuner") -> Object:
    labels = {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": release,
        "helm.sh/chart": "quantuner-0.1.0",
    }
    return deployment(namespace, release, **labels)


def tuning(namespace: str) -> Object:
    return {"metadata": {"namespace": namespace, "name": "digits"}}


LEFT_BY_A_KILLED_RUN = operator(SYSTEM, RELEASE)


def test_a_cluster_with_nothing_of_quantuner_is_taken() -> None:
    coredns: Object = {"metadata": {"namespace": "kube-system", "name": "coredns"}}
    assert refusal([coredns, deployment("shop", "cart", **{"app.kubernetes.io/name": "cart"})], []) == ""


def test_what_a_killed_run_left_is_no_reason() -> None:
    assert refusal([LEFT_BY_A_KILLED_RUN], [tuning("e2e-0123abcd"), tuning("operator-0123abcd")]) == ""


@pytest.mark.parametrize(
    "other",
    [
        operator("quantuner", "quantuner"),
        operator("quantuner-system", "quantuner"),
        operator("quantuner", RELEASE),
        operator(SYSTEM, "quantuner"),
        operator("ml", "tuner", name="tuner"),
        deployment("ml", "by-hand", **{"app.kubernetes.io/name": "quantuner"}),
    ],
    ids=lambda other: f"{other['metadata']['namespace']}/{other['metadata']['name']}",
)
def test_somebody_elses_operator_is_named(other: Object) -> None:
    said = refusal([LEFT_BY_A_KILLED_RUN, other], [])
    assert f"({other['metadata']['namespace']}/{other['metadata']['name']})" in said
    assert "nothing was touched" in said


@pytest.mark.parametrize("namespace", ["team-a", "e2e-production", "operator-0123abcde"])
def test_somebody_elses_search_is_named(namespace: str) -> None:
    """An operator that was uninstalled leaves its searches, which the one under test would go on with."""
    assert f"({namespace}/digits)" in refusal([], [tuning(namespace)])
