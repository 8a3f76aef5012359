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
from quantuner.api.journal import Record, encode
from quantuner.cli import main
from tests.unit.cli.tasks import written
from tests.unit.records import launched, manifest, told


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
