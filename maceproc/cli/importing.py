"""`maceproc import`: the files of MACE's and contools' experiments into tables."""

from __future__ import annotations

from pathlib import Path

import click

from maceproc.cli.terminal import tell_notes, working


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILES")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR")
def import_(files: tuple[Path, ...], output: Path) -> None:
    r"""Import files of MACE's and contools' experiments: .ping, .lat, .latency, .pert, .trace.

    DIR gets a table per kind of row, as CSV, and provenance.json, which says of every file its
    SHA-256, its format and what was not understood. Directories are searched.

    \b
    maceproc import contools-data/ping/tracecmd_new -o imported
    maceproc experiment report imported
    """
    from maceproc.predecessors.importing import import_files

    with working():
        imported = import_files(list(files), output)
    for name, table in imported.tables.items():
        click.echo(f"{output / name}.csv: {len(table)} rows")
    strange = sum(file.get("not_understood", 0) for file in imported.files)
    empty = [file["file"] for file in imported.files if not file["imported"]]
    click.echo(f"{output / 'provenance.json'}: {len(imported.files)} files")
    notes = [f"{strange} lines were not understood: see provenance.json"] if strange else []
    if empty:
        notes.append(f"{len(empty)} files gave no rows, first {empty[0]}: see provenance.json")
    tell_notes(notes)
