"""What an administrator can set: flags, each with an environment variable of the same name."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("plain", "json")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one operator process; the chart's values have the same names."""

    tuner_image: str | None = None
    """Image of launcher and workers where `spec.image` is not set; None makes `spec.image` mandatory."""
    tuner_image_pull_policy: str = "IfNotPresent"
    """For tunings whose `template.imagePullPolicy` is not set."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty serves the whole cluster."""
    metrics_port: int = 8080
    """Port of /metrics, on all addresses, IPv4 and IPv6; 0 takes a free one."""
    health_port: int = 8081
    """Port of /healthz, on all addresses, IPv4 and IPv6."""
    log_level: str = "info"
    """One of `LEVELS`."""
    log_format: str = "plain"
    """plain for a terminal, json for a log store."""
    workers: int = 4
    """Resources reconciled at the same time."""


def parse(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Settings:
    """Flags win over the environment; a wrong value ends the process with argparse's message."""
    parser = _parser(os.environ if environ is None else environ)
    options = parser.parse_args(argv)
    _check_choice(parser, "--tuner-image-pull-policy", options.tuner_image_pull_policy, PULL_POLICIES)
    _check_choice(parser, "--log-level", options.log_level, LEVELS)
    _check_choice(parser, "--log-format", options.log_format, FORMATS)
    return Settings(
        tuner_image=options.tuner_image or None,
        tuner_image_pull_policy=options.tuner_image_pull_policy,
        namespaces=tuple(options.namespace or options.namespace_fallback),
        metrics_port=options.metrics_port,
        health_port=options.health_port,
        log_level=options.log_level,
        log_format=options.log_format,
        workers=options.workers,
    )


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantuner.controller",
        description="The Quantuner operator. Every flag FLAG-NAME may also be set as QUANTUNER_FLAG_NAME.",
    )

    def fallback(flag: str, default: str) -> str:
        return environ.get(f"QUANTUNER_{flag.upper().replace('-', '_')}", default)

    def add(flag: str, default: str, text: str, type_: type = str) -> None:
        parser.add_argument(f"--{flag}", type=type_, default=fallback(flag, default), help=text)

    add("tuner-image", "", "image of launcher and workers where a resource names none")
    add("tuner-image-pull-policy", "IfNotPresent", " | ".join(PULL_POLICIES))
    add("metrics-port", "8080", "port of /metrics", int)
    add("health-port", "8081", "port of /healthz", int)
    add("log-level", "info", " | ".join(LEVELS))
    add("log-format", "plain", " | ".join(FORMATS))
    add("workers", "4", "resources reconciled at the same time", int)
    parser.add_argument(
        "--namespace",
        nargs="*",
        action="extend",
        default=[],
        help="namespaces to serve; without it, the whole cluster",
    )
    # Not the flag's default: `extend` would add to it.
    parser.set_defaults(namespace_fallback=fallback("namespace", "").replace(",", " ").split())
    return parser


def _check_choice(parser: argparse.ArgumentParser, flag: str, value: str, allowed: Sequence[str]) -> None:
    # argparse's own `choices` do not look at defaults, and so not at the environment.
    if value not in allowed:
        parser.error(f"{flag} must be one of {', '.join(allowed)}, not {value!r}")
