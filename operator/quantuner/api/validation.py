"""The API server's admission of a resource, done here with the CRD itself: defaults, schema, CEL rules.

The CRD is the only place that knows what is valid; a test holds this module's answers against a real
API server's. Rules that compare with the old object (`oldSelf`) do not apply to a single manifest.
"""

import copy
import functools
import importlib.resources
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import cel
import jsonschema
import yaml

from quantuner.api import names
from quantuner.api.bounds import outgrown
from quantuner.api.errors import InvalidResourceError, Problem
from quantuner.api.spec import is_tuning, manifest_kind

Schema = Mapping[str, Any]


@functools.cache
def crd() -> Mapping[str, Any]:
    """The CustomResourceDefinition that ships with the package."""
    text = importlib.resources.files("quantuner.api").joinpath("quantizationtunings.yaml").read_text()
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    return loaded


def admit(body: Any) -> dict[str, Any]:
    """Returns a copy of the manifest with the CRD's defaults filled in.

    Raises `InvalidResourceError` with every problem found, each with its field and remedy.
    """
    if not is_tuning(body):
        expected = f"{names.API_VERSION} {names.KIND}"
        raise InvalidResourceError([Problem("kind", f"must be {expected}, not {manifest_kind(body)}")])
    if (too_large := outgrown(body)) is not None:  # first: all that follows recurses
        raise InvalidResourceError([too_large])
    problems = [*_not_json(body, ""), *_name_problems(body)]
    if problems:  # what never reaches the schema: a request is JSON, and its path has the name
        raise InvalidResourceError(problems)
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    admitted: dict[str, Any] = copy.deepcopy(dict(body))
    _fill_defaults(admitted, schema)
    problems = [*_unknown_fields(admitted, schema, ""), *_schema_problems(admitted, schema)]
    if not problems:  # the API server, too, runs the rules only on what fits the schema
        problems = list(_broken_rules(admitted, schema, ""))
    if problems:
        raise InvalidResourceError(problems)
    return admitted


def _not_json(value: Any, path: str) -> Iterator[Problem]:
    """What YAML can say and JSON cannot."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _not_json(item, f"{path}.{key}".lstrip("."))
            else:
                yield Problem(path or "resource", f"the key {key!r} must be a string; put it in quotes")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _not_json(item, f"{path}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(path, f"{value} must be a finite number")
    elif type(value) is int and not -(2**63) <= value < 2**63:  # an API server's numbers, and those of its rules
        yield Problem(path, "must be an integer of 64 bits; write it as a float, or put it in quotes")
    elif not isinstance(value, (str, int, float, type(None))):
        yield Problem(path, f"must be JSON, which has no {type(value).__name__}; put {value} in quotes")


def _name_problems(body: Mapping[str, Any]) -> Iterator[Problem]:
    """The API server's own rule, which no CRD repeats."""
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        yield Problem("metadata.name", "is required and must be a string; name the resource")


def _fill_defaults(value: Any, schema: Schema) -> None:
    if isinstance(value, dict):
        for key, sub in schema.get("properties", {}).items():
            if key not in value and "default" in sub:
                value[key] = copy.deepcopy(sub["default"])
            if key in value:
                _fill_defaults(value[key], sub)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            _fill_defaults(item, schema["items"])


def _unknown_fields(value: Any, schema: Schema, path: str) -> Iterator[Problem]:
    """kubectl's strict field validation: a misspelt key is refused, not dropped."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from _unknown_fields(item, schema.get("items", {}), f"{path}[{i}]")
    if not isinstance(value, dict) or (not path and "properties" not in schema):
        return
    known = schema.get("properties", {})
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    for key, item in value.items():
        below = f"{path}.{key}" if path else key
        if key in known:
            if below != "metadata":
                yield from _unknown_fields(item, known[key], below)
        elif not open_ended:
            yield Problem(below, f"unknown field; known here: {', '.join(sorted(known)) or 'none'}")


def _schema_problems(value: Any, schema: Schema) -> Iterator[Problem]:
    for error in jsonschema.Draft202012Validator(_plain(schema)).iter_errors(value):
        path = error.json_path.removeprefix("$").removeprefix(".")
        if error.validator == "required":  # named as the API server names it: the field, not its parent
            missing = next(field for field in error.validator_value if f"'{field}' " in error.message)
            path = f"{path}.{missing}".removeprefix(".")
        yield Problem(path or "resource", error.message)
    yield from _duplicate_keys(value, schema, "")


def _duplicate_keys(value: Any, schema: Schema, path: str) -> Iterator[Problem]:
    """`x-kubernetes-list-type` map and set, which JSON Schema does not know."""
    if isinstance(value, dict):
        for key, sub in schema.get("properties", {}).items():
            if key in value:
                yield from _duplicate_keys(value[key], sub, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys")
        if keys or schema.get("x-kubernetes-list-type") == "set":
            seen: list[Any] = []
            for i, item in enumerate(value):
                identity = [item.get(k) for k in keys] if keys and isinstance(item, dict) else item
                if identity in seen:
                    yield Problem(f"{path}[{i}]", f"duplicate of an earlier entry: {identity!r}; keep one")
                seen.append(identity)


def _plain(schema: Any) -> Any:
    """The schema without `format`s of OpenAPI's own and with int-or-string spelt out."""
    if isinstance(schema, list):
        return [_plain(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: _plain(v) for k, v in schema.items() if k != "x-kubernetes-validations"}


def _broken_rules(value: Any, schema: Schema, path: str) -> Iterator[Problem]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if not re.search(r"\boldSelf\b", rule["rule"]) and not _holds(rule["rule"], value):
            where = f"{path}{rule.get('fieldPath', '')}".lstrip(".") or "resource"
            yield Problem(where, rule["message"])
    if isinstance(value, dict):
        for key, sub in schema.get("properties", {}).items():
            if key in value:
                yield from _broken_rules(value[key], sub, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            yield from _broken_rules(item, schema["items"], f"{path}[{i}]")


def _holds(rule: str, value: Any) -> bool:
    return bool(_program(rule).execute({"self": value}))


@functools.cache
def _program(rule: str) -> Any:
    return cel.compile(rule)
