"""The files of a dataset, in a local directory or in what fsspec reaches (``s3://``, ``sftp://``).

Every file is written under a temporary name and then renamed, so that a reader sees it whole or not
at all, and two writers of one file do no harm. On a local file system the rename is atomic. Object
stores make an object visible when all of it has arrived.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from maceproc.errors import CaptureError, MaceprocError
from maceproc.fleet.layout import PARTIAL, Place, place_of

URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(::|://)")
FORGOTTEN_S = 24 * 3600.0  # a temporary file of this age was left by a process that was killed
README = "README.txt"
ABOUT_DATASET = """\
A dataset of captures, written by `maceproc collect`. A file holds the rows of one capture:

    table=TABLE/host=HOST/date=DATE/SHA-256 OF THE TRACE.parquet

Ask it with `maceproc query THIS-DIRECTORY "select ..."`, maceproc.open_dataset(), DuckDB, pyarrow,
pandas, Spark or R. The metadata of every column tell its unit and meaning.
"""


class Store(Protocol):
    """What holds the files of a dataset; paths are relative to it, with ``/``."""

    name: str

    def exists(self, file: str) -> bool:
        """Tell whether a file is there."""

    def write(self, file: str, data: bytes) -> None:
        """Write a file whole or not at all; one that is there is replaced."""

    def remove(self, file: str) -> None:
        """Remove a file, if it is there."""

    def files(self, table: str) -> list[str]:
        """Return the paths of a table's files, sorted."""

    def tables(self) -> list[str]:
        """Return the names of the tables that have a directory, sorted."""


def open_store(dataset: str | os.PathLike[str], *, create: bool = False) -> Store:
    """Return what holds a dataset's files; with `create`, a directory for a new one is made.

    Raises CaptureError when it cannot be, or when it is there and is no dataset.
    """
    name = os.fspath(dataset)
    store: Store = RemoteStore(name) if is_url(name) else LocalStore(Path(name))
    if create:
        if not store.exists(README):
            store.write(README, ABOUT_DATASET.encode())
    elif not store.tables() and not store.exists(README):
        raise CaptureError(
            f"{name}: not a dataset", hint="make one with: maceproc collect CAPTURES -o DATASET"
        )
    return store


def is_url(name: str) -> bool:
    """Tell whether a name is a URL, as fsspec takes it, and not a local path."""
    return URL.match(name) is not None


def places(store: Store, table: str) -> dict[str, Place]:
    """Return where the captures are that have a file in a table: SHA-256 -> place."""
    found = {}
    for file in store.files(table):
        with contextlib.suppress(ValueError):  # not ours: left alone
            place = place_of(file)
            found[place.capture] = place
    return found


class LocalStore:
    """A directory."""

    def __init__(self, directory: Path) -> None:
        self.name = os.fspath(directory)
        self._directory = directory

    def exists(self, file: str) -> bool:
        """Tell whether a file is there."""
        return (self._directory / file).is_file()

    def write(self, file: str, data: bytes) -> None:
        """Write a file whole or not at all; one that is there is replaced."""
        path = self._directory / file
        try:
            with self._partial() as partial:
                partial.write_bytes(data)
                path.parent.mkdir(parents=True, exist_ok=True)
                partial.replace(path)
        except OSError as error:
            raise CaptureError(
                f"{path}: cannot be written: {error.strerror}", hint="give another DATASET"
            ) from error

    @contextlib.contextmanager
    def _partial(self) -> Iterator[Path]:
        """Give a new name for a file that is being written; it is removed if it stays there."""
        directory = self._directory / PARTIAL
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / secrets.token_hex(16)
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)

    def remove(self, file: str) -> None:
        """Remove a file, if it is there."""
        (self._directory / file).unlink(missing_ok=True)

    def files(self, table: str) -> list[str]:
        """Return the paths of a table's files, sorted."""
        found = (self._directory / f"table={table}").glob("host=*/date=*/*.parquet")
        return sorted(path.relative_to(self._directory).as_posix() for path in found)

    def tables(self) -> list[str]:
        """Return the names of the tables that have a directory, sorted."""
        found = self._directory.glob("table=*")
        return sorted(path.name.partition("=")[2] for path in found)

    def remove_forgotten(self) -> None:
        """Remove what killed processes left half written, long ago."""
        for partial in (self._directory / PARTIAL).glob("*"):
            with contextlib.suppress(OSError):  # another collector removes it as well
                if time.time() - partial.stat().st_mtime > FORGOTTEN_S:
                    partial.unlink()


class RemoteStore:
    """A place that fsspec reaches, by its URL."""

    def __init__(self, url: str) -> None:
        self.name = url
        self._fs, root = filesystem(url)
        self._root = root.rstrip("/")

    def exists(self, file: str) -> bool:
        """Tell whether a file is there."""
        with told(self.name):
            return bool(self._fs.exists(f"{self._root}/{file}"))

    def write(self, file: str, data: bytes) -> None:
        """Write a file whole or not at all; one that is there is replaced."""
        path = f"{self._root}/{file}"
        partial = f"{self._root}/{PARTIAL}/{secrets.token_hex(16)}"
        with told(self.name):
            for name in (path, partial):
                self._fs.makedirs(name.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(partial, data)
            self._fs.mv(partial, path)

    def remove(self, file: str) -> None:
        """Remove a file, if it is there."""
        with told(self.name), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{file}")

    def files(self, table: str) -> list[str]:
        """Return the paths of a table's files, sorted."""
        with told(self.name):
            found = self._fs.glob(f"{self._root}/table={table}/host=*/date=*/*.parquet")
        return sorted(path[path.rindex(f"table={table}/") :] for path in found)

    def tables(self) -> list[str]:
        """Return the names of the tables that have a directory, sorted."""
        with told(self.name):
            found = self._fs.glob(f"{self._root}/table=*")
        return sorted(path.rpartition("=")[2] for path in found)


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises MaceprocError when fsspec, or what it needs for this kind of URL, is not installed.
    """
    try:
        import fsspec
    except ImportError as error:
        raise MaceprocError(
            f"{url}: needs fsspec", hint="install it with: pip install 'maceproc[remote]'"
        ) from error
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        said = " ".join(str(error).split())
        raise MaceprocError(
            f"{url}: {said}", hint="for s3:// that is: pip install s3fs; for gs://: gcsfs"
        ) from error
    return fs, path


@contextlib.contextmanager
def told(url: str) -> Iterator[None]:
    """Turn what a remote file system raises into a CaptureError that names the URL."""
    try:
        yield
    except MaceprocError:
        raise
    except Exception as error:  # every file system has exceptions of its own
        said = " ".join(str(error).split()) or type(error).__name__
        raise CaptureError(f"{url}: {said[:300]}") from error
