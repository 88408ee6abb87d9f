"""Echoes in Parquet files; a new file is begun when the last one is old or large enough.

A file has no name before it is complete (O_TMPFILE, open(2)): if the process is killed, the kernel
removes the file. Where the file system does not support that, the file has a temporary name. The
next process that writes to the directory removes the files that a killed process left.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from maceproc.errors import CaptureError
from maceproc.recording.owners import has_ended, owner_name
from maceproc.watching.columns import COLUMNS

ROTATE_BYTES = 64 << 20
ROW_GROUP = 50_000
_PARTIAL = ".maceproc-{owner}.partial"
_CANNOT = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)

_TYPES = {
    "time_utc_ns": pa.timestamp("ns", tz="UTC"),
    "container": pa.dictionary(pa.int32(), pa.string()),
    "target": pa.dictionary(pa.int32(), pa.string()),
    "id": pa.uint16(),
    "seq": pa.uint16(),
    "size_bytes": pa.uint16(),
    "status": pa.dictionary(pa.int32(), pa.string()),
    "reason": pa.dictionary(pa.int32(), pa.string()),
}
SCHEMA = pa.schema(
    [
        pa.field(
            column.name,
            _TYPES.get(column.name, pa.int64()),
            nullable=column.may_miss,
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in COLUMNS
    ]
)


class ParquetFiles:
    """Writes echoes to files of a directory; `facts` is asked when a file is finished.

    Raises CaptureError when a file cannot be written; what was in it is then lost, and said.
    """

    def __init__(
        self,
        directory: str | Path,
        facts: Callable[[], dict[str, Any]],
        *,
        rotate_s: float = 300.0,
        rotate_bytes: int = ROTATE_BYTES,
    ) -> None:
        self._directory = Path(directory)
        self._facts = facts
        self._rotate_s, self._rotate_bytes = rotate_s, rotate_bytes
        self._file: _NamelessFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0  # rows of the file, with those that wait to be written
        self._since_s = 0.0
        self.files: list[Path] = []  # finished since they were last taken away
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise CaptureError(
                f"{directory}: not a directory", hint="name one for the files: -o DIR"
            ) from error
        except OSError as error:
            raise CaptureError(
                f"{directory}: cannot be made: {error.strerror}", hint="watch with another -o"
            ) from error
        self.removed = _remove_partial_files(self._directory)

    def add(self, columns: dict[str, NDArray[Any] | list[str]]) -> None:
        """Add echoes (`maceproc.watching.columns`)."""
        if columns["status"]:
            with self._told():
                self._open()
                self._waiting.append(_batch(columns))
                self._rows += self._waiting[-1].num_rows
                if sum(batch.num_rows for batch in self._waiting) >= ROW_GROUP:
                    self._flush()
        self.rotate()

    def rotate(self) -> None:
        """Finish the file where it is old or large enough."""
        if self._file is None:
            return
        old = time.monotonic() - self._since_s >= self._rotate_s
        if old or self._file.tell() >= self._rotate_bytes:
            self.close()

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._file is None or self._writer is None:
            return
        with self._told():
            self._flush()
            self._writer.add_key_value_metadata({"maceproc": json.dumps(self._facts())})
            self._writer.close()
            self.files.append(self._file.publish())
        self._file = self._writer = None
        self._rows = 0

    def _open(self) -> None:
        if self._file is None:
            self._file = _NamelessFile(self._directory)
            self._writer = pq.ParquetWriter(self._file.stream, SCHEMA, compression="zstd")
            self._since_s = time.monotonic()

    def _flush(self) -> None:
        if self._waiting and self._writer is not None:
            self._writer.write_table(
                pa.Table.from_batches(self._waiting, SCHEMA).unify_dictionaries()
            )
            self._waiting.clear()

    @contextlib.contextmanager
    def _told(self) -> Any:
        try:
            yield
        except OSError as error:
            rows, self._rows = self._rows, 0
            self._waiting.clear()
            self._writer = None
            if self._file is not None:
                self._file.discard()
                self._file = None
            raise CaptureError(
                f"{self._directory}: {error.strerror or error}: the last {rows} echoes are not "
                "kept; files finished before are whole",
                hint="make room, or watch with another -o",
            ) from error


class _NamelessFile:
    """A file of a directory that gets its name when it is whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._partial: Path | None = None
        self._began = datetime.now(UTC)
        try:
            descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o644)
        except OSError as error:
            if error.errno not in _CANNOT or not directory.is_dir():
                raise
            self._partial = directory / _PARTIAL.format(owner=owner_name())
            descriptor = os.open(self._partial, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
        self.stream: IO[bytes] = os.fdopen(descriptor, "wb")

    def tell(self) -> int:
        return self.stream.tell()

    def publish(self) -> Path:
        """Give the file its name, by the time it was begun; return its path."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        for number in range(1000):
            name = f"echoes-{self._began:%Y%m%dT%H%M%SZ}-{number:03d}.parquet"
            path = self._directory / name
            try:
                if self._partial is None:
                    # Python follows the link only where it has a directory to start from.
                    descriptor = self.stream.fileno()
                    source = f"/proc/self/fd/{descriptor}"
                    os.link(source, path, src_dir_fd=descriptor, follow_symlinks=True)
                else:
                    os.link(self._partial, path)
                    self._partial.unlink()
            except FileExistsError:
                continue
            self.stream.close()
            return path
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def discard(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self.stream.close()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)


def _batch(columns: dict[str, NDArray[Any] | list[str]]) -> pa.RecordBatch:
    arrays = []
    for field in SCHEMA:
        values = columns[field.name]
        if isinstance(values, list):
            arrays.append(pa.array(values, pa.string()).dictionary_encode())
        else:
            missing = values == -1 if field.nullable else None
            array = pa.array(values, mask=missing)
            arrays.append(array.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _remove_partial_files(directory: Path) -> list[Path]:
    """Remove the files that killed processes left; return their paths."""
    removed = []
    for path in directory.glob(_PARTIAL.format(owner="*")):
        if has_ended(path.name.removeprefix(".maceproc-").removesuffix(".partial")):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed
