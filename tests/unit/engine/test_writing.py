"""A disk that is full ends no process: whoever writes a model is told."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from quantuner.engine.writing import file_for_torch

SCRIPT = """
import resource, sys
from pathlib import Path
import torch
from torch import nn
from quantuner.engine import artifact

folder, kind = Path(sys.argv[1]), sys.argv[2]
model, x = nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)]), torch.ones(2, 64)
program = torch.export.export(model, (x,))
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))  # Python ignores SIGXFSZ
try:
    if kind == "program":
        artifact.write(folder, program, {})
    else:
        artifact.write_weights(folder, model.state_dict(), {})
except OSError as error:
    print(error.errno, error)
print("alive")
"""


@pytest.mark.parametrize(("kind", "file"), [("program", "model.pt2"), ("weights", "weights.pt")])
def test_a_model_that_finds_no_space_raises_an_os_error_with_the_path(kind: str, file: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "model"), kind], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    said, alive = done.stdout.splitlines()
    assert said.startswith(f"{errno.EFBIG} ")
    assert said.endswith(f"{file}'")
    assert alive == "alive"
    assert [*tmp_path.iterdir()] == []


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    given = {"a": torch.arange(100_000.0), "b": torch.ones(3)}
    with file_for_torch(tmp_path / "x.pt") as file:
        torch.save(given, file)
    torch.testing.assert_close(torch.load(tmp_path / "x.pt"), given, rtol=0, atol=0)


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError("a library's")], ids=repr)
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, file_for_torch(tmp_path / "x.pt"):
        raise error
    assert raised.value is error
