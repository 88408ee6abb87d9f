"""What is printed as JSON has the form that its schema says, for every capture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from maceproc.cli import VERBS, cli
from maceproc.reporting.export.tables import TABLES
from maceproc.reporting.json_schema import DIRECTORY, column_schema, schemas, text_of
from maceproc.schema import RTTS
from tests.recorded import NAMES, path_of

SCHEMAS = schemas()


def printed(*words: str) -> Any:
    result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def complaints(verb: str, document: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMAS[verb])
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("verb", SCHEMAS)
def test_schemas_are_checked_in_as_they_are(verb: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[verb])
    checked_in = (DIRECTORY / f"{verb}.schema.json").read_text()
    assert checked_in == text_of(SCHEMAS[verb]), "write them anew: make schemas"


def test_schemas_are_those_of_verbs() -> None:
    with_json = {v.name for v in VERBS if any("--json" in p.opts for p in v.params)}
    assert set(SCHEMAS) <= with_json | {"export"}


@pytest.mark.parametrize("name", NAMES)
def test_analyze(name: str) -> None:
    assert complaints("analyze", printed("analyze", str(path_of(name)), "--json")) == []


@pytest.mark.parametrize("name", NAMES)
def test_events(name: str) -> None:
    assert complaints("events", printed("events", str(path_of(name)), "--json")) == []


@pytest.mark.parametrize("name", NAMES)
def test_explain(name: str) -> None:
    document = printed("explain", str(path_of(name)), "3", "--json")
    assert complaints("explain", document) == []
    assert document["ping"]["seq"] == 3
    known = [time_ns for time_ns in document["ledger"].values() if time_ns is not None]
    rtt_ns = document["ping"]["rtt_ns"]
    assert document["ping"]["status"] != "corrected" or sum(known) == rtt_ns


def test_compare() -> None:
    document = printed("compare", str(path_of("idle")), str(path_of("loaded")), "--json")
    assert complaints("compare", document) == []


@pytest.mark.parametrize("table", TABLES)
def test_export(table: str) -> None:
    words = ("export", str(path_of("every_event")), "--table", table, "--format", "json")
    document = printed(*words)
    assert complaints("export", document) == []
    assert document["table"] == table


def mutations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give documents that no schema may let pass."""
    yield {**document, "schema_version": 0}
    yield {**document, "more": 1}
    yield {key: value for key, value in document.items() if key != "rtts"}
    row = document["rtts"][0]
    for bad in ({**row, "seq": "1"}, {**row, "rtt_ns": 1.5}, {**row, "seq": None}, {}):
        yield {**document, "rtts": [bad]}


def test_schemas_refuse_what_is_wrong() -> None:
    document = printed("analyze", str(path_of("idle")), "--json")
    for wrong in mutations(document):
        assert complaints("analyze", wrong)


def test_units_are_in_the_schema() -> None:
    assert column_schema(RTTS["outbound_ns"])["unit"] == "ns"
    assert column_schema(RTTS["outbound_ns"])["type"] == ["integer", "null"]
