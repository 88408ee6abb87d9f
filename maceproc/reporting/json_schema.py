"""JSON Schemas of everything the command line prints as JSON, made from the declared tables.

They are checked in as ``maceproc/reporting/schemas/VERB.schema.json``;
``make schemas`` writes them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maceproc import analysis, schema
from maceproc.following.soundness import DO_NOT_USE, SOUND, WITH_CARE
from maceproc.ledger import COLUMNS
from maceproc.pings.flavours import HABITS
from maceproc.reporting import explain
from maceproc.reporting.pings_listing import ROW_FIELDS
from maceproc.schema import SCHEMA_VERSION, Column, Table

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DIRECTORY = Path(__file__).parent / "schemas"

Schema = dict[str, Any]

TYPES = {"int": "integer", "uint": "integer", "float": "number", "bool": "boolean"}

INTEGER: Schema = {"type": "integer"}
STRING: Schema = {"type": "string"}
TIME_NS: Schema = {"type": ["number", "null"], "unit": "ns"}


def schemas() -> dict[str, Schema]:
    """Return the schema of every verb that has ``--json``, and of ``export --format json``."""
    return {
        "analyze": analyze_schema(),
        "explain": explain_schema(),
        "compare": compare_schema(),
        "events": events_schema(),
        "pings": pings_schema(),
        "export": export_schema(),
    }


def column_schema(column: Column) -> Schema:
    """Return the schema of one value; it allows null where the value can be unknown."""
    kind = next((t for name, t in TYPES.items() if column.dtype.lower().startswith(name)), "string")
    if column.dtype.lower() == "uint64":
        kind = "string"  # an address, in hexadecimal
    # Nullable dtypes are capitalized; NaN and missing text become null too.
    nullable = column.dtype[0].isupper() or column.dtype in ("float64", "category", "boolean")
    unit = {"unit": column.unit} if column.unit else {}
    return {"description": column.meaning, "type": [kind, "null"] if nullable else kind, **unit}


def row_schema(table: Table) -> Schema:
    """Return the schema of one row: all its columns, and no others."""
    properties = {column.name: column_schema(column) for column in table.columns}
    return {"description": table.row, **_object(properties)}


def rows_schema(table: Table) -> Schema:
    """Return the schema of a table's rows."""
    return {"type": "array", "items": row_schema(table)}


def analyze_schema() -> Schema:
    """Return the schema of ``maceproc analyze --json``."""
    comparison_row = row_schema(schema.COMPARISONS)
    coverage = {
        "corrected": INTEGER,
        "answered": INTEGER,
        "by_status": {"type": "object", "additionalProperties": INTEGER},
        "outbound": INTEGER,
        "inbound": INTEGER,
        "by_round": _list(_object(dict.fromkeys(("round", "corrected", "answered"), INTEGER))),
        "bounds": {
            "description": "where the corrected median and mean lie, whatever the others were",
            "type": "object",
            "additionalProperties": TIME_NS,
        },
    }
    summary = {
        "coverage": _object(coverage),
        "series": rows_schema(schema.SERIES),
        "comparisons": rows_schema(schema.COMPARISONS),
        "steps": rows_schema(schema.STEPS),
    }
    return _document(
        "analyze",
        {
            "capture": _capture(),
            "summary": _object(summary),
            "answer": _answer(),
            "rtts": rows_schema(schema.RTTS),
            "perturbation": {"oneOf": [{"type": "null"}, comparison_row]},
            "native": _native(),
            "observer": rows_schema(schema.EVENT_COSTS),
            "findings": rows_schema(schema.FINDINGS),
        },
    )


def _answer() -> Schema:
    return _object(
        {
            "sentence": {"type": "string"},
            "verdict": {"enum": [SOUND, WITH_CARE, DO_NOT_USE]},
            "why": {"description": "the gravest finding", "type": "string"},
            "facts": {
                "description": "what the report begins with; what is not known is left out",
                "type": "object",
                "additionalProperties": {"type": "string"},
            },
        }
    )


def _native() -> Schema:
    texts: dict[str, Schema] = {
        "source": {"description": "what it was made by", "type": ["string", "null"]},
        "missing": {"description": "why there is none", "type": ["string", "null"]},
    }
    times = dict.fromkeys(("median_ns", "low_ns", "high_ns"), TIME_NS)
    return _object(texts | times | {"closure": rows_schema(schema.CLOSURE)})


def explain_schema() -> Schema:
    """Return the schema of ``maceproc explain --json``."""
    return _document(
        "explain",
        {
            "ping": row_schema(schema.RTTS),
            "events": rows_schema(explain.EVENTS),
            "ledger": _object(dict.fromkeys(COLUMNS, TIME_NS)),
            "candidates": rows_schema(explain.CANDIDATES),
        },
    )


def compare_schema() -> Schema:
    """Return the schema of ``maceproc compare --json``."""
    return _document(
        "compare",
        {
            "captures": rows_schema(analysis.CAPTURES),
            "quantities": rows_schema(analysis.QUANTITIES),
            "contrasts": rows_schema(analysis.CONTRASTS),
            "notes": _list(STRING),
        },
    )


def events_schema() -> Schema:
    """Return the schema of ``maceproc events --json``."""
    event = {
        "event": STRING,
        "system": {"description": "empty where the file does not say, as in text", **STRING},
        "count": INTEGER,
        "rate_per_s": {"type": "number", "unit": "1/s"},
        "fields": _list(STRING),
    }
    buffer = {"buffer": STRING, "clock": STRING, "cpus": _list(INTEGER)}
    return _document(
        "events",
        {
            "events": _list(_object(event)),
            "lost": {"description": "events known to be lost", **INTEGER},
            "gaps": {"description": "places where some were lost", **INTEGER},
            "duration_ns": {"unit": "ns", **INTEGER},
            "buffers": _list(_object({**buffer, "count": INTEGER, "lost": INTEGER})),
            "info": {"description": "what else the file tells about itself", "type": "object"},
            "notes": _list(STRING),
        },
    )


def pings_schema() -> Schema:
    """Return the schema of ``maceproc pings --json``."""
    row = {name: column_schema(schema.PINGS[name]) for name in ROW_FIELDS}
    maybe: Schema = {"type": ["integer", "null"]}
    run = {
        "round": {"description": "of a capture's run", **maybe},
        "arm": {"type": ["string", "null"]},
        "flavour": {"enum": [*HABITS, "unknown"]},
        "flavour_why": STRING,
        "first_seq": {"description": "null: 0 or 1, not known which", **maybe},
        "first_seq_why": STRING,
        "stamped_by": {"enum": ["kernel", "program", None]},
        "target": {"type": ["string", "null"]},
        "payload_bytes": {"unit": "byte", **maybe},
        "sent": {"description": "as the summary counts", **maybe},
        "received": {"description": "as the summary counts", **maybe},
        "remarks": _list(STRING),
        "rows": _list(_object(row)),
    }
    return _document(
        "pings",
        {
            "runs": {"description": "one for each run and target", **_list(_object(run))},
            "not_understood": {"description": "lines that were not understood", **INTEGER},
            "not_understood_first": {"description": "the first of them", **_list(STRING)},
        },
    )


def export_schema() -> Schema:
    """Return the schema of ``maceproc export --format json``, of any table."""
    from maceproc.analysis import TABLES

    column = dict.fromkeys(("name", "dtype", "unit", "meaning"), STRING)
    known = [
        {"properties": {"table": {"const": name}, "rows": rows_schema(table)}}
        for name, table in TABLES.items()
    ]
    properties = {
        "table": {"enum": list(TABLES)},
        "row": STRING,
        "columns": _list(_object(column)),
        "provenance": {"type": "object", "required": ["creator", "capture_sha256"]},
        "rows": {"type": "array"},
    }
    return {**_head("export"), **_object(properties), "oneOf": known}


def _capture() -> Schema:
    """Return the schema of the facts about a capture; with a sidecar there are more facts."""
    always = {
        "file": STRING,
        "maceproc": {"description": "version that analyzed", **STRING},
        "clock": {"description": "trace clock; empty when the file does not say", **STRING},
        "events": {"type": "object", "additionalProperties": INTEGER},
        "events_lost": {
            "description": "lost by the ring buffer, as the trace or the kernel counts them",
            **INTEGER,
        },
        "events_missing": {
            "description": "handed over by the kernel, and not in the trace",
            **INTEGER,
        },
    }
    recorded = {
        "command": _list(STRING),
        "rounds": INTEGER,
        "target": STRING,
        "path": _list(STRING),
        "kernel": STRING,
        "cpu": STRING,
        "event_set": STRING,
    }
    return {"type": "object", "properties": {**always, **recorded}, "required": list(always)}


def _document(verb: str, properties: Schema) -> Schema:
    version = {
        "description": "grows when a column changes its meaning",
        "const": SCHEMA_VERSION,
    }
    return {**_head(verb), **_object({"schema_version": version, **properties})}


def _head(verb: str) -> Schema:
    option = "--format json" if verb == "export" else "--json"
    return {
        "$schema": DIALECT,
        "title": f"maceproc {verb} {option}",
        "description": "Unknown values are null; times are in the unit at their name's end.",
    }


def _object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def text_of(document: Schema) -> str:
    """Return a schema as it is checked in."""
    return json.dumps(document, indent=1) + "\n"


def main() -> None:
    """Write the schemas anew."""
    DIRECTORY.mkdir(exist_ok=True)
    for verb, document in schemas().items():
        (DIRECTORY / f"{verb}.schema.json").write_text(text_of(document))


if __name__ == "__main__":
    main()
