"""The programs of the cluster: built once from the pinned modules, then found in the cache."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.fingerprint import files_below, fingerprint
from tests.cluster.go import go_command
from tests.cluster.layout import PINS, Layout
from tests.cluster.system import alone, run

KUBERNETES = "v1.34.4"
MPI_OPERATOR = "github.com/kubeflow/mpi-operator"
MPIJOB_CRD = "mpijobs.yaml"

_VERSION = "k8s.io/component-base/version"
_CLIENT_VERSION = "k8s.io/client-go/pkg/version"
# Without these the server calls itself v0.0.0-master and version checks of clients stumble.
KUBERNETES_FLAGS = "-s -w " + " ".join(
    f"-X {package}.{variable}={value}"
    for package in (_VERSION, _CLIENT_VERSION)
    for variable, value in (("gitVersion", KUBERNETES), ("gitMajor", "1"), ("gitMinor", "34"))
)
ADDON_FLAGS = "-s -w"


@dataclass(frozen=True)
class Binaries:
    """The folders of the programs."""

    kubernetes: Path
    addons: Path
    monitoring: Path

    def __getitem__(self, name: str) -> Path:
        """The path of a program by its usual name."""
        for folder in (self.kubernetes, self.addons, self.monitoring):
            if (folder / name).exists():
                return folder / name
        raise ClusterError(f"no program {name!r} in {self}")

    @property
    def fingerprint(self) -> str:
        """What tells one set of control plane and add-ons from another."""
        return f"{self.kubernetes.name} {self.addons.name}"


def obtain(layout: Layout, say: Callable[[str], None]) -> Binaries:
    """All programs of the cluster, those that the cache lacks built or downloaded first."""

    def go() -> str:  # looked for only where something is built
        return go_command(layout, say)

    return Binaries(
        kubernetes=_cached(layout, "kubernetes", KUBERNETES_FLAGS, lambda to: _build_kubernetes(go(), to), say),
        addons=_cached(layout, "addons", ADDON_FLAGS, lambda to: _build_addons(go(), to), say),
        monitoring=_cached(layout, "monitoring", "prometheus", _download_prometheus, say),
    )


def _cached(
    layout: Layout,
    name: str,
    flags: str,
    build: Callable[[Path], None],
    say: Callable[[str], None],
) -> Path:
    """The folder of one set of programs; it appears in the cache whole or not at all."""
    pins = files_below(PINS / name, PINS / "pause") if (PINS / name).is_dir() else []
    shelf = layout.cache / "bin"
    folder = shelf / f"{name}-{fingerprint(PINS, pins, flags)}"
    if folder.is_dir():
        return folder
    shelf.mkdir(parents=True, exist_ok=True)
    with alone(shelf / ".lock"):
        if folder.is_dir():  # another process has built it meanwhile
            return folder
        say(f"building {name} (minutes, once)")
        with tempfile.TemporaryDirectory(dir=shelf) as scratch:
            fresh = Path(scratch) / "bin"
            fresh.mkdir()
            build(fresh)
            fresh.rename(folder)
        for earlier in shelf.glob(f"{name}-*"):
            if earlier != folder:
                shutil.rmtree(earlier)
    return folder


def _build_kubernetes(go: str, folder: Path) -> None:
    _go(go, "install", "-ldflags", KUBERNETES_FLAGS, "tool", pins="kubernetes", into=folder)
    # etcd's main package is called server, which says little in a list of processes.
    (folder / "server").rename(folder / "etcd")
    _go(go, "build", "-ldflags", "-s -w", "-o", str(folder / "pause"), "main.go", pins="pause")


def _build_addons(go: str, folder: Path) -> None:
    _go(go, "install", "-ldflags", ADDON_FLAGS, "tool", pins="addons", into=folder)
    module = _go(go, "list", "-m", "-f", "{{.Dir}}", MPI_OPERATOR, pins="addons").strip()
    shutil.copyfile(Path(module) / "manifests/base/kubeflow.org_mpijobs.yaml", folder / MPIJOB_CRD)


def _download_prometheus(folder: Path) -> None:
    """Unpack Debian's package without installing it, so that no service starts."""
    with tempfile.TemporaryDirectory() as scratch:
        run(["apt-get", "download", "prometheus"], cwd=Path(scratch))
        for package in Path(scratch).glob("*.deb"):
            run(["dpkg", "-x", package, scratch])
        for name in ("prometheus", "promtool"):
            shutil.copy(Path(scratch) / "usr/bin" / name, folder / name)


def _go(go: str, *words: str, pins: str, into: Path | None = None) -> str:
    environment = {"CGO_ENABLED": "0", "GOWORK": "off"}
    if into is not None:
        environment["GOBIN"] = str(into)
    return run([go, *words], cwd=PINS / pins, environment=environment)
