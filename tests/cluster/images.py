"""The project's two images: built when their sources changed, and put into the cluster's node."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import base_image
from tests.cluster.builder import Builder
from tests.cluster.containers import Containers
from tests.cluster.fingerprint import files_below, fingerprint
from tests.cluster.layout import REPOSITORY, Layout

PREFIX = "localhost/quantuner-"
KINDS = ("operator", "tuner")

# The example's task reads scikit-learn's handwritten digits; constraints.txt has its version.
EXTRA_PACKAGES = {"operator": "", "tuner": "scikit-learn"}


@dataclass(frozen=True)
class Images:
    """The names of the images of one state of the sources."""

    operator: str
    tuner: str


def wheel_folder() -> Path | None:
    """The folder of PIP_FIND_LINKS that holds a build of torch, or None for the index's build."""
    for word in os.environ.get("PIP_FIND_LINKS", "").split():
        folder = Path(word)
        if folder.is_dir() and any(folder.glob("torch-*.whl")):
            return folder.resolve()
    return None


def _packages_name(kind: str) -> str:
    wheels = wheel_folder() if kind == "tuner" else None
    offered = sorted(path.name for path in wheels.glob("*.whl")) if wheels else []
    recipe = files_below(REPOSITORY / "images" / kind)
    return f"{PREFIX}{kind}-packages:test-{fingerprint(REPOSITORY, recipe, EXTRA_PACKAGES[kind], *offered)}"


def names() -> Images:
    """The names that the images of the present sources have, built or not."""
    sources = files_below(
        *(REPOSITORY / part for part in ("pyproject.toml", "README.md", "crds", "operator"))
    )
    found = {
        kind: f"{PREFIX}{kind}:test-{fingerprint(REPOSITORY, sources, _packages_name(kind))}"
        for kind in KINDS
    }
    return Images(**found)


def ensure(layout: Layout, say: Callable[[str], None]) -> Images:
    """Have both images of the present sources in the node, and no older ones."""
    wanted = names()
    containers = Containers(layout)
    present = containers.images()
    for kind in KINDS:
        name = getattr(wanted, kind)
        if name not in present:
            _build(layout, kind, name, say)
            _import(layout, containers, name, say)
    current = {wanted.operator, wanted.tuner}
    stale = {name for name in containers.images() if name.startswith(PREFIX)} - current
    containers.remove_images(*sorted(stale))
    return wanted


def _build(layout: Layout, kind: str, name: str, say: Callable[[str], None]) -> None:
    builder = Builder(layout)
    recipe = REPOSITORY / "images" / kind / "Containerfile"
    base_image.ensure(builder, base_image.name_in(recipe), say)
    wheels = wheel_folder() if kind == "tuner" else None
    arguments = {"EXTRA_PACKAGES": EXTRA_PACKAGES[kind]} if EXTRA_PACKAGES[kind] else {}
    packages = _packages_name(kind)
    # The stage of packages gets a name of its own, which keeps it when the rest is pruned.
    for target, image in (("packages", packages), (None, name)):
        say(f"building {image}")
        builder.build(kind, image, target=target, wheels=wheels, arguments=arguments)
    ours = {image for image in builder.images() if image.startswith(f"{PREFIX}{kind}")}
    if stale := sorted(ours - {packages, name}):
        builder.run("rmi", *stale)
        builder.run("rmi", "--prune")


def _import(layout: Layout, containers: Containers, name: str, say: Callable[[str], None]) -> None:
    say(f"importing {name}")
    builder = Builder(layout)
    archive = builder.scratch / "image.tar"
    archive.unlink(missing_ok=True)
    try:
        builder.run("push", "--quiet", name, f"docker-archive:{archive}:{name}")
        containers.import_archive(archive)
    finally:
        archive.unlink(missing_ok=True)
