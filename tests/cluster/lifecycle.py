"""Bringing the cluster up in order, telling whether it is well, and taking it down."""

import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.cluster import addons, certificates, cgroups, control_plane, network, node
from tests.cluster.api import Api, UnavailableError
from tests.cluster.binaries import Binaries
from tests.cluster.containers import Containers
from tests.cluster.errors import ClusterError, tail
from tests.cluster.layout import NODE_NAME, Layout
from tests.cluster.mounts import unmount_below
from tests.cluster.preflight import expect_free_ports
from tests.cluster.processes import Daemon, Processes
from tests.cluster.system import POLL_SECONDS

NODE_PATH = f"/api/v1/nodes/{NODE_NAME}"
LOCK_PATH = f"/apis/coordination.k8s.io/v1/namespaces/{addons.LOCK_NAMESPACE}/leases/mpi-operator"

# Ten times what the slowest part took on two busy cores.
START_SECONDS = 180.0

# Where the kubelet keeps a link to each container's log, whatever its settings say.
_LOG_LINKS = Path("/var/log/containers")


def daemons(layout: Layout, binaries: Binaries) -> dict[str, Daemon]:
    """Every process of the cluster by name, in the order of their start."""
    parts = [
        node.runtime(layout),
        control_plane.etcd(layout, binaries),
        control_plane.api_server(layout, binaries),
        control_plane.controller_manager(layout, binaries),
        control_plane.scheduler(layout, binaries),
        node.kubelet(layout, binaries),
        node.proxy(layout, binaries),
        addons.dns(layout, binaries),
        addons.mpi_operator(layout, binaries),
    ]
    return {part.name: part for part in parts}


def is_well(layout: Layout, binaries: Binaries) -> bool:
    """Whether a cluster of exactly these programs is up and every part of it works."""
    identity = layout.state / "identity"
    if not identity.exists() or identity.read_text() != binaries.fingerprint:
        return False
    processes = Processes(layout)
    if not all(processes.pid(name) for name in daemons(layout, binaries)):
        return False
    api = Api(layout.kubeconfig("admin"))
    return (
        api.is_ready()
        and api.condition(NODE_PATH, "Ready")
        and api.condition(addons.CRD_PATH, "Established")
        and Containers(layout).answers()
    )


def build(layout: Layout, binaries: Binaries) -> None:
    """A new cluster in place of whatever is left of an earlier one."""
    tear_down(layout)
    expect_free_ports()
    layout.state.mkdir(parents=True)
    layout.kubelet_root.mkdir(parents=True)
    cgroups.create()
    network.prepare(layout)
    certificates.make(layout)
    node.configure(layout)
    addons.configure(layout)
    _start_all(layout, daemons(layout, binaries), binaries)
    # Written last: a cluster whose start was cut short has none and is built anew.
    (layout.state / "identity").write_text(binaries.fingerprint)


def _start_all(layout: Layout, parts: dict[str, Daemon], binaries: Binaries) -> None:
    processes = Processes(layout)

    def start(*names: str) -> None:
        for name in names:
            processes.start(parts[name])

    start("containerd", "etcd", "apiserver")
    _prepare_runtime(layout, processes, parts["containerd"], binaries)
    api = Api(layout.kubeconfig("admin"))
    await_part(processes, "apiserver", "answers /readyz", api.is_ready)
    start("controller-manager", "scheduler", "kubelet", "proxy", "dns")
    await_part(processes, "apiserver", "takes objects", lambda: _applied(api, binaries))
    await_part(processes, "apiserver", "serves MPIJobs", lambda: api.condition(addons.CRD_PATH, "Established"))
    start("mpi-operator")
    await_part(processes, "kubelet", "node is Ready", lambda: api.condition(NODE_PATH, "Ready"))
    await_part(processes, "mpi-operator", "holds its lock", lambda: _exists(api, LOCK_PATH))


def _prepare_runtime(layout: Layout, processes: Processes, daemon: Daemon, binaries: Binaries) -> None:
    """Wait for containerd, rid it of an earlier run's containers, and see to the pause image."""
    containers = Containers(layout)
    await_part(processes, daemon.name, "answers", containers.answers)
    if containers.forget_all():
        # It read the records at its start and would show the kubelet pods that are no more.
        processes.stop(daemon.name)
        processes.start(daemon)
        await_part(processes, daemon.name, "answers", containers.answers)
    if node.PAUSE_IMAGE not in containers.images():
        containers.import_program(binaries["pause"], node.PAUSE_IMAGE)


def _applied(api: Api, binaries: Binaries) -> bool:
    try:
        addons.apply_objects(api, binaries)
    except UnavailableError:
        return False
    return True


def _exists(api: Api, path: str) -> bool:
    try:
        return api.get(path) is not None
    except UnavailableError:
        return False


def await_part(processes: Processes, name: str, what: str, condition: Callable[[], bool]) -> None:
    """Wait until the part of the cluster does what is expected of it.

    Raises ClusterError with the end of its log when it ends, or does not do it in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        processes.expect_alive(name)
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{name}: {what!r} did not come true within {START_SECONDS:.0f} s; "
                f"its log ends\n{tail(processes.log(name))}"
            )
        time.sleep(POLL_SECONDS)


def tear_down(layout: Layout) -> None:
    """Remove every trace of the cluster but its cache; one that is half there, or not at all, too."""
    processes = Processes(layout)
    # Killed, since all they could put in order is thrown away; only the image store is kept.
    processes.stop(*(name for name in processes.names() if name != "containerd"), sig=signal.SIGKILL)
    processes.stop("containerd")
    cgroups.end_members()
    unmount_below(layout.state, layout.kubelet_root, layout.runtime_root)
    network.clear(layout)
    cgroups.remove()
    for folder in (layout.state, layout.kubelet_root):
        if folder.exists():
            shutil.rmtree(folder)
    if _LOG_LINKS.is_dir():
        for link in _LOG_LINKS.iterdir():
            if link.is_symlink() and layout.logs in link.readlink().parents:
                with suppress(FileNotFoundError):
                    link.unlink()
