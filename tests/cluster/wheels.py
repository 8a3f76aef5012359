"""Which build of torch goes into the tuner image: the one that the local runs of the tests use.

The cluster's accuracy is compared with a local run's bit for bit, and a CPU build is a tenth of the
default index's. A folder in PIP_FIND_LINKS offers the build as a wheel; without one, the torch that
is installed beside this Python is packed up again, unless it is the default index's build anyway.
"""

import csv
import io
import os
import re
import shutil
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

_VERSION_IN_NAME = re.compile(r"torch-([^-]+)-")

# What pip writes into an installed package and expects to be in no wheel.
_INSTALLED_ONLY = {"INSTALLER", "REQUESTED", "direct_url.json"}


def offered_folder() -> Path | None:
    """The folder of PIP_FIND_LINKS that holds a build of torch."""
    for word in os.environ.get("PIP_FIND_LINKS", "").split():
        folder = Path(word)
        if folder.is_dir() and any(folder.glob("torch-*.whl")):
            return folder.resolve()
    return None


def torch_build() -> str:
    """The version of the torch build that the image gets, or nothing for the default index's."""
    folder = offered_folder()
    if folder is not None:
        found = (_VERSION_IN_NAME.match(path.name) for path in folder.glob("torch-*.whl"))
        return " ".join(sorted(match[1] for match in found if match))
    installed = _installed_torch()
    return installed.version if installed else ""


def torch_folder(cache: Path) -> Path | None:
    """A folder with that build's wheel, or None for the default index's build."""
    folder, installed = offered_folder(), _installed_torch()
    if folder is not None or installed is None:
        return folder
    packed = cache / "wheels" / installed.version
    if not packed.is_dir():
        for earlier in packed.parent.glob("*"):
            shutil.rmtree(earlier)
        fresh = packed.with_name("incomplete")
        fresh.mkdir(parents=True)
        pack(installed, fresh)
        fresh.rename(packed)
    return packed


def _installed_torch() -> Distribution | None:
    try:
        found = distribution("torch")
    except PackageNotFoundError:
        return None
    # A local version label, as in 2.13.0+cpu, marks a build that the default index does not have.
    return found if "+" in found.version else None


def pack(package: Distribution, folder: Path) -> Path:
    """The wheel of an installed package, made again of its files."""
    tags = re.findall(r"^Tag: (\S+)$", package.read_text("WHEEL") or "", re.MULTILINE)
    wheel = folder / f"{package.metadata['Name']}-{package.version}-{tags[0]}.whl"
    information = f"{package.metadata['Name']}-{package.version}.dist-info"
    rows: list[list[str]] = []
    # Not compressed: it is unpacked a moment later.
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for file in package.files or []:
            is_script = file.parts[0] == ".."
            if is_script or file.suffix == ".pyc" or file.name in _INSTALLED_ONLY:
                continue
            if file.as_posix() != f"{information}/RECORD":
                archive.write(str(file.locate()), file.as_posix())
                rows.append([file.as_posix(), f"{file.hash.mode}={file.hash.value}" if file.hash else "", ""])
        record = io.StringIO()
        csv.writer(record, lineterminator="\n").writerows([*rows, [f"{information}/RECORD", "", ""]])
        archive.writestr(f"{information}/RECORD", record.getvalue())
    return wheel
