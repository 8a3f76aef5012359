"""The test cluster: a real one-node Kubernetes with mpi-operator on this machine."""

from tests.cluster.cluster import Cluster, ensure_images, ensure_up
from tests.cluster.errors import ClusterError

__all__ = ["Cluster", "ClusterError", "ensure_images", "ensure_up"]
