"""The one node: containerd, the kubelet and kube-proxy."""

import json

import yaml

from tests.cluster.binaries import Binaries
from tests.cluster.layout import (
    BRIDGE,
    CGROUP,
    DNS_SERVICE,
    NODE_ADDRESS,
    NODE_NAME,
    POD_RANGE,
    Layout,
)
from tests.cluster.processes import Daemon
from tests.cluster.system import find

PAUSE_IMAGE = "localhost/pause:1"

_RUNTIME_CONFIGURATION = """\
version = 2
root = "{layout.runtime_root}"
state = "{layout.state}/containerd"
[grpc]
  address = "{layout.runtime_socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{layout.state}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  # Below the state folder, so that the mounts of a killed run are known to be ours.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{layout.state}/cni"
"""


def configure(layout: Layout) -> None:
    """Write what the node's parts read at their start."""
    (layout.state / "cni").mkdir(parents=True)
    (layout.state / "cni" / "10-bridge.conflist").write_text(json.dumps(_pod_network(layout)))
    (layout.state / "containerd.toml").write_text(_RUNTIME_CONFIGURATION.format(layout=layout, pause=PAUSE_IMAGE))
    (layout.state / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet_configuration(layout)))


def _pod_network(layout: Layout) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(layout.state / "addresses"),
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True}
    return {"cniVersion": "1.0.0", "name": BRIDGE, "plugins": [{**bridge, "ipam": addresses}]}


def _kubelet_configuration(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "authentication": {
            "anonymous": {"enabled": False},
            "x509": {"clientCAFile": str(layout.keys / "ca.crt")},
            "webhook": {"enabled": True},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.keys / "kubelet.crt"),
        "tlsPrivateKeyFile": str(layout.keys / "kubelet.key"),
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{layout.runtime_socket}",
        "podLogsDir": str(layout.logs / "pods"),
        # A developer's disk is often nearly full, and images are pruned by what imported them.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": False,
    }


def runtime(layout: Layout) -> Daemon:
    program = find("containerd") or "containerd"
    return Daemon("containerd", (program, f"--config={layout.state / 'containerd.toml'}"))


def kubelet(layout: Layout, binaries: Binaries) -> Daemon:
    return Daemon(
        "kubelet",
        (
            str(binaries["kubelet"]),
            f"--config={layout.state / 'kubelet.yaml'}",
            f"--kubeconfig={layout.kubeconfig('kubelet')}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
            f"--root-dir={layout.kubelet_root}",
            f"--cert-dir={layout.keys}",
        ),
    )


def proxy(layout: Layout, binaries: Binaries) -> Daemon:
    return Daemon(
        "proxy",
        (
            str(binaries["kube-proxy"]),
            f"--kubeconfig={layout.kubeconfig('proxy')}",
            f"--cluster-cidr={POD_RANGE}",
            f"--hostname-override={NODE_NAME}",
            "--proxy-mode=iptables",
            # A reply between two pods would take the bridge and miss its translation.
            "--masquerade-all",
            "--iptables-localhost-nodeports=false",
            # Limits of the whole machine are not ours to set.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        ),
    )
