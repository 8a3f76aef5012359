"""etcd, the API server, the controllers and the scheduler."""

from tests.cluster.binaries import Binaries
from tests.cluster.layout import API_PORT, NODE_ADDRESS, POD_RANGE, SERVICE_RANGE, Layout
from tests.cluster.processes import Daemon

ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"


def etcd(layout: Layout, binaries: Binaries) -> Daemon:
    return Daemon(
        "etcd",
        (
            str(binaries["etcd"]),
            f"--data-dir={layout.state / 'etcd'}",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            f"--listen-peer-urls={ETCD_PEER}",
            # The data goes with the cluster: nothing is lost that a power cut could take.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ),
    )


def api_server(layout: Layout, binaries: Binaries) -> Daemon:
    keys = layout.keys
    return Daemon(
        "apiserver",
        (
            str(binaries["kube-apiserver"]),
            f"--etcd-servers={ETCD}",
            f"--advertise-address={NODE_ADDRESS}",
            f"--bind-address={NODE_ADDRESS}",
            f"--secure-port={API_PORT}",
            # The node's name is in nobody's DNS; exec and logs must go by its address.
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged",
            "--authorization-mode=Node,RBAC",
            # The second is what OpenShift and hardened clusters add: owner references need a right of their own.
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            f"--client-ca-file={keys / 'ca.crt'}",
            f"--tls-cert-file={keys / 'apiserver.crt'}",
            f"--tls-private-key-file={keys / 'apiserver.key'}",
            f"--kubelet-client-certificate={keys / 'admin.crt'}",
            f"--kubelet-client-key={keys / 'admin.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys / 'tokens.key'}",
            f"--service-account-signing-key-file={keys / 'tokens.key'}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--profiling=false",
        ),
    )


def controller_manager(layout: Layout, binaries: Binaries) -> Daemon:
    keys = layout.keys
    return Daemon(
        "controller-manager",
        (
            str(binaries["kube-controller-manager"]),
            *_as_user(layout, "controller-manager"),
            f"--service-account-private-key-file={keys / 'tokens.key'}",
            f"--root-ca-file={keys / 'ca.crt'}",
            "--use-service-account-credentials",
            f"--cluster-cidr={POD_RANGE}",
        ),
    )


def scheduler(layout: Layout, binaries: Binaries) -> Daemon:
    return Daemon("scheduler", (str(binaries["kube-scheduler"]), *_as_user(layout, "scheduler")))


def _as_user(layout: Layout, user: str) -> tuple[str, ...]:
    kubeconfig = layout.kubeconfig(user)
    return (
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        # One of each: an election would only delay its start after a test ended the last one.
        "--leader-elect=false",
        "--profiling=false",
    )
