"""Resources that the end-to-end tests apply: the shipped example, and tasks that go wrong."""

from pathlib import Path
from typing import Any

import yaml

from quantuner.api.journal import History, lines_of
from quantuner.api.names import journal_configmap
from tests.e2e.kube import Kube, Object

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
POD_RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}}


def configmap(name: str, **files: str) -> Object:
    data = {f"{key}.py": text for key, text in files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def example(name: str = "digits", **spec: Any) -> Object:
    """examples/digits/tuning.yaml with parts of its spec replaced."""
    body: Object = yaml.safe_load((EXAMPLE / "tuning.yaml").read_text())
    body["metadata"]["name"] = name
    body["spec"] |= {"template": {"resources": POD_RESOURCES}, **spec}
    return body


def example_code() -> Object:
    return configmap("digits-task", digits=(EXAMPLE / "digits.py").read_text())


def history(kube: Kube, name: str) -> History:
    return History.replay(lines_of(kube.get("configmap", journal_configmap(name)).get("data")))


def told(found: History) -> list[tuple[int, str, float | None]]:
    """What must be the same wherever and however often a search runs."""
    return [(t.index, t.digest, t.accuracy) for t in found.trials]


def local_history(workspace: Path) -> History:
    return History.replay((workspace / "journal.jsonl").read_text().splitlines())
