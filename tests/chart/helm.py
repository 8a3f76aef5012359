"""Rendering the chart as Helm does, and asking questions of what comes out."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "quantuner"
RELEASE = "tuner-release"
NAME = f"{RELEASE}-quantuner"
NAMESPACE = "operator-namespace"

Object = dict[str, Any]

OPERATOR, TUNER = "registry.test/quantuner/operator", "registry.test/quantuner/tuner"
# Without these nothing is rendered.
IMAGES: Object = {"image": {"repository": OPERATOR}, "tuner": {"image": {"repository": TUNER}}}

# libyaml's loader where PyYAML has it: CRD and dashboard are long, and a hundred renderings are read.
_FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_FASTEST):  # type: ignore[misc, valid-type]
    """Refuses a key that stands twice, of which PyYAML and Helm would take the last and other tools none."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Object:
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: twice: {twice}"
        found: Object = super().construct_mapping(node, deep)
        return found


class RefusedError(Exception):
    """Helm refused; the text is what a person at the terminal reads."""


@dataclass(frozen=True)
class Rendered:
    """The objects of one rendering."""

    objects: tuple[Object, ...]

    def __iter__(self) -> Iterator[Object]:
        return iter(self.objects)

    def all(self, kind: str) -> list[Object]:
        return [o for o in self.objects if o["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object | None:
        """The only object of this kind (and name), or None; two are an error."""
        found = [o for o in self.all(kind) if name is None or o["metadata"]["name"] == name]
        assert len(found) <= 1, f"{len(found)} objects {kind} {name or ''}"
        return found[0] if found else None

    @property
    def operator(self) -> Object:
        """The operator's container."""
        deployment = self.one("Deployment")
        assert deployment is not None
        containers: list[Object] = deployment["spec"]["template"]["spec"]["containers"]
        assert [c["name"] for c in containers] == ["operator"]
        return containers[0]


def nested(path: str, value: Any) -> Object:
    """`a.b.c` and a value as {"a": {"b": {"c": value}}}."""
    for key in reversed(path.split(".")):
        value = {key: value}
    result: Object = value
    return result


def merged(*values: Mapping[str, Any]) -> Object:
    """Values over values, as Helm merges them."""
    result: Object = {}
    for one in values:
        for key, value in one.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result


@dataclass(frozen=True)
class Helm:
    """The helm of this machine, at work on this chart."""

    path: Path

    def render(self, values: Mapping[str, Any] | None = None, release: str = RELEASE) -> Rendered:
        """What `helm install` would send, for these values over the images' and the chart's own."""
        text = self._run("template", release, str(CHART), f"--namespace={NAMESPACE}", values=values)
        return Rendered(tuple(o for o in yaml.load_all(text, _Loader) if o is not None))

    def notes(self, values: Mapping[str, Any] | None = None) -> str:
        """What a person reads after `helm install`."""
        flags = (f"--namespace={NAMESPACE}", "--dry-run=client", "--output=json")
        printed: Object = json.loads(self._run("install", RELEASE, str(CHART), *flags, values=values))
        notes: str = printed["info"]["notes"]
        return notes

    def lint(self, values: Mapping[str, Any] | None = None) -> str:
        return self._run("lint", "--strict", str(CHART), values=values)

    def _run(self, *words: str, values: Mapping[str, Any] | None) -> str:
        # Values go in as JSON, so that a test's 1.0 and "1.0" stay apart as they do in a values file.
        return _output((str(self.path), *words, "--values=-"), json.dumps(merged(IMAGES, values or {})))


@cache
def _output(words: tuple[str, ...], values: str) -> str:
    """Kept, since many tests look at the same rendering."""
    process = subprocess.run(words, input=values, capture_output=True, text=True, timeout=180)
    if process.returncode:
        raise RefusedError(process.stderr + process.stdout)
    return process.stdout
