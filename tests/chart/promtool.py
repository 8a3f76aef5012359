"""Prometheus' own checker and its rule tests, fed from Python."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

SCRAPE_INTERVAL = "15s"
PER_MINUTE = 4
"""Samples a minute at `SCRAPE_INTERVAL`, for the lengths of series."""

Groups = list[dict[str, Any]]


class RefusedError(Exception):
    """promtool refused; the text is its own."""


def check(promtool: Path, groups: Groups, folder: Path) -> None:
    """Raise unless Prometheus would load these rules."""
    _run(promtool, "check", "rules", str(_write(folder / "rules.yaml", {"groups": groups})))


def expect(
    promtool: Path,
    groups: Groups,
    series: Mapping[str, str],
    minutes: int,
    alerts: Mapping[str, Iterable[Mapping[str, Any]]],
    folder: Path,
) -> None:
    """Raise unless, after so many minutes of these series, exactly these alerts of each name fire.

    `series` has promtool's notation, one sample a scrape; what fires is {exp_labels, exp_annotations}.
    """
    rules = _write(folder / "rules.yaml", {"groups": groups})
    test = {
        "interval": SCRAPE_INTERVAL,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": list(firing)}
            for name, firing in alerts.items()
        ],
    }
    tests = {"rule_files": [str(rules)], "evaluation_interval": "15s", "tests": [test]}
    _run(promtool, "test", "rules", str(_write(folder / "test.yaml", tests)))


def _write(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def _run(promtool: Path, *words: str) -> None:
    process = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=120)
    if process.returncode:
        raise RefusedError(process.stdout + process.stderr)
