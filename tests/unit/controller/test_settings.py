from __future__ import annotations

import pytest

from quantuner.controller.settings import Settings, parse


def test_defaults() -> None:
    assert parse([], {}) == Settings()


def test_the_environment_is_the_fallback_of_a_flag() -> None:
    environ = {"QUANTUNER_TUNER_IMAGE": "a", "QUANTUNER_NAMESPACE": "x,y z", "QUANTUNER_METRICS_PORT": "9"}
    settings = parse(["--tuner-image", "b"], environ)
    assert (settings.tuner_image, settings.namespaces, settings.metrics_port) == ("b", ("x", "y", "z"), 9)


def test_namespaces_may_be_given_together_and_repeatedly() -> None:
    assert parse(["--namespace", "a", "b", "--namespace", "c"], {}).namespaces == ("a", "b", "c")


def test_namespaces_given_as_flags_replace_those_of_the_environment() -> None:
    assert parse(["--namespace", "a"], {"QUANTUNER_NAMESPACE": "x"}).namespaces == ("a",)


@pytest.mark.parametrize(
    ("argv", "environ", "message"),
    [
        (["--log-level", "loud"], {}, "--log-level must be one of debug, info, warning, error, not 'loud'"),
        ([], {"QUANTUNER_LOG_FORMAT": "xml"}, "--log-format must be one of plain, json, not 'xml'"),
        ([], {"QUANTUNER_METRICS_PORT": "http"}, "invalid int value: 'http'"),
        (["--tuner-image-pull-policy", "Sometimes"], {}, "must be one of Always, IfNotPresent, Never"),
    ],
)
def test_a_wrong_value_is_refused_wherever_it_comes_from(
    argv: list[str], environ: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(argv, environ)
    assert message in capsys.readouterr().err
