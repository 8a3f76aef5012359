"""buildah with its storage in the cache, and what a build needs of this machine to reach pip."""

import os
import shutil
from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout
from tests.cluster.mounts import unmount_below
from tests.cluster.system import run

# Folders that every Debian base has: a mount elsewhere would leave its mount point in the image.
PIP_MOUNT = "/mnt"
WHEELS_MOUNT = "/media"

# pip's settings that say where packages are and how to reach them, by environment variable.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
AUTHORITIES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")

# Where it starts a container, buildah runs from a sealed copy of itself, and does not ask the kernel again.
NOT_SEALED = "sealing memfd copy: Device or resource busy"
ATTEMPTS = 3


class Builder:
    """The image builder; everything it stores lies below the cache."""

    def __init__(self, layout: Layout) -> None:
        self._storage = layout.build_root
        self.scratch = layout.build_root / "scratch"
        self._pip = layout.build_root / "pip"

    def clear(self) -> None:
        """Remove what a killed build left: half a Debian with its mounts, containers, archives."""
        unmount_below(self.scratch)
        if self.scratch.exists():
            shutil.rmtree(self.scratch)
        self.scratch.mkdir(parents=True)
        self.run("rm", "--all")

    def run(self, *words: str, timeout_seconds: float | None = None) -> str:
        """What buildah prints; it is asked again where the kernel was moving the very memory that it wanted sealed.

        A build goes on from the steps that are done. Raises ClusterError.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return self._once(*words, timeout_seconds=timeout_seconds)
            except ClusterError as error:
                if NOT_SEALED not in str(error):
                    raise
        return self._once(*words, timeout_seconds=timeout_seconds)

    def _once(self, *words: str, timeout_seconds: float | None) -> str:
        storage = ["--root", str(self._storage / "storage"), "--runroot", str(self._storage / "run")]
        command = ["buildah", *storage, "--storage-driver", "overlay", *words]
        return run(command, timeout_seconds=timeout_seconds, environment={"BUILDAH_ISOLATION": "chroot"})

    def images(self) -> set[str]:
        """The names of the builder's images."""
        return set(self.run("images", "--format", "{{.Name}}:{{.Tag}}").split())

    def build(
        self,
        root: Path,
        kind: str,
        name: str,
        *,
        target: str | None,
        wheels: Path | None,
        arguments: Mapping[str, str],
    ) -> None:
        """Build one image, or one stage of it, from a copy of the repository's sources."""
        self._write_pip_settings()
        words = ["bud", "--quiet", "--layers", "--pull-never", "--network=host", "--tag", name]
        words += ["--file", str(root / "images" / kind / "Containerfile")]
        words += ["--ignorefile", str(root / "images" / kind / "Containerfile.dockerignore")]
        words += ["--volume", f"{self._pip}:{PIP_MOUNT}:ro"]
        given = {**arguments, "PIP_CONFIG_FILE": f"{PIP_MOUNT}/pip.conf"}
        if wheels is not None:
            words += ["--volume", f"{wheels}:{WHEELS_MOUNT}:ro"]
            given["TORCH_FIND_LINKS"] = WHEELS_MOUNT
        for key, value in given.items():
            words += ["--build-arg", f"{key}={value}"]
        if target is not None:
            words += ["--target", target]
        self.run(*words, str(root))

    def _write_pip_settings(self) -> None:
        """This machine's pip settings as one file for the build; nothing of it stays in an image."""
        self._pip.mkdir(exist_ok=True)
        settings = ConfigParser(interpolation=None)
        settings.read(["/etc/pip.conf"])
        if not settings.has_section("global"):
            settings.add_section("global")
        for setting in PIP_SETTINGS:
            value = os.environ.get(f"PIP_{setting.replace('-', '_').upper()}")
            if value:
                settings.set("global", setting, value)
        settings.remove_option("global", "cert")
        authorities = [os.environ[name] for name in AUTHORITIES if os.environ.get(name)]
        if authorities and Path(authorities[0]).is_file():
            shutil.copyfile(authorities[0], self._pip / "authorities.crt")
            settings.set("global", "cert", f"{PIP_MOUNT}/authorities.crt")
        with (self._pip / "pip.conf").open("w") as file:
            settings.write(file)
