"""The chart's CRD is the repository's."""

import copy

import yaml

from tests.chart.helm import CHART, REPOSITORY, Rendered

SOURCE = REPOSITORY / "crds" / "quantizationtunings.yaml"
COPY = CHART / "files" / "quantizationtunings.yaml"
REFRESH = f"run: cp {SOURCE.relative_to(REPOSITORY)} {COPY.relative_to(REPOSITORY)}"


def test_copy_is_the_source() -> None:
    assert COPY.read_text() == SOURCE.read_text(), REFRESH


def test_rendered_crd_is_the_source(defaults: Rendered) -> None:
    """Equal as data, but for the labels and the annotation that Helm's objects carry."""
    crd = copy.deepcopy(defaults.one("CustomResourceDefinition"))
    assert crd is not None
    labels, annotations = crd["metadata"].pop("labels"), crd["metadata"].pop("annotations")
    assert crd == yaml.safe_load(SOURCE.read_text()), REFRESH
    assert labels["app.kubernetes.io/managed-by"] == "Helm"
    assert annotations == {"helm.sh/resource-policy": "keep"}
