"""Every field of the resource is described, in the CRD for `kubectl explain`, and so in docs/api.md."""

import re

import pytest
import yaml

from quantuner.api.validation import admit
from tests.unit.api import fields_table
from tests.unit.api.fields_table import Field
from tests.unit.records import manifest

FIELDS = {
    field.path: field
    for name, schema in fields_table.parts().items()
    for field in (Field(name, schema, False), *fields_table.below(schema, f"{name}."))
}


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())
def test_every_field_is_described(field: Field) -> None:
    """To the end: an unquoted description ends at its first comma where YAML is written in braces."""
    assert field.schema.get("description", "").endswith("."), field.path


def test_fields_of_entries_and_of_objects_in_them_are_among_these() -> None:
    assert {"spec.quantization.opTypes[].weight.bits", "spec.template.env[].name", "status.conditions[].type"} <= set(
        FIELDS
    )


def test_the_document_is_that_of_the_crd() -> None:
    assert fields_table.written() == fields_table.reference(), "run: python -m tests.unit.api.fields_table"


def test_what_the_document_links_to_is_there() -> None:
    document = fields_table.DOCUMENT.read_text()
    sections = {heading.lower().replace(".", "") for heading in re.findall(r"^#+ (\S+)$", document, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", document)) <= sections


def test_the_documents_example_is_valid() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", fields_table.DOCUMENT.read_text(), re.DOTALL)
    admit(manifest(yaml.safe_load(example)["spec"]))
