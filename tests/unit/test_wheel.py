"""The wheel holds what an installed package needs, the CRD and the licence among it, under the version of the code."""

import subprocess
import sys
import zipfile
from pathlib import Path

import quantuner

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_the_package_and_the_crd_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        crd = archive.read("quantuner/api/quantizationtunings.yaml")
        names = set(archive.namelist())
    assert crd == (ROOT / "crds" / "quantizationtunings.yaml").read_bytes()
    assert {"quantuner/py.typed", "quantuner/cli/__init__.py", "quantuner/controller/__main__.py"} <= names
    # The images install this wheel, so they have the licence, too.
    assert f"quantuner-{quantuner.__version__}.dist-info/licenses/LICENSE" in names
