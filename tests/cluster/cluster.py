"""The cluster as tests see it."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import images, lifecycle
from tests.cluster.api import Api
from tests.cluster.binaries import Binaries, obtain
from tests.cluster.containers import Containers
from tests.cluster.errors import ClusterError
from tests.cluster.layout import NODE_ADDRESS, Layout
from tests.cluster.preflight import expect_able_machine, install_missing
from tests.cluster.processes import Daemon, Processes
from tests.cluster.system import alone, find

EXISTING_CLUSTER = "QUANTUNER_TEST_KUBECONFIG"
EXISTING_IMAGES = ("QUANTUNER_TEST_OPERATOR_IMAGE", "QUANTUNER_TEST_TUNER_IMAGE")


@dataclass(frozen=True)
class Cluster:
    """A running cluster: one built by this package, or an existing one used as it is."""

    layout: Layout
    kubeconfig: Path
    binaries: Binaries | None
    """The programs that were built for it; None of an existing cluster."""

    @property
    def is_ours(self) -> bool:
        return self.binaries is not None

    @property
    def node_address(self) -> str:
        """Where processes of this machine are reached from pods."""
        self._own("the node's address")
        return NODE_ADDRESS

    @property
    def images(self) -> images.Images:
        """The names of the images of the present sources; ensure_images sees that they are there."""
        if self.is_ours:
            return images.names()
        operator, tuner = (os.environ.get(name) for name in EXISTING_IMAGES)
        if not operator or not tuner:
            raise ClusterError(
                f"{EXISTING_CLUSTER} names a cluster that no image can be put into: push both images to "
                f"a registry that it can pull from, and name them in {' and '.join(EXISTING_IMAGES)}"
            )
        return images.Images(operator, tuner)

    def program(self, name: str) -> Path:
        """The path of kubectl, helm, prometheus, promtool or another program of the cluster."""
        if self.binaries is not None:
            return self.binaries[name]
        found = find(name)
        if found is None:
            raise ClusterError(f"tests on an existing cluster need {name}: install it or put it into PATH")
        return Path(found)

    def process_id(self, name: str) -> int | None:
        """The id of a part of the cluster (`apiserver`, `kubelet`, …), None when it is down."""
        self._own("a process id")
        return Processes(self.layout).pid(name)

    def stop_process(self, name: str, sig: signal.Signals = signal.SIGTERM) -> None:
        """End a part of the cluster; returns when it is gone."""
        self._daemon(name)
        Processes(self.layout).stop(name, sig=sig)

    def start_process(self, name: str) -> None:
        """Start a part of the cluster again; of the API server, return when it is ready.

        With the API server start the parts that ended by themselves for want of it, as a
        Deployment's would: mpi-operator does when it cannot renew its lease for 15 s.
        """
        processes = Processes(self.layout)
        processes.start(self._daemon(name))
        if name == "apiserver":
            api = Api(self.kubeconfig)
            lifecycle.await_part(processes, name, "answers /readyz", api.is_ready)
            for other in processes.names():
                processes.start(self._daemon(other))

    def revive(self, name: str) -> None:
        """Start a part that has ended by itself, as its Deployment would; of a cluster that is ours."""
        if self.is_ours:
            self.start_process(name)

    def import_image(self, archive: Path) -> None:
        """Put the image of a docker or OCI archive into the node."""
        self._own("importing an image")
        Containers(self.layout).import_archive(archive)

    def log(self, name: str) -> Path:
        return Processes(self.layout).log(name)

    def _daemon(self, name: str) -> Daemon:
        parts = lifecycle.daemons(self.layout, self._own("a part of the control plane"))
        if name not in parts:
            raise ClusterError(f"no part of the cluster is called {name!r}; there are {sorted(parts)}")
        return parts[name]

    def _own(self, what: str) -> Binaries:
        if self.binaries is None:
            raise ClusterError(f"{what} can only be had of a cluster of our own: unset {EXISTING_CLUSTER}")
        return self.binaries


def narrate(text: str) -> None:
    """Tell a person what takes time."""
    sys.stderr.write(f"cluster: {text}\n")


def ensure_up(say: Callable[[str], None] = narrate) -> Cluster:
    """The running test cluster, built first where there is none or where it is not well."""
    layout = Layout.from_environment()
    existing = os.environ.get(EXISTING_CLUSTER)
    if existing:
        if not Path(existing).is_file():
            raise ClusterError(
                f"{EXISTING_CLUSTER} names {existing!r}, which is no file: name a kubeconfig or unset it"
            )
        return Cluster(layout, Path(existing).resolve(), binaries=None)
    expect_able_machine()
    with alone(layout.lock):
        install_missing(say)
        binaries = obtain(layout, say)
        if not lifecycle.is_well(layout, binaries):
            say("building the cluster")
            with alone(layout.images_lock):
                lifecycle.build(layout, binaries)
    return Cluster(layout, layout.kubeconfig("admin"), binaries)


def ensure_images(say: Callable[[str], None] = narrate) -> images.Images:
    """The images of the present sources, built and put into the running cluster where they lack."""
    cluster = ensure_up(say)
    if not cluster.is_ours:
        return cluster.images
    with alone(cluster.layout.images_lock):  # not the cluster's: it may be used while images are built
        return images.ensure(cluster.layout, say)


def take_down() -> None:
    """Remove the test cluster; an existing one that the environment names stays as it is."""
    if os.environ.get(EXISTING_CLUSTER):
        return
    expect_able_machine()
    layout = Layout.from_environment()
    with alone(layout.lock), alone(layout.images_lock):
        lifecycle.tear_down(layout)


def describe() -> list[str]:
    """What runs on this machine, a line each; builds and changes nothing."""
    if existing := os.environ.get(EXISTING_CLUSTER):
        return [f"the existing cluster of {existing} ({EXISTING_CLUSTER})"]
    layout = Layout.from_environment()
    processes = Processes(layout)
    if not processes.names():
        return [f"no cluster: nothing runs that {layout.state} knows of"]
    lines = [f"{name}: {processes.pid(name) or 'dead'}" for name in processes.names()]
    lines += [f"kubeconfig: {layout.kubeconfig('admin')}"]
    if processes.pid("containerd") is not None:
        present = Containers(layout).images()
        lines += [f"image: {name}" for name in present if name.startswith(images.PREFIX)]
    return lines
