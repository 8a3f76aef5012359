"""containerd's images and containers, through its own client."""

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from pathlib import Path

from tests.cluster.layout import Layout
from tests.cluster.system import run

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Containers:
    """The containerd of the cluster, in the namespace that the kubelet uses."""

    def __init__(self, layout: Layout) -> None:
        self._client = ["ctr", "--address", str(layout.runtime_socket), "--namespace", "k8s.io"]

    def answers(self) -> bool:
        try:
            run([*self._client, "version"], timeout_seconds=5)
        except Exception:  # Any failure is the answer no; its reason is in containerd's log.
            return False
        return True

    def forget_all(self) -> bool:
        """Remove the records of containers of an earlier run; whether there were any."""
        left = run([*self._client, "containers", "list", "--quiet"]).split()
        if left:
            run([*self._client, "containers", "delete", *left])
        return bool(left)

    def images(self) -> dict[str, str]:
        """The digest of each image by its name."""
        return image_table(run([*self._client, "images", "list"]))

    def import_archive(self, archive: Path) -> None:
        run([*self._client, "images", "import", archive])

    def remove_images(self, *names: str) -> None:
        """Remove images with all that only they held; done when the disk has the room again."""
        images = self.images()
        doomed = {images[name] for name in names}
        # The kubelet's side names every image a second time, by its id.
        aliases = [name for name, digest in images.items() if digest in doomed and name.startswith("sha256:")]
        if names:
            run([*self._client, "images", "remove", "--sync", *names, *aliases])

    def import_program(self, program: Path, name: str) -> None:
        """Import one static program as an image of its own."""
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "image.tar"
            archive.write_bytes(image_of(program, name))
            self.import_archive(archive)


def image_table(listing: str) -> dict[str, str]:
    """The digest of each image by its name, from a table whose first columns are REF TYPE DIGEST."""
    rows = (line.split() for line in listing.splitlines()[1:])
    return {row[0]: row[2] for row in rows}


def image_of(program: Path, name: str) -> bytes:
    """A docker archive that holds one static program and starts it as nobody."""
    layer = _tar({program.name: (program.read_bytes(), 0o755)})
    configuration = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    return _tar(
        {
            "config.json": (configuration, 0o644),
            "layer.tar": (layer, 0o644),
            "manifest.json": (json.dumps(manifest).encode(), 0o644),
        }
    )


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
