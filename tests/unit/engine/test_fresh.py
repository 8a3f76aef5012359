"""A saved model in a process of its own: it computes what one loaded here does, and knows nothing of this process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine import artifact
from quantuner.engine.allocation import keeping_freed_memory
from quantuner.engine.engine import Engine
from quantuner.engine.fresh import FreshModel, FreshProcess
from quantuner.space.samplers import initial
from tests.unit.engine.models import Net, engine_of, images, seeded


@pytest.fixture(scope="module")
def engine() -> Engine:
    made = engine_of(seeded(Net))
    made.calibrate()
    return made


@pytest.fixture(scope="module")
def file(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    engine.save(initial(engine.space), folder)
    return folder / artifact.MODEL_FILE


@pytest.fixture
def process() -> Iterator[FreshProcess]:
    with FreshProcess() as process:
        yield process


@pytest.fixture
def model(file: Path, process: FreshProcess) -> FreshModel:
    process.load(file)
    return FreshModel(artifact.load(file.parent), process)


def test_it_computes_what_the_one_loaded_here_does(model: FreshModel) -> None:
    batch = images(seed=1, count=7)[2:6]  # a part of a larger tensor
    assert torch.equal(model.eval()(batch), model.model(batch))


def test_it_takes_inputs_by_name(model: FreshModel) -> None:
    batch = images(seed=1)
    assert torch.equal(model(x=batch), model(batch))
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        model(y=batch)


def test_an_evaluation_that_gives_inputs_by_name_is_measured_alike(process: FreshProcess, tmp_path: Path) -> None:
    engine = engine_of(seeded(Net), eval_func=lambda model: float(model(x=images(seed=1)).sum()))
    engine.calibrate()
    engine.fresh = process
    found = engine.trial(initial(engine.space))
    assert not found.error
    assert engine.save(initial(engine.space), tmp_path / "model") == found.accuracy


def test_threads_that_call_it_have_their_own_answers(model: FreshModel) -> None:
    batches = [images(seed=seed) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(model, batches)
    assert all(torch.equal(one, model.model(batch)) for one, batch in zip(found, batches, strict=True))


def test_it_is_another_process(model: FreshModel, process: FreshProcess) -> None:
    process.close()
    with pytest.raises(SearchError, match="ended by signal 9"):
        model(images(seed=1))


def test_the_engine_measures_what_it_saves_there(engine: Engine, process: FreshProcess, tmp_path: Path) -> None:
    here = engine.save(initial(engine.space), tmp_path / "model")
    engine.fresh = process
    try:
        assert [engine.save(initial(engine.space), tmp_path / name) for name in ("model", "other")] == [here, here]
        process.close()
        with pytest.raises(SearchError, match="ended by signal 9"):
            engine.save(initial(engine.space), tmp_path / "model")
    finally:
        engine.fresh = None


def test_settings_of_this_process_are_not_those_of_the_other(model: FreshModel) -> None:
    batch = images(seed=1)
    torch.set_flush_denormal(True)
    try:
        assert torch.full((1,), 1e-40).mul(1.0).item() == 0.0
        assert torch.equal(model(batch), model.model(batch))
    finally:
        torch.set_flush_denormal(False)


def test_what_the_model_raises_is_told(model: FreshModel) -> None:
    with pytest.raises(SearchError, match="loaded in a process of its own, raises") as raised:
        model(torch.zeros(2, 99, 3, 3))
    assert raised.value.reason is Failure.VERIFICATION_FAILED
    assert "Traceback" in raised.value.traceback
    assert model(images(seed=1)) is not None


def test_a_file_that_cannot_be_loaded_is_told(process: FreshProcess, tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_text("no program")
    process.load(tmp_path / "model.pt2")
    with pytest.raises(SearchError, match="raises"):
        process.loaded()


def test_a_process_that_was_killed_is_told_of(model: FreshModel, process: FreshProcess) -> None:
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(SearchError, match=r"ended by signal 9; .* give rank 0 more"):
        model(images(seed=1))


def test_it_ends_with_the_process_that_began_it() -> None:
    code = "import os; from quantuner.engine.fresh import FreshProcess; FreshProcess().start(); os._exit(0)"
    # The other process has the same standard error: its end is the end of the file.
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=60, check=True)
    assert done.stderr == ""


def test_it_is_told_to_keep_the_memory_that_it_frees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    with FreshProcess() as process:
        process.load(tmp_path / "none.pt2")
        with pytest.raises(SearchError, match="raises"):  # it answers, so its environment is there to be read
            process.loaded()
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().decode().split("\0")
    told = keeping_freed_memory({})
    assert told.keys() == {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"}
    assert {f"{name}={value}" for name, value in told.items()} <= {*environment}
