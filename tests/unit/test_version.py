"""`quantuner.__version__` is the version; whatever repeats it says the same."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import quantuner

ROOT = Path(__file__).parents[2]
TAG = re.compile(r"\b(?:operator|tuner):(\d+\.\d+\.\d+)")


def test_the_package_takes_it_from_the_source() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"] == {"path": "operator/quantuner/__init__.py"}


@pytest.mark.parametrize("image", ["operator", "tuner"])
def test_an_image_is_labelled_with_it(image: str) -> None:
    recipe = (ROOT / "images" / image / "Containerfile").read_text()
    assert re.findall(r"^ARG VERSION=(\S+)$", recipe, re.MULTILINE) == [quantuner.__version__]


def test_the_chart_has_it() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "quantuner" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (quantuner.__version__, quantuner.__version__)


@pytest.mark.parametrize("document", ["README.md", "docs/tasks.md"])
def test_the_documents_build_and_name_images_of_it(document: str) -> None:
    named = TAG.findall((ROOT / document).read_text())
    assert named
    assert set(named) == {quantuner.__version__}


def test_the_changelog_begins_with_it() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == quantuner.__version__
