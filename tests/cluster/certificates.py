"""The cluster's keys and certificates, and the kubeconfig of each of its users."""

import base64
from pathlib import Path

import yaml

from tests.cluster.layout import API_PORT, API_SERVICE, NODE_ADDRESS, NODE_NAME, Layout
from tests.cluster.system import run

VALID_DAYS = 365

# Each user's subject; RBAC knows the component users by exactly these names.
USERS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE_NAME}",
    "proxy": "/CN=system:kube-proxy",
    "dns": "/O=system:masters/CN=coredns",
}

_API_NAMES = [
    f"DNS:kubernetes{suffix}" for suffix in ("", ".default", ".default.svc", ".default.svc.cluster.local")
] + [f"IP:{NODE_ADDRESS}", f"IP:{API_SERVICE}"]

_ELLIPTIC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")

# openssl insists on a configuration, and the machine's own one adds extensions to every certificate.
_CONFIGURATION = "[req]\ndistinguished_name = subject\n[subject]\n"


def make(layout: Layout) -> None:
    """Make a new certificate authority and everything that it signs."""
    keys = layout.keys
    keys.mkdir(parents=True, mode=0o700)
    (keys / "openssl.cnf").write_text(_CONFIGURATION)
    _certify(keys, "ca", "/CN=quantuner-test-ca", ["-addext", "basicConstraints=critical,CA:TRUE"])
    _sign(keys, "apiserver", "/CN=kube-apiserver", _API_NAMES)
    for user, subject in USERS.items():
        names = [f"DNS:{NODE_NAME}", f"IP:{NODE_ADDRESS}"] if user == "kubelet" else []
        _sign(keys, user, subject, names)
        _write_kubeconfig(layout, user)
    run(["openssl", "ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", keys / "tokens.key"])


def _certify(keys: Path, name: str, subject: str, extra: list[str]) -> None:
    run(
        ["openssl", "req", "-x509", *_ELLIPTIC, "-config", keys / "openssl.cnf", "-days", str(VALID_DAYS),
         "-keyout", keys / f"{name}.key", "-out", keys / f"{name}.crt", "-subj", subject, *extra]
    )  # fmt: skip


def _sign(keys: Path, name: str, subject: str, alternative_names: list[str]) -> None:
    extra = ["-CA", str(keys / "ca.crt"), "-CAkey", str(keys / "ca.key")]
    extra += ["-addext", "extendedKeyUsage=serverAuth,clientAuth"]
    if alternative_names:
        extra += ["-addext", f"subjectAltName={','.join(alternative_names)}"]
    _certify(keys, name, subject, extra)


def _write_kubeconfig(layout: Layout, user: str) -> None:
    def embedded(name: str) -> str:
        return base64.b64encode((layout.keys / name).read_bytes()).decode()

    server = {
        "server": f"https://{NODE_ADDRESS}:{API_PORT}",
        "certificate-authority-data": embedded("ca.crt"),
    }
    identity = {
        "client-certificate-data": embedded(f"{user}.crt"),
        "client-key-data": embedded(f"{user}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "quantuner-test", "cluster": server}],
        "users": [{"name": user, "user": identity}],
        "contexts": [{"name": "quantuner-test", "context": {"cluster": "quantuner-test", "user": user}}],
        "current-context": "quantuner-test",
    }
    path = layout.kubeconfig(user)
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
