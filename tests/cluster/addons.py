"""Cluster DNS and mpi-operator, both as processes of the host."""

from typing import Any

from tests.cluster.api import Api
from tests.cluster.binaries import MPIJOB_CRD, Binaries
from tests.cluster.layout import DNS_SERVICE, NODE_ADDRESS, PORTS, Layout
from tests.cluster.processes import Daemon

DNS_PORT = 53
CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/mpijobs.kubeflow.org"
DNS_HEALTH = f"127.0.0.1:{PORTS['dns'][0]}"
# mpi-operator refuses to start unless the namespace of its lock is there.
LOCK_NAMESPACE = "mpi-operator"

# As kubeadm has it: names of the cluster are not cached, so that a pod that is back is found at once.
_COREFILE = f"""\
.:{DNS_PORT} {{
  bind {NODE_ADDRESS}
  errors
  health {DNS_HEALTH}
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {{kubeconfig}}
    pods insecure
    ttl 5
  }}
  cache 30 {{
    disable success cluster.local
    disable denial cluster.local
  }}
}}
"""


def configure(layout: Layout) -> None:
    kubeconfig = str(layout.kubeconfig("dns"))
    (layout.state / "Corefile").write_text(_COREFILE.replace("{kubeconfig}", kubeconfig))


def dns(layout: Layout, binaries: Binaries) -> Daemon:
    return Daemon("dns", (str(binaries["coredns"]), "-conf", str(layout.state / "Corefile")))


def mpi_operator(layout: Layout, binaries: Binaries) -> Daemon:
    return Daemon(
        "mpi-operator",
        (
            str(binaries["mpi-operator"]),
            f"-kubeConfig={layout.kubeconfig('admin')}",
            f"-lock-namespace={LOCK_NAMESPACE}",
        ),
    )


def apply_objects(api: Api, binaries: Binaries) -> None:
    """Apply what the add-ons and kube-proxy need; may be done again at any time."""
    api.apply("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/node-proxier", _PROXY_RIGHTS)
    api.apply("/api/v1/namespaces/kube-system/services/kube-dns", _DNS_SERVICE)
    api.apply("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns", _DNS_ENDPOINTS)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LOCK_NAMESPACE}}
    api.apply(f"/api/v1/namespaces/{LOCK_NAMESPACE}", namespace)
    api.apply(CRD_PATH, binaries[MPIJOB_CRD].read_text())


_PORTS = [("dns", "UDP"), ("dns-tcp", "TCP")]

_PROXY_RIGHTS: dict[str, Any] = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "node-proxier"},
    "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "system:node-proxier",
    },
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}],
}

# Without a selector: its one endpoint is a process of the host and no pod.
_DNS_SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "kube-dns", "namespace": "kube-system"},
    "spec": {
        "clusterIP": DNS_SERVICE,
        "ports": [{"name": n, "protocol": p, "port": DNS_PORT} for n, p in _PORTS],
    },
}

_DNS_ENDPOINTS: dict[str, Any] = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {
        "name": "kube-dns",
        "namespace": "kube-system",
        "labels": {"kubernetes.io/service-name": "kube-dns"},
    },
    "addressType": "IPv4",
    "ports": [{"name": n, "protocol": p, "port": DNS_PORT} for n, p in _PORTS],
    "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
}
