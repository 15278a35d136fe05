"""A copy of a search elsewhere, made as the search grows, from which it can go on on another machine."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from idat_tune.errors import BadInput, shown
from idat_tune.search.holding import holder

JOURNAL = "journal.jsonl"  # of a search folder; copied last, so that all that it speaks of is there
MANIFEST = "manifest.json"
TUNE = "tune"  # what Tune writes there for itself
EVERY = 15.0  # seconds between two copies
PATIENCE = 60.0  # seconds that the last copy of a search may take
WHOLE = ("s3", "gcs", "abfs")  # where a file is there only once it is whole; elsewhere it is moved into its place
PROBE = ".idat-tune"


class Storage:
    """A folder on any file system that pyarrow knows, with a folder for each search."""

    def __init__(self, uri: str):
        """Reach it.

        Raises:
            BadInput: it is no such place, or cannot be reached.
        """
        import pyarrow as pa
        from pyarrow import fs

        self.uri = uri.rstrip("/") or uri
        try:
            self.files, root = fs.FileSystem.from_uri(uri)
            self.root = root.rstrip("/")
            if not self.root:
                raise ValueError("it names no folder")
        except (pa.ArrowInvalid, OSError, ValueError, ImportError) as failure:
            raise BadInput(
                f"--storage {shown(uri, 200)} cannot be reached: {_first_line(failure)}; give a folder's full path, "
                "s3://BUCKET/FOLDER, gs://..., abfs://... or hdfs://..."
            ) from None

    def check(self) -> None:
        """Make sure that files can be written there.

        Raises:
            BadInput: they cannot.
        """
        try:
            self.files.create_dir(self.root, recursive=True)
            self.write(PROBE, b"")
            self.files.delete_file(self._path(PROBE))
        except OSError as failure:
            raise BadInput(
                f"--storage {self.uri} cannot be written: {_first_line(failure)}; name another place, or leave it away"
            ) from None

    def read(self, name: str) -> bytes | None:
        """A file; None if there is none."""
        from pyarrow import fs

        if self.files.get_file_info(self._path(name)).type != fs.FileType.File:
            return None
        with self.files.open_input_stream(self._path(name)) as stream:
            return bytes(stream.read())

    def size(self, name: str) -> int:
        """Bytes of a file; 0 if there is none."""
        return int(self.files.get_file_info(self._path(name)).size or 0)

    def write(self, name: str, content: bytes) -> None:
        """A file, all at once."""
        path = self._path(name)
        whole = self.files.type_name in WHOLE
        if not whole:
            self.files.create_dir(path.rpartition("/")[0], recursive=True)
        with self.files.open_output_stream(path if whole else f"{path}.partial") as stream:
            stream.write(content)
        if not whole:
            self.files.move(f"{path}.partial", path)

    def names(self, folder: str) -> list[str]:
        """All files of a folder, by their paths in it."""
        from pyarrow import fs

        base = self._path(folder)
        found = self.files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        return [info.path[len(base) + 1 :] for info in found if info.type == fs.FileType.File]

    def has(self, search: str) -> bool:
        """Whether there is a copy of a search."""
        return self.size(f"{search}/{MANIFEST}") > 0

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


def fetch(storage: Storage, folder: Path) -> bool:
    """Bring the copy of a search into its folder, unless that knows as much or more; whether anything was brought.

    Raises:
        BadInput: folder and copy have different histories, or the copy cannot be read.
    """
    name = folder.name
    try:
        there = storage.read(f"{name}/{JOURNAL}")
        if there is None or not storage.has(name) or holder(folder):  # whoever drives it knows better
            return False
        here = (folder / JOURNAL).read_bytes() if (folder / JOURNAL).exists() else b""
        if here.startswith(there) and (folder / MANIFEST).exists():
            return False
        if not there.startswith(here):
            raise BadInput(
                f"search '{name}' went on differently in {folder} and at {storage.uri}; move one of them away, or give "
                "this search another --name"
            )
        for path in storage.names(name):
            if path != JOURNAL:
                _place(folder / path, storage.read(f"{name}/{path}") or b"")
        _place(folder / JOURNAL, there)
    except OSError as failure:
        raise BadInput(f"the copy of search '{name}' at {storage.uri} cannot be read: {_first_line(failure)}") from None
    return True


def _place(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


class Copies:
    """What of a search folder was copied."""

    def __init__(self, storage: Storage, folder: Path):
        self.storage = storage
        self.folder = folder
        self._copied: dict[str, tuple[int, int]] = {}  # size and time of change, by path in the folder
        self._sizes: set[int] = set()  # of the journal there, as this wrote it or may have written it
        self._journal = -1  # bytes of it that are known to be there

    def copy(self) -> None:
        """Copy what has changed.

        Raises:
            OSError: not everything could be.
            BadInput: somebody else writes there.
        """
        name = self.folder.name
        journal = (self.folder / JOURNAL).read_bytes()  # now: what comes later may speak of files that are not copied
        for path in self._files():
            with suppress(FileNotFoundError):  # it was replaced meanwhile
                status = path.stat()
                mark, place = (status.st_size, status.st_mtime_ns), str(path.relative_to(self.folder))
                if self._copied.get(place) != mark:
                    self.storage.write(f"{name}/{place}", path.read_bytes())
                    self._copied[place] = mark
        if len(journal) == self._journal:
            return
        if self._sizes and self.storage.size(f"{name}/{JOURNAL}") not in self._sizes:
            raise BadInput(f"another driver writes search '{name}' at {self.storage.uri}; nothing more is copied there")
        self._sizes |= {len(journal)} if self._sizes else {self.storage.size(f"{name}/{JOURNAL}"), len(journal)}
        self.storage.write(f"{name}/{JOURNAL}", journal)
        self._journal = len(journal)

    def _files(self) -> Iterator[Path]:
        for parent, folders, files in os.walk(self.folder):
            top = Path(parent) == self.folder
            # Tune deletes its own while this walks.
            folders[:] = sorted(name for name in folders if not (name.startswith(".") or (top and name == TUNE)))
            for name in sorted(files):
                if not (name.startswith(".") or name.endswith(".partial") or (top and name == JOURNAL)):
                    yield Path(parent) / name


@contextmanager
def copied(uri: str | None, folder: Path, tell: Callable[[str], None], every: float = EVERY) -> Iterator[None]:
    """While inside, and once more at the end, copy a search folder; a failure is told of once and stops nothing.

    Args:
        uri: where to; nothing is done without one.
        folder: of the search.
        tell: called with a sentence, from a thread.
        every: seconds between two copies.
    """
    if uri is None:
        yield
        return
    over = threading.Event()
    copying = threading.Thread(target=_copy_on, args=(Storage(uri), folder, tell, over, every), daemon=True)
    copying.start()
    try:
        yield
    finally:
        over.set()
        copying.join(PATIENCE)
        if copying.is_alive():
            tell(
                f"the copy at {uri} is not up to date: it takes longer than {PATIENCE:g} s; the same command copies it"
            )


def _copy_on(storage: Storage, folder: Path, tell: Callable[[str], None], over: threading.Event, every: float) -> None:
    copies, failed = Copies(storage, folder), False
    while True:
        last = over.wait(every)
        try:
            copies.copy()
            if failed:
                tell(f"the copy at {storage.uri} is up to date again")
            failed = False
        except BadInput as failure:
            return tell(str(failure))
        except Exception as failure:  # whatever a file system raises
            if not failed or last:
                way_out = "the same command copies it" if last else "it is tried again"
                tell(f"the copy at {storage.uri} is not up to date: {_first_line(failure)}; {way_out}")
            failed = True
        if last:
            return None


def _first_line(failure: BaseException) -> str:
    return shown((str(failure).strip() or type(failure).__name__).splitlines()[0], 200)
