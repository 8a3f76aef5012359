"""The project's two images: built when their sources changed, and put into the cluster's node."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import base_image
from tests.cluster.builder import Builder
from tests.cluster.containers import Containers
from tests.cluster.fingerprint import IGNORED, files_below, fingerprint
from tests.cluster.layout import REPOSITORY, Layout

PREFIX = "localhost/quantuner-"
KINDS = ("operator", "tuner")
SOURCES = ("README.md", "crds", "images", "operator", "pyproject.toml")

# The example's task reads scikit-learn's handwritten digits; constraints.txt has its version.
EXTRA_PACKAGES = {"operator": "", "tuner": "scikit-learn"}

# Earlier images of each kind that stay: a test of a moment ago may still be starting pods of them.
KEPT_IMAGES = 3


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


def names(root: Path = REPOSITORY) -> Images:
    """The names that the images of these sources have, built or not."""
    sources = files_below(*(root / part for part in SOURCES if part != "images"))
    hashes = {kind: fingerprint(root, sources, packages_name(kind, root)) for kind in KINDS}
    return Images(**{kind: f"{PREFIX}{kind}:test-{hashes[kind]}" for kind in KINDS})


def packages_name(kind: str, root: Path) -> str:
    """The name of the stage that holds an image's third-party packages."""
    wheels = wheel_folder() if kind == "tuner" else None
    offered = sorted(path.name for path in wheels.glob("*.whl")) if wheels else []
    recipe = fingerprint(root, files_below(root / "images" / kind), EXTRA_PACKAGES[kind], *offered)
    return f"{PREFIX}{kind}-packages:test-{recipe}"


def ensure(layout: Layout, say: Callable[[str], None]) -> Images:
    """Have both images of the present sources in the node."""
    containers = Containers(layout)
    builder = Builder(layout)
    builder.clear()
    with _snapshot(builder.scratch) as root:
        wanted = names(root)
        for kind in KINDS:
            name = getattr(wanted, kind)
            if name not in containers.images():
                packages = packages_name(kind, root)
                _build(builder, root, kind, packages, name, say)
                _import(builder, containers, name, say)
                _prune(layout, builder, containers, kind, packages, name)
    return wanted


@contextmanager
def _snapshot(scratch: Path) -> Iterator[Path]:
    """A copy of what the images are made of: the sources may be edited while a build reads them."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for part in SOURCES:
            original, copy = REPOSITORY / part, Path(folder) / part
            if original.is_dir():
                shutil.copytree(original, copy, symlinks=True, ignore=shutil.ignore_patterns(*IGNORED))
            else:
                shutil.copy2(original, copy)
        yield Path(folder)


def _build(builder: Builder, root: Path, kind: str, packages: str, name: str, say: Callable[[str], None]) -> None:
    base_image.ensure(builder, base_image.name_in(root / "images" / kind / "Containerfile"), say)
    wheels = wheel_folder() if kind == "tuner" else None
    arguments = {"EXTRA_PACKAGES": EXTRA_PACKAGES[kind]} if EXTRA_PACKAGES[kind] else {}
    # The stage of packages gets a name of its own, which keeps it when the rest is pruned.
    for target, image in (("packages", packages), (None, name)):
        say(f"building {image}")
        builder.build(root, kind, image, target=target, wheels=wheels, arguments=arguments)


def _import(builder: Builder, containers: Containers, name: str, say: Callable[[str], None]) -> None:
    say(f"importing {name}")
    archive = builder.scratch / "image.tar"
    archive.unlink(missing_ok=True)
    try:
        builder.run("push", "--quiet", name, f"docker-archive:{archive}:{name}")
        containers.import_archive(archive)
    finally:
        archive.unlink(missing_ok=True)


def _prune(layout: Layout, builder: Builder, containers: Containers, kind: str, packages: str, name: str) -> None:
    """Remove the images that later ones have replaced, so that the disk does not fill."""
    record = layout.cache / f"{kind}-images"
    kept = latest(record.read_text().split() if record.exists() else [], name)
    record.write_text("\n".join(kept))
    family = f"{PREFIX}{kind}"
    containers.remove_images(
        *(image for image in containers.images() if image.startswith(family) and image not in kept)
    )
    replaced = {image for image in builder.images() if image.startswith(family)} - {packages, name}
    if replaced:
        builder.run("rmi", *sorted(replaced))
        builder.run("rmi", "--prune")


def latest(earlier: list[str], name: str, kept: int = KEPT_IMAGES) -> list[str]:
    """The names to keep once this one is in use, the latest last."""
    return [*(other for other in earlier if other != name), name][-kept:]
