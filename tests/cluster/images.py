"""The project's two images: built when their sources changed, and put into the cluster's node."""

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
from tests.cluster.transfer import export
from tests.cluster.wheels import torch_build, torch_folder

PREFIX = "localhost/quantuner-"
KINDS = ("operator", "tuner")
SOURCES = ("LICENSE", "README.md", "crds", "images", "operator", "pyproject.toml")

# The example's task reads scikit-learn's handwritten digits; constraints.txt has its version.
EXTRA_PACKAGES = {"operator": "", "tuner": "scikit-learn"}

# Earlier images of each kind that stay: a test of a moment ago may still be starting pods of them.
KEPT_IMAGES = 3


@dataclass(frozen=True)
class Images:
    """The names of the images of one state of the sources."""

    operator: str
    tuner: str


def names(root: Path = REPOSITORY) -> Images:
    """The names that the images of these sources have, built or not."""
    sources = files_below(*(root / part for part in SOURCES if part != "images"))
    hashes = {kind: fingerprint(root, sources, packages_name(kind, root)) for kind in KINDS}
    return Images(**{kind: f"{PREFIX}{kind}:test-{hashes[kind]}" for kind in KINDS})


def packages_name(kind: str, root: Path) -> str:
    """The name of the stage that holds an image's third-party packages."""
    torch = torch_build() if kind == "tuner" else ""
    recipe = fingerprint(root, files_below(root / "images" / kind), EXTRA_PACKAGES[kind], torch)
    return f"{PREFIX}{kind}-packages:test-{recipe}"


def ensure(layout: Layout, say: Callable[[str], None]) -> Images:
    """Have both images of the present sources in the node."""
    builder = Builder(layout)
    builder.clear()
    with _snapshot(builder.scratch) as root:
        workshop = _Workshop(layout, builder, Containers(layout), root, say)
        wanted = names(root)
        for kind in KINDS:
            workshop.ensure(kind, getattr(wanted, kind))
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


@dataclass(frozen=True)
class _Workshop:
    """One build's tools, and its copy of the sources."""

    layout: Layout
    builder: Builder
    containers: Containers
    root: Path
    say: Callable[[str], None]

    def ensure(self, kind: str, name: str) -> None:
        if name not in self.containers.images():
            packages = packages_name(kind, self.root)
            self._build(kind, packages, name)
            self._import(name)
            self._prune(kind, packages, name)

    def _build(self, kind: str, packages: str, name: str) -> None:
        base = base_image.name_in(self.root / "images" / kind / "Containerfile")
        base_image.ensure(self.builder, base, self.say)
        arguments = {"EXTRA_PACKAGES": EXTRA_PACKAGES[kind]} if EXTRA_PACKAGES[kind] else {}
        wheels = torch_folder(self.layout.cache) if kind == "tuner" else None
        # The stage of packages gets a name of its own, which keeps it when the rest is pruned.
        for target, image in (("packages", packages), (None, name)):
            self.say(f"building {image}")
            self.builder.build(self.root, kind, image, target=target, wheels=wheels, arguments=arguments)

    def _import(self, name: str) -> None:
        self.say(f"importing {name}")
        archive = self.builder.scratch / f"{name.rpartition(':')[2]}.tar"
        export(self.builder, name, self.layout.runtime_blobs, archive)
        self.containers.import_archive(archive)

    def _prune(self, kind: str, packages: str, name: str) -> None:
        """Remove the images that later ones have replaced, so that the disk does not fill."""
        record = self.layout.cache / f"{kind}-images"
        kept = latest(record.read_text().split() if record.exists() else [], name)
        record.write_text("\n".join(kept))
        family = f"{PREFIX}{kind}"
        imported = {image for image in self.containers.images() if image.startswith(family)}
        self.containers.remove_images(*sorted(imported.difference(kept)))
        built = {image for image in self.builder.images() if image.startswith(family)}
        if replaced := sorted(built - {packages, name}):
            self.builder.run("rmi", *replaced)
            self.builder.run("rmi", "--prune")


def latest(earlier: list[str], name: str, kept: int = KEPT_IMAGES) -> list[str]:
    """The names to keep once this one is in use, the latest last."""
    return [*(other for other in earlier if other != name), name][-kept:]
