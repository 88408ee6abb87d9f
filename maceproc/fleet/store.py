"""The files of a dataset, in a local directory or in what fsspec reaches (``s3://``, ``sftp://``).

Every file is written under a temporary name and then renamed, so that a reader sees it whole or not
at all, and two writers of one file do no harm. On a local file system the rename is atomic. Object
stores make an object visible when all of it has arrived.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import tempfile
import time
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from maceproc.errors import CaptureError, MaceprocError
from maceproc.fleet.layout import PACKED, PARTIAL, SUFFIX, Place, place_of

URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(::|://)")
FORGOTTEN_S = 24 * 3600.0  # a temporary file of this age was left by a process that was killed
LOCK = "compacting.lock"
ATTEMPTS = 100  # to move a file into a directory that others remove while it is empty
STATE = ("size", "ETag", "etag", "mtime", "created", "LastModified", "updated", "generation")
"""What fsspec's file systems tell of a file that changes when it is replaced."""
README = "README.txt"
ABOUT_DATASET = """\
A dataset of captures, written by `maceproc collect`. A file holds the rows of one capture:

    table=TABLE/host=HOST/date=DATE/SHA-256 OF THE TRACE.parquet

or, after `maceproc compact`, the rows of many captures, with host and date as columns:

    table=TABLE/packed/NAME.parquet

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
        """Return the paths of the files that captures have of their own in a table, sorted."""

    def packs(self, table: str) -> list[str]:
        """Return the names of the packs that have a file in a table (`maceproc.fleet.packs`)."""

    def open(self, file: str) -> BinaryIO:
        """Open a file for reading; FileNotFoundError when it is not there."""

    def writing(self, file: str) -> AbstractContextManager[Path]:
        """Give a local path to write to; what is there at the end, if any, becomes the file."""

    def state(self, file: str) -> Hashable:
        """Return what changes when a file is replaced; FileNotFoundError when it is not there."""

    def remove_same(self, file: str, state: Hashable) -> None:
        """Remove a file, if it is there and `state` is still its state."""

    def alone(self) -> AbstractContextManager[None]:
        """Wait until no other process is in here, as far as the place can tell."""

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
        with self.writing(file) as partial:
            partial.write_bytes(data)

    @contextlib.contextmanager
    def writing(self, file: str) -> Iterator[Path]:
        """Give a path to write to; what is there at the end, if any, becomes the file."""
        path = self._directory / file
        try:
            with self._partial() as partial:
                yield partial
                if partial.exists():
                    _move(partial, path)
        except FileNotFoundError:
            raise  # what was to be copied is gone
        except OSError as error:
            raise CaptureError(
                f"{path}: cannot be written: {error.strerror}", hint="give another DATASET"
            ) from error

    def open(self, file: str) -> BinaryIO:
        """Open a file for reading."""
        return (self._directory / file).open("rb")

    def state(self, file: str) -> Hashable:
        """Return what changes when a file is replaced."""
        return _state(self._directory / file)

    def remove_same(self, file: str, state: Hashable) -> None:
        """Remove a file, if it is there and `state` is still its state.

        It is moved away before it is looked at, so that one that comes meanwhile is kept.
        """
        path = self._directory / file
        with self._partial() as away:
            try:
                path.rename(away)
            except FileNotFoundError:
                return
            if _state(away) != state:
                with contextlib.suppress(FileExistsError):  # still newer
                    path.hardlink_to(away)
                return
        for directory in path.parents[:2]:  # date=..., host=...
            try:
                directory.rmdir()
            except OSError:  # it has other files
                return

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process of this machine is in here.

        File systems without locks, as some of clusters are, let it pass.
        """
        path = self._directory / PARTIAL / LOCK
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

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

    def packs(self, table: str) -> list[str]:
        """Return the names of the packs that have a file in a table."""
        found = (self._directory / f"table={table}" / PACKED).glob(f"*{SUFFIX}")
        return [path.name.removesuffix(SUFFIX) for path in found]

    def files(self, table: str) -> list[str]:
        """Return the paths of the files that captures have of their own in a table, sorted."""
        found = (self._directory / f"table={table}").glob("host=*/date=*/*.parquet")
        return sorted(path.relative_to(self._directory).as_posix() for path in found)

    def tables(self) -> list[str]:
        """Return the names of the tables that have a directory, sorted."""
        found = self._directory.glob("table=*")
        return sorted(path.name.partition("=")[2] for path in found)

    def remove_forgotten(self, mark: str) -> None:
        """Remove what killed processes left half written, long ago.

        That is what has a temporary name, and packs without a file in the table `mark`.
        """
        partial = [path for path in (self._directory / PARTIAL).glob("*") if path.name != LOCK]
        marked = {path.name for path in (self._directory / f"table={mark}" / PACKED).glob("*")}
        packed = self._directory.glob(f"table=*/{PACKED}/*")
        for path in (*partial, *(path for path in packed if path.name not in marked)):
            with contextlib.suppress(OSError):  # another collector removes it as well
                if time.time() - path.stat().st_mtime > FORGOTTEN_S:
                    path.unlink()


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

    def open(self, file: str) -> BinaryIO:
        """Open a file for reading."""
        with told(self.name, FileNotFoundError):
            opened: BinaryIO = self._fs.open(f"{self._root}/{file}", "rb")
        return opened

    @contextlib.contextmanager
    def writing(self, file: str) -> Iterator[Path]:
        """Give a local path to write to; what is there at the end, if any, becomes the file."""
        path = f"{self._root}/{file}"
        partial = f"{self._root}/{PARTIAL}/{secrets.token_hex(16)}"
        with tempfile.TemporaryDirectory() as name:
            local = Path(name) / "file"
            yield local
            if not local.exists():
                return
            with told(self.name):
                for made in (path, partial):
                    self._fs.makedirs(made.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(local), partial)
                self._fs.mv(partial, path)

    def state(self, file: str) -> Hashable:
        """Return what changes when a file is replaced, as far as the file system tells."""
        with told(self.name, FileNotFoundError):
            facts = self._fs.info(f"{self._root}/{file}")
        return tuple(str(facts.get(name)) for name in STATE)

    def remove_same(self, file: str, state: Hashable) -> None:
        """Remove a file, if it is there and `state` is still its state."""
        with contextlib.suppress(FileNotFoundError):
            if self.state(file) == state:
                self.remove(file)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Do not wait: object stores have no locks."""
        yield

    def packs(self, table: str) -> list[str]:
        """Return the names of the packs that have a file in a table."""
        with told(self.name):
            self._fs.invalidate_cache()  # another process may have made one
            found = self._fs.glob(f"{self._root}/table={table}/{PACKED}/*{SUFFIX}")
        return [path.rpartition("/")[2].removesuffix(SUFFIX) for path in found]

    def files(self, table: str) -> list[str]:
        """Return the paths of the files that captures have of their own in a table, sorted."""
        with told(self.name):
            self._fs.invalidate_cache()
            found = self._fs.glob(f"{self._root}/table={table}/host=*/date=*/*.parquet")
        return sorted(path[path.rindex(f"table={table}/") :] for path in found)

    def tables(self) -> list[str]:
        """Return the names of the tables that have a directory, sorted."""
        with told(self.name):
            found = self._fs.glob(f"{self._root}/table=*")
        return sorted(path.rpartition("=")[2] for path in found)


def _state(path: Path) -> Hashable:
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _move(partial: Path, path: Path) -> None:
    """Rename a file, in whose new directory others may be removing what is empty."""
    for attempt in range(ATTEMPTS):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.replace(path)
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1 or not partial.exists():
                raise
        else:
            return


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
def told(url: str, *passed: type[Exception]) -> Iterator[None]:
    """Turn what a remote file system raises, unless `passed`, into an error that names the URL."""
    try:
        yield
    except Exception as error:  # every file system has exceptions of its own
        if isinstance(error, (MaceprocError, *passed)):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise CaptureError(f"{url}: {said[:300]}") from error
