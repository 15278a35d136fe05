"""What a file that is no readable image really is, told by its first bytes, in words that name the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SAVE = "save it as PNG or JPEG"
_AGAIN = "fetch it again"
# First bytes, in small letters and without leading blanks where they are text -> what that is.
_TEXTS = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer and not the image it stands for; fetch those with `git lfs pull`",
    ),
    (b"<!doctype html", f"is a web page, such as a server sends instead of a missing image; {_AGAIN}"),
    (b"<html", f"is a web page, such as a server sends instead of a missing image; {_AGAIN}"),
    (b"<svg", f"is an SVG drawing; {_SAVE}"),
    (b"<?xml", f"is an XML document; {_AGAIN}, or {_SAVE} if it is a drawing"),
    (b"{", f"is JSON and no image; {_AGAIN}"),
)
_BYTES = (
    (b"%pdf", f"is a PDF document; {_SAVE}"),
    (b"%!ps", f"is PostScript; {_SAVE}"),
    (b"\xc5\xd0\xd3\xc6", f"is PostScript; {_SAVE}"),
    (b"8bps", f"is a Photoshop document; {_SAVE}"),
    (b"simple  =", "is a FITS file; save it as TIFF"),
    (b"\x93numpy", "is a NumPy array; save it as PNG or TIFF"),
    (b"\x89hdf", "is an HDF5 file; take the images out of it"),
    (b"pk\x03\x04", "is a zip archive; unpack it first"),
    (b"\x1f\x8b", "is a gzip archive; unpack it first"),
    (b"rar!", "is a RAR archive; unpack it first"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (b"\0\0\1\0", f"is an icon; {_SAVE}"),
    (b"\x1a\x45\xdf\xa3", "is a film; take single images out of it"),
    (b"riff", "is sound or a film; take single images out of it"),
)
# Of images that are read.
HEAD = 32  # bytes that tell one
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_GENERIC = (b"mif1", b"msf1")  # brands that AVIF and HEIC share
_AVIF = (b"avif", b"avis")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def really(encoded: bytes) -> str:
    """What the file is, with the way out, as the rest of a sentence that begins with its name; empty if not known."""
    if not encoded:
        return f"is empty; {_AGAIN}"
    head = encoded[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for begins, what in (*_TEXTS, *_BYTES):
        if head.startswith(begins):
            return what
    if encoded[128:132] == b"DICM":
        return "is a DICOM file; save its pixels as PNG or TIFF of 16 bits"
    if encoded[4:8] == b"ftyp" and encoded[8:12] not in (*_HEIC, *_GENERIC, *_AVIF):
        return "is a film, or a raw photo; save it as PNG or JPEG"
    if not encoded.strip(b"\0"):
        return f"holds nothing but zeros, as a copy does that broke off; {_AGAIN}"
    return _bands(encoded)


def is_image(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an image."""
    if head.startswith(_IMAGES) or (head[4:8] == b"ftyp" and head[8:12] in (*_HEIC, *_GENERIC, *_AVIF)):
        return True
    return (head[:4], head[8:12]) == (b"RIFF", b"WEBP") or re.match(rb"P[1-6]\s", head) is not None


def is_heic(encoded: bytes) -> bool:
    """Whether it is a photo as phones save them, which Pillow cannot read by itself."""
    if encoded[4:8] != b"ftyp":
        return False
    size = min(int.from_bytes(encoded[:4], "big"), 256)
    brands = [encoded[8:12], *(encoded[i : i + 4] for i in range(16, size, 4))]
    return brands[0] in _HEIC or (brands[0] in _GENERIC and not set(brands) & set(_AVIF))


def without_text(encoded: bytes) -> bytes | None:
    """A PNG without its text, which may be larger than Pillow takes; None for anything else."""
    if not encoded.startswith(_PNG):
        return None
    kept = [chunk for kind, chunk in _chunks(encoded) if kind not in _PNG_TEXTS]
    return b"".join([_PNG, *kept])


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_PNG)
    while place < len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")  # length, kind, body, checksum
        yield png[place + 4 : place + 8], png[place:end]
        place = end


def _bands(encoded: bytes) -> str:
    """Of a TIFF that Pillow has no mode for, why."""
    import io

    from PIL import TiffImagePlugin

    try:
        ifd = TiffImagePlugin.ImageFileDirectory_v2(encoded[:8])
        file = io.BytesIO(encoded)
        file.seek(ifd.next)
        ifd.load(file)
        bands, bits = int(ifd.get(277, 1)), ifd.get(258, (1,))
    except Exception:  # no TIFF, or a broken one
        return ""
    return (
        f"is a TIFF of {bands} band{'s' if bands > 1 else ''} of {bits[0]} bits, which is not known; "
        "save it as RGB or grey, choosing three bands or one"
    )
