"""Whether a cluster has somebody else's Quantuner, which these tests would harm: pure, from what lies there."""

import re
from collections.abc import Iterable

from tests.e2e.kube import Object

SYSTEM = RELEASE = "quantuner-under-test"
"""Namespace and release of the operator under test: nobody else's would be called so."""

_OF_A_TEST = re.compile(r"(e2e|operator)-[0-9a-f]{8}")


def refusal(deployments: Iterable[Object], tunings: Iterable[Object]) -> str:
    """Why these tests must leave the cluster alone; empty where they need not."""
    operators = [_place(found) for found in deployments if _is_operator(found) and not _is_under_test(found)]
    if operators:
        return (
            f"the cluster has an operator that these tests did not install ({', '.join(operators)}): each would act "
            "on the other's resources. Use another cluster, or uninstall it; nothing was touched"
        )
    searches = [_place(found) for found in tunings if not _OF_A_TEST.fullmatch(found["metadata"]["namespace"])]
    if searches:
        return (
            f"the cluster has QuantizationTunings of others ({', '.join(searches)}), on which the operator under test "
            "would act. Use another cluster, or delete them; nothing was touched"
        )
    return ""


def _is_operator(deployment: Object) -> bool:
    labels: dict[str, str] = deployment["metadata"].get("labels", {})
    # nameOverride changes the first label and not the second.
    is_chart = labels.get("helm.sh/chart", "").startswith("quantuner-")
    return is_chart or labels.get("app.kubernetes.io/name") == "quantuner"


def _is_under_test(deployment: Object) -> bool:
    metadata = deployment["metadata"]
    return (metadata["namespace"], metadata["labels"].get("app.kubernetes.io/instance")) == (SYSTEM, RELEASE)


def _place(found: Object) -> str:
    return f"{found['metadata']['namespace']}/{found['metadata']['name']}"
