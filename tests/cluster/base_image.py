"""The base image: from its registry where that can be reached, else made of Debian packages."""

import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.cluster.builder import Builder
from tests.cluster.errors import ClusterError
from tests.cluster.system import find, run

REGISTRY_PORT = 443
REACH_SECONDS = 5.0
PULL_SECONDS = 600.0
SUITE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-venv"


def name_in(containerfile: Path) -> str:
    """The base image that a Containerfile names by default."""
    found = re.search(r"^ARG BASE=(\S+)$", containerfile.read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError(f"{containerfile} has no line `ARG BASE=…`, which names its base image")
    return found[1]


def ensure(builder: Builder, name: str, say: Callable[[str], None]) -> None:
    """Have the base image among the builder's images, under the name that FROM asks for."""
    if name in builder.images():
        return
    if _reachable(name.partition("/")[0]):
        say(f"pulling {name}")
        try:
            builder.run("pull", name, timeout_seconds=PULL_SECONDS)
            return
        except ClusterError as error:
            say(str(error))
    say(f"making {name} of Debian packages, since its registry is out of reach")
    _debootstrap(builder, name)


def _reachable(registry: str) -> bool:
    try:
        socket.create_connection((registry, REGISTRY_PORT), timeout=REACH_SECONDS).close()
    except OSError:
        return False
    return True


def _debootstrap(builder: Builder, name: str) -> None:
    with tempfile.TemporaryDirectory(dir=builder.scratch) as scratch:
        root = Path(scratch) / "root"
        mirror = _mirror()
        run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root, *mirror],
            timeout_seconds=PULL_SECONDS,
        )
        for leftovers in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(root / leftovers)
            (root / leftovers).mkdir()
        container = builder.run("from", "scratch").strip()
        try:
            builder.run("copy", "--quiet", container, str(root), "/")
            builder.run("commit", "--quiet", container, name)
        finally:
            builder.run("rm", container)


def _mirror() -> list[str]:
    """The Debian mirror of this machine's own apt, or nothing for debootstrap's usual one."""
    if find("apt-get") is None:
        return []
    asked = ["apt-get", "indextargets", "--format", "$(SITE)"]
    sites = run([*asked, "Created-By: Packages", f"Codename: {SUITE}", "Origin: Debian"]).split()
    return sites[:1]
