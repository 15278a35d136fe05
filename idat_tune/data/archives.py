"""Zip and tar archives, read where they are: nothing is unpacked to where its entries say."""

from __future__ import annotations

import tarfile
import tempfile
import threading
import weakref
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import IO

from idat_tune.data import pixels, signatures, trees
from idat_tune.data.trees import Folder, Image, LeftOut
from idat_tune.errors import BadInput, IdatError, printable

MAX_ENTRIES = 1_000_000
MAX_BYTES = 2**30  # unpacked; more is accepted where it is at most _MAX_RATIO times the archive
_MAX_RATIO = 100  # images hardly shrink when they are packed
_MAX_NAME = 4096  # characters
_PACKED = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ": "xz"}  # the first bytes of what a tar is packed with
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_OTHERS = {b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"\x28\xb5\x2f\xfd": "zst"}


@dataclass(frozen=True)
class Entry:
    """A file in an archive."""

    size: int  # bytes, unpacked
    read: Callable[..., bytes]  # all of it, or as many of its first bytes as are asked for


@dataclass
class Archive:
    """What is in an archive, by paths with / that stay within it."""

    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    odd: Counter[str] = field(default_factory=Counter)  # entries that are neither, by kind

    def show(self, name: str) -> str:
        """An entry as messages name it."""
        return f"{self.path}/{printable(name)}"

    def read(self, name: str) -> bytes:
        """The bytes of an image or a list in it.

        Raises:
            BadInput: it is broken, or too large for an image.
        """
        entry = self.entries[name]
        if entry.size > pixels.MAX_BYTES:
            raise BadInput(f"{self.show(name)} has more than the {pixels.MAX_BYTES:,} bytes an image may have")
        return self._bytes(name)

    def head(self, name: str) -> bytes:
        """The first bytes of a file in it; none where it is broken."""
        try:
            return self._bytes(name, signatures.HEAD)
        except BadInput:
            return b""

    def _bytes(self, name: str, *most: int) -> bytes:
        try:
            found = self.entries[name].read(*most)
        except Exception as failure:  # zlib, lzma, struct, zipfile and operating system errors
            why = printable(str(failure)) or "it is cut short"
            raise BadInput(f"{self.show(name)} cannot be read: {why}") from None
        if not most and len(found) != self.entries[name].size:
            raise BadInput(f"{self.show(name)} cannot be read: it is cut short")
        return found


def form(path: Path) -> str | None:
    """zip or tar, where a file is that by its first bytes; what else it is packed with is refused.

    Raises:
        BadInput: it is an archive that cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if start[257:262] == b"ustar" or (path.suffix.lower() == ".tar" and start):
        return "tar"
    if _packing(start):
        return "tar"
    for first, name in _OTHERS.items():
        if start.startswith(first):
            raise BadInput(f"{path} is a {name} archive, which cannot be read; unpack it and import the folder")
    return "zip" if zipfile.is_zipfile(path) else None


def read(path: Path) -> Archive:
    """The list of what is in an archive, checked: no path leads out, nothing is encrypted, no bomb.

    Raises:
        BadInput: no archive, a broken one, or one that fails a check; names what fails it.
        IdatError: no room for a packed tar.
    """
    state = path.stat()
    return _read(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1)  # it is looked at to find out what it is, and then again to read it
def _read(path: Path, size: int, mtime_ns: int) -> Archive:
    archive = Archive(path)
    (_read_zip if form(path) == "zip" else _read_tar)(archive)
    return archive


def scan(path: Path) -> tuple[Folder, LeftOut]:
    """An archive as the tree that its folder would be; raises what `read` does."""
    archive = read(path)
    tree, left = Folder(), LeftOut()
    for kind, count in archive.odd.items():
        left.kinds[kind] += count
    placed = {"": tree}
    hidden: Counter[str] = Counter()
    for name in sorted(archive.folders):
        _place(name, placed, hidden)
    for name in sorted(archive.entries):
        above, _, last = name.rpartition("/")
        folder = _place(above, placed, hidden)
        if folder is None:
            hidden[_hidden(above) or ""] += 1
            continue
        image = Image(name, archive.show(name), archive.entries[name].size, partial(archive.read, name))
        trees.add(folder, last, image, partial(archive.head, name))
    for name, files in hidden.items():
        left.folder(name.rpartition("/")[2], files)
    return tree, left


def _place(path: str, placed: dict[str, Folder], hidden: Counter[str]) -> Folder | None:
    """The folder of that path, made with those above it; none where one of them is hidden."""
    if path in placed:
        return placed[path]
    if (cut := _hidden(path)) is not None:
        hidden[cut] += 0
        return None
    folder = placed[""]
    for i, part in enumerate(parts := path.split("/")):
        whole = "/".join(parts[: i + 1])
        if whole not in placed:
            placed[whole] = folder.folders[part] = Folder(whole)
        folder = placed[whole]
    return folder


def _hidden(path: str) -> str | None:
    """As much of a path as leads to a system folder, or to one that lies too deep."""
    parts = path.split("/")
    for i, part in enumerate(parts):
        whole = "/".join(parts[: i + 1])
        if trees.is_system(part) or trees.too_deep(whole):
            return whole
    return None


def _read_zip(archive: Archive) -> None:
    path = archive.path
    try:
        opened = zipfile.ZipFile(path)
        listed = opened.infolist()
    except Exception as failure:  # BadZipFile, and what broken fields lead to
        raise BadInput(f"{path} is not a whole zip file ({printable(str(failure))}); get it again") from None
    for info in listed:
        _check(archive, len(listed), info.filename)
        written = _decoded(info).replace("\\", "/")  # as some programs on Windows write them
        name = _within(archive, written)
        if name is None or written.endswith("/"):
            archive.folders += [name] if name else []
        elif (info.external_attr >> 28) == 0xA:  # the type of file on Unix
            archive.odd["links"] += 1
        elif info.flag_bits & 1:
            raise BadInput(f"{archive.show(name)} is encrypted; unpack {path} with its password and import the folder")
        elif info.compress_type not in _ZIP_METHODS:
            raise BadInput(f"{archive.show(name)} is packed in a way that cannot be read; unpack it, import the folder")
        else:
            _enter(archive, name, Entry(info.file_size, partial(_zipped, opened, info)))
    _check_total(archive, sum(entry.size for entry in archive.entries.values()))


def _zipped(opened: zipfile.ZipFile, info: zipfile.ZipInfo, most: int = -1) -> bytes:
    with opened.open(info) as file:
        # Only as much as its entry declares: what unpacks to more is cut off there, and its checksum fails.
        return file.read(info.file_size if most < 0 else most)


def _decoded(info: zipfile.ZipInfo) -> str:
    """The name of an entry; many programs write UTF-8 without saying so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


def _read_tar(archive: Archive) -> None:
    path = archive.path
    held = _plain(archive)
    lock = threading.Lock()

    def part(offset: int, size: int, most: int = -1) -> bytes:
        with lock:
            held.seek(offset)
            return held.read(size if most < 0 else min(size, most))

    places: dict[str, Entry] = {}
    try:
        with tarfile.open(fileobj=held, mode="r:") as opened:
            for count, info in enumerate(_members(opened), 1):
                _check(archive, count, info.name)
                name = _within(archive, info.name)
                if name is None or info.isdir():
                    archive.folders += [name] if name else []
                elif info.islnk() and info.linkname in places:  # the second name of a file
                    _enter(archive, name, places[info.linkname])
                elif not info.isreg() or info.sparse is not None:
                    archive.odd["links" if info.issym() or info.islnk() else "no regular files"] += 1
                else:
                    places[info.name] = Entry(info.size, partial(part, info.offset_data, info.size))
                    _enter(archive, name, places[info.name])
    except BadInput:
        raise
    except Exception as failure:  # TarError, and what broken fields lead to
        raise BadInput(f"{path} is not a whole tar file ({printable(str(failure))}); get it again") from None


def _members(opened: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The entries in their order; one that leads back would be read again and again."""
    last = -1
    while (info := opened.next()) is not None:
        if info.offset <= last or info.size < 0:
            raise tarfile.ReadError("its entries lead round")
        last = info.offset
        yield info
        opened.members.clear()  # type: ignore[attr-defined]  # they would all be kept


def _plain(archive: Archive) -> IO[bytes]:
    """The tar itself, or what it is packed from in a file without a name; closed when the archive is forgotten."""
    opened = archive.path.open("rb")
    weakref.finalize(archive, opened.close)
    packing = _packing(opened.read(6))
    opened.seek(0)
    if packing is None:
        return opened
    written = 0
    try:
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the archive
        weakref.finalize(archive, unpacked.close)
        with _unpacker(packing, opened) as source:
            while piece := _piece(archive.path, source):
                written += unpacked.write(piece)
                _check_total(archive, written)
        unpacked.seek(0)
    except OSError as failure:
        raise IdatError(
            f"{archive.path} cannot be unpacked in the folder of temporary files ({failure.strerror}); make room, or "
            "name another folder with TMPDIR"
        ) from None
    return unpacked


def _piece(path: Path, source: IO[bytes]) -> bytes:
    try:
        return source.read(2**20)
    except Exception as failure:  # zlib, lzma, end of file and operating system errors
        raise BadInput(f"{path} is broken ({failure}); get it again") from None


def _unpacker(packing: str, file: IO[bytes]) -> IO[bytes]:
    import bz2
    import gzip
    import lzma

    if packing == "gz":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    return bz2.BZ2File(file) if packing == "bz2" else lzma.LZMAFile(file)


def _packing(start: bytes) -> str | None:
    return next((packing for first, packing in _PACKED.items() if start.startswith(first)), None)


def _within(archive: Archive, name: str) -> str | None:
    """A path without '.' and empty parts; none for the archive's own folder.

    Raises:
        BadInput: it leads out of the archive.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    drive = parts and len(parts[0]) == 2 and parts[0][1] == ":"
    if name.startswith("/") or ".." in parts or "\0" in name or drive:
        raise BadInput(
            f"{archive.path}, entry '{printable(name)}': it leads out of the archive; unpack it with care and "
            "import the folder"
        )
    return "/".join(parts) or None


def _enter(archive: Archive, name: str, entry: Entry) -> None:
    if name in archive.entries:
        archive.odd["entries of a name that a later one has"] += 1
    archive.entries[name] = entry


def _check(archive: Archive, count: int, name: str) -> None:
    if count > MAX_ENTRIES:
        raise BadInput(f"{archive.path} has more than {MAX_ENTRIES:,} entries; unpack it and import the folder")
    if len(name) > _MAX_NAME:
        raise BadInput(
            f"{archive.path} has an entry with a name of {len(name):,} characters; it is no archive of images"
        )


def _check_total(archive: Archive, size: int) -> None:
    packed = archive.path.stat().st_size
    if size > max(MAX_BYTES, _MAX_RATIO * packed):
        raise BadInput(
            f"{archive.path} has {packed:,} bytes and unpacks to {size:,} or more, as decompression bombs do; if it is "
            "none, unpack it and import the folder"
        )
