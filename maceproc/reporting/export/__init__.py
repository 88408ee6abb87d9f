"""What other programs read: tables with units, a timeline, a packet capture.

Every file tells its provenance: the capture with its SHA-256, how it was recorded, the kernel, and
the version of maceproc. The same capture gives the same file, byte by byte.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from maceproc.capture_files import sidecar_path
from maceproc.errors import AnalysisError, CaptureError
from maceproc.following.losses import is_partial
from maceproc.reporting.export import tables
from maceproc.whole_file import check_free, opened_whole

if TYPE_CHECKING:
    from maceproc.analysis import Analysis
    from maceproc.reporting.export.perfetto import TellPackets

Format = Literal["csv", "json", "parquet", "perfetto", "pcapng"]
FORMATS: tuple[Format, ...] = get_args(Format)
OF_TABLES = ("csv", "json", "parquet")
SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".parquet": "parquet",
    ".pftrace": "perfetto",
    ".pcapng": "pcapng",
}


def export(
    analysis: Analysis,
    path: str | os.PathLike[str],
    *,
    table: str = "rtts",
    format: Format | None = None,  # noqa: A002
    force: bool = True,
    tell: TellPackets | None = None,
) -> list[Path]:
    """Write one table, the timeline or the packets of an analysis; return the files written.

    A file appears when it is complete, or not at all. Raises AnalysisError when the format or table
    is unknown, a library it needs is missing, or the file cannot be written; CaptureError when it
    exists and `force` is not given.

    Parameters
    ----------
    path
        The file to write; its ending tells the format where `format` does not.
    table
        Which table, for csv, json and parquet: one of `maceproc.reporting.export.tables.TABLES`.
    format
        ``csv``, with units and provenance in ``PATH-metadata.json`` beside it; ``json``;
        ``parquet``; ``perfetto``: a timeline of every packet; ``pcapng``: the pings as packets.
    force
        Replace files that exist; the command line does so with ``--force`` only.
    tell
        Called repeatedly with the number of packets written and the number of all packets.
    """
    from maceproc.reporting.export import pcapng, perfetto

    path = Path(path)
    format = format or format_of(path)  # noqa: A001
    if format in OF_TABLES:
        tables.table_of(analysis, table)  # whether there is one
    if is_partial(analysis.trace) and format == "perfetto":
        raise AnalysisError(
            f"{analysis.capture.trace}: was read in windows of time, and every packet is needed",
            hint="analyze it with more memory: analyze(..., memory=...)",
        )
    paths = files_of(path, format)
    for file in paths:
        check_replaceable(analysis.capture.trace, file, force=force)
    try:
        if format in OF_TABLES:
            tables.write(analysis, table, format, path)
            return paths
        with opened_whole(path) as stream:
            if format == "perfetto":
                perfetto.write(analysis, stream, tell)
            else:
                pcapng.write(analysis, stream)
    except OSError as error:
        raise AnalysisError(f"{path}: {error.strerror or error}") from error
    return paths


def files_of(path: Path, format: Format) -> list[Path]:  # noqa: A002
    """Return the files that an export to `path` writes."""
    return [path, *tables.beside(path)] if format == "csv" else [path]


def check_replaceable(trace: Path, path: Path, *, force: bool) -> None:
    """Raise CaptureError when `path` may not be written: it exists, or is the capture itself."""
    for own in (trace, sidecar_path(trace)):
        if path.exists() and own.exists() and path.samefile(own):
            raise CaptureError(f"{path}: is the capture itself", hint="give another name")
    check_free(path, force=force)


def format_of(path: Path) -> Format:
    """Return the format that the ending of a file's name says.

    Raises CaptureError of a directory, AnalysisError when the ending says none.
    """
    try:
        return SUFFIXES[path.suffix]
    except KeyError:
        if path.is_dir():
            raise CaptureError(f"{path}: is a directory", hint="give a file") from None
        raise AnalysisError(
            f"{path}: no format ends in {path.suffix!r}",
            hint=f"use {', '.join(SUFFIXES)}, or say which with --format",
        ) from None
