"""The commands that need no search: version, validate, and what is said of a wrong command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantuner import __version__
from quantuner.api.journal import Finished, Outcome, Record, encode
from quantuner.cli import main
from quantuner.engine.artifact import WEIGHTS_FILE
from tests.unit.cli.tasks import written
from tests.unit.records import TIME, launched, manifest, told


def resource(folder: Path, body: Any) -> str:
    path = folder / "resource.yaml"
    path.write_text(body if isinstance(body, str) else yaml.safe_dump(body))
    return str(path)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_the_package_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quantuner.cli", "version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{__version__}\n"


def test_a_valid_resource_is_shown_with_its_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = manifest({"image": "registry/with/a/long/path" * 8, "task": {"entrypoint": "m:f", "args": {"a": "[red]"}}})
    path = resource(tmp_path, body)
    assert main(["validate", path]) == 0
    first, _, shown = capsys.readouterr().out.partition("\n")
    assert first == f"{path}: valid"
    spec = yaml.safe_load(shown)["spec"]
    assert (spec["workers"], spec["task"], spec["image"]) == (2, body["spec"]["task"], body["spec"]["image"])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(manifest({"workers": 0}), ["spec.workers: 0 is less than the minimum of 1"], id="one field"),
        pytest.param(manifest({"workers": 0, "nodes": 1}), ["spec.workers", "spec.nodes"], id="two fields"),
        pytest.param(
            manifest({"task": {"entrypoint": "m"}}), ["'^[A-Za-z_][A-Za-z0-9_]*"], id="brackets that are no markup"
        ),
        pytest.param(manifest({"suspend": "[/tmp]"}), ["spec.suspend: '[/tmp]' is not"], id="the end of no markup"),
        pytest.param(
            {"kind": "Pod"}, ["kind: must be quantuner.dev/v1alpha1 QuantizationTuning, not ? Pod"], id="kind"
        ),
        pytest.param("a: [", ["while parsing a flow"], id="no YAML"),
        pytest.param("", ["holds 0 documents; give a file with one"], id="an empty file"),
        pytest.param("a: {b: 1,\n    b: 2}", ["the key 'b' stands twice in one mapping; keep", "line 2"], id="twice"),
        pytest.param("a: 1\n---\nb: 2\n", ["holds 2 documents"], id="two documents"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_bad_resource_is_refused_with_its_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, body: Any, says: list[str]
) -> None:
    assert main([command, resource(tmp_path, body)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for text in says:
        assert text in captured.err


def test_a_file_in_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: café".encode("latin-1"))
    assert main(["validate", str(path)]) == 2
    assert f"{path} is no UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("levels", [100, 5000])
def test_yaml_that_is_nested_too_deep(levels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deep.yaml"
    body = json.dumps(manifest({"task": {"entrypoint": "digits:task", "args": {"a": "@"}}}))
    path.write_text(body.replace('"@"', "[" * levels + "]" * levels))
    assert main(["validate", str(path)]) == 2
    said = capsys.readouterr().err
    assert str(path) in said
    assert "objects and lists" in said
    assert "50" in said


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "/nowhere/[bold]tuning.yaml"]) == 2
    assert "No such file or directory: '/nowhere/[bold]tuning.yaml'" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["tune"], ["run"], ["run", "x.yaml", "--workers", "two"]])
def test_a_wrong_command_line_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: quantuner" in capsys.readouterr().err


def test_fewer_than_no_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = tmp_path / "workspace"
    assert main(["run", str(written(tmp_path)), "--workers", "-1", "--workspace", str(workspace)]) == 2
    assert "--workers must be 0 (serial) or more, not -1" in capsys.readouterr().err
    assert not workspace.exists()


@pytest.mark.parametrize("below", ["", "workspace"])
def test_a_workspace_that_can_be_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], below: str) -> None:
    (tmp_path / "afile").write_text("")
    workspace = tmp_path / "afile" / below
    assert main(["run", str(written(tmp_path)), "--workspace", str(workspace)]) == 2
    err = capsys.readouterr().err
    assert f"the workspace must be a folder that can be made and written, and {workspace} is not: " in err
    assert "name another one with --workspace" in err


def test_a_folder_of_code_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace, code = tmp_path / "workspace", tmp_path / "nosuch"
    assert main(["run", str(written(tmp_path)), "--workspace", str(workspace), "--code", str(code)]) == 2
    assert f"--code must be a folder, the one with the task's modules, and {code} is none" in capsys.readouterr().err
    assert not workspace.exists()


def test_a_report_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path)
    assert main(["report", str(file)]) == 2
    assert f"{file} is no folder; name the workspace of a `quantuner run`" in capsys.readouterr().err


def test_keys_that_a_merge_brings_in_may_stand_for_others(tmp_path: Path) -> None:
    text = yaml.safe_dump(manifest()) + "  accuracyCriterion: {<<: &b {<<: {tolerableLoss: 0.1}, tolerableLoss: 0.2}}\n"
    assert main(["validate", resource(tmp_path, text)]) == 0


def test_the_help_of_run_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "exit codes: 0 the search is complete, whether or not its target is met" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_report_names_the_resource_that_is_no_longer_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tuning.yaml").write_text(yaml.safe_dump(manifest({"workers": 0})))
    assert main(["report", str(tmp_path)]) == 2
    assert f"{tmp_path}/tuning.yaml: spec.workers: 0 is less than the minimum" in capsys.readouterr().err


def test_a_damaged_journal_is_named_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "journal.jsonl").write_text("damaged\n")
    assert main(["run", str(written(tmp_path)), "--workers", "0", "--workspace", str(workspace)]) == 2
    err = capsys.readouterr().err
    assert f"{workspace}/journal.jsonl: a journal line must be a JSON object" in err
    assert "move the file away to start anew" in err
    assert (workspace / "journal.jsonl").read_text() == "damaged\n"


def test_a_report_of_a_damaged_journal_names_it_where_there_is_no_timeline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tuning.yaml").write_text(yaml.safe_dump(manifest()))
    (tmp_path / "journal.jsonl").write_text("damaged\n")
    assert main(["report", str(tmp_path)]) == 2
    assert f"{tmp_path}/journal.jsonl: a journal line must be a JSON object" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["validate", "run", "report"])
def test_what_is_no_yaml_is_told_with_its_file(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tuning.yaml"
    path.write_text("a: [\n")
    assert main([command, str(tmp_path if command == "report" else path)]) == 2
    assert f'in "{path}", line 2' in capsys.readouterr().err


def reported(workspace: Path, summary: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a finished search whose winner has these forms, by type."""
    end = Finished(outcome=Outcome.TARGET_MET, best=1, accuracy=0.9, artifact=str(workspace / "model"), time=TIME)
    records: list[Record] = [launched(), told(0, 0.9), told(1, 0.9, meets=True), end]
    (workspace / "tuning.yaml").write_text(yaml.safe_dump(manifest()))
    (workspace / "journal.jsonl").write_text("".join(f"{encode(record)}\n" for record in records))
    best = {"trial": 1, "summary": {"defaults": summary, "exceptions": {}}}
    (workspace / "best.yaml").write_text(yaml.safe_dump(best))
    assert main(["report", str(workspace)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("summary", "says"),
    [
        ({"Linear": "fp32"}, "target met by the fp32 model itself, nothing is quantized: trial 1 meets"),
        ({"Linear": "fp32", "Conv2d": "static/asym/kl"}, "target met: trial 1 meets"),
        ({"Linear": "bf16"}, "target met: trial 1 meets"),
        ({}, "target met: trial 1 meets"),
    ],
    ids=str,
)
def test_a_winner_that_quantizes_nothing_is_told_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], summary: dict[str, str], says: str
) -> None:
    out = reported(tmp_path, summary, capsys)
    assert says in out
    assert "captured" not in out


def test_a_model_that_was_not_captured_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / WEIGHTS_FILE).write_text("")
    out = reported(tmp_path, {"Linear": "dynamic/asym/minmax"}, capsys)
    assert "the model could not be captured as a program, so that its weights alone are kept" in out


def test_a_report_where_the_locale_has_no_such_signs(tmp_path: Path) -> None:
    (tmp_path / "tuning.yaml").write_text(yaml.safe_dump(manifest()))
    records: list[Record] = [launched(), told(0, 0.9), told(1, 0.9, meets=True), told(2, 0.5, bound=True)]
    (tmp_path / "journal.jsonl").write_text("".join(f"{encode(record)}\n" for record in records))
    command = [sys.executable, "-m", "quantuner.cli", "report", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": "iso-8859-1"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"? best" in done.stdout
    assert b"? 0.5" in done.stdout
