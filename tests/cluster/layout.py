"""Where the test cluster lives on this machine: its folders and its addresses."""

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PINS = Path(__file__).resolve().parent / "pins"

# All of it lies in 198.18.0.0/15, which RFC 2544 sets aside for tests: no route of a real network
# leads there, so a pod cannot shadow an address that the machine needs.
NODE_ADDRESS = "198.18.0.1"
POD_RANGE = "198.18.1.0/24"
SERVICE_RANGE = "198.19.0.0/24"
API_SERVICE = "198.19.0.1"
DNS_SERVICE = "198.19.0.10"

NODE_NAME = "node-1"
BRIDGE = "qtbr0"
CGROUP = "quantuner-cluster"
API_PORT = 6443
KUBELET_PORT = 10250

# Every port that a part of the cluster listens on. 8080 is fixed in mpi-operator's source.
PORTS = {
    "etcd": (2379, 2380),
    "apiserver": (API_PORT,),
    "controller-manager": (10257,),
    "scheduler": (10259,),
    "kubelet": (KUBELET_PORT, 10248),
    "proxy": (10249, 10256),
    "dns": (9154,),
    "mpi-operator": (8080,),
}


@dataclass(frozen=True)
class Layout:
    """The two folders of the cluster: `state` goes with it, `cache` outlives it."""

    state: Path
    cache: Path

    @classmethod
    def from_environment(cls) -> "Layout":
        """The layout that QUANTUNER_CLUSTER_STATE and QUANTUNER_CACHE ask for, or the default."""
        return cls(
            state=Path(os.environ.get("QUANTUNER_CLUSTER_STATE", "/run/quantuner-cluster")).resolve(),
            cache=Path(os.environ.get("QUANTUNER_CACHE") or Path.home() / ".cache" / "quantuner").resolve(),
        )

    @property
    def lock(self) -> Path:
        """Of the cluster. Whoever wants both locks takes this one first."""
        return self.state.with_name(self.state.name + ".lock")

    @property
    def images_lock(self) -> Path:
        """Of the images that are built and put into it."""
        return self.state.with_name(self.state.name + ".images.lock")

    @property
    def keys(self) -> Path:
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        return self.state / "log"

    @property
    def processes(self) -> Path:
        return self.state / "processes"

    @property
    def runtime_socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def runtime_root(self) -> Path:
        """containerd's image store, kept so that a warm start has its images already."""
        return self.cache / "containerd"

    @property
    def runtime_blobs(self) -> Path:
        return self.runtime_root / "io.containerd.content.v1.content" / "blobs" / "sha256"

    @property
    def kubelet_root(self) -> Path:
        """On disk and not under /run, which may be a small tmpfs: emptyDir volumes lie here."""
        return self.cache / "kubelet"

    @property
    def build_root(self) -> Path:
        return self.cache / "buildah"

    def kubeconfig(self, user: str) -> Path:
        return self.state / f"{user}.conf"
