"""How an encoded image becomes pixels: the one definition, for import, training, test and exported students."""

from __future__ import annotations

import io
import os
import warnings
from functools import cache
from typing import TYPE_CHECKING

from idat_tune.data import deep, signatures
from idat_tune.data.deep import Range
from idat_tune.errors import BadInput

# Heavy modules are imported inside the functions: `import idat_tune.data` must stay light.
if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic")  # PIL numbers them 0, 1, 2, 3
MAX_PIXELS = 64_000_000  # of one image; larger ones are taken for decompression bombs
MAX_BYTES = 128 * 2**20  # of one encoded image
# The names of files that are taken for images, in small letters, and the formats that are read, whatever the name:
# none that runs another program (EPS) or is found by its name alone (TGA).
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".png", ".apng", ".webp", ".avif", ".heic", ".heif", ".hif"),
    *(".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx"),
)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
HEIC = "HEIF"  # as pillow-heif calls it, an extra of ours
_ORIENTATION = 0x0112  # the EXIF tag
_BANDS, _EXTRA = 277, 338  # of a TIFF: how many there are, and what those beyond the colours are
# EXIF orientation -> PIL's transposition that makes the image upright.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def check_shape(size: int, channels: int, interpolation: str) -> None:
    """Raises BadInput unless images can be decoded to `channels` x `size` x `size` that way."""
    if size < 1:
        raise BadInput(f"image size {size} is not possible; it counts pixels and starts at 1")
    if channels not in (1, 3):
        raise BadInput(f"images have 1 channel (grey) or 3 (RGB), not {channels}")
    if interpolation not in INTERPOLATIONS:
        raise BadInput(f"unknown interpolation '{interpolation}'; known: {', '.join(INTERPOLATIONS)}")


def decode(
    image: Image.Image,
    size: int,
    channels: int = 3,
    interpolation: str = "bicubic",
    intensity: Range | None = None,
) -> np.ndarray:
    """An image as uint8 pixels (`channels`, `size`, `size`).

    Made upright, brought to 8-bit RGB or grey (see `flatten`, also for `intensity`), then resized by PIL, antialiased;
    both sides become `size`, so the aspect is not kept.

    Raises:
        BadInput: the image cannot be decoded, or the shape is impossible.
    """
    import numpy as np

    check_shape(size, channels, interpolation)
    flat = flatten(image, intensity)
    if channels == 1:
        flat = flat.convert("L")  # ITU-R 601 luma
    pixels = np.asarray(flat.resize((size, size), INTERPOLATIONS.index(interpolation)))
    if pixels.ndim == 2:
        return np.repeat(pixels[None], channels, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_bytes(
    encoded: bytes, name: str, size: int, channels: int, interpolation: str, intensity: Range | None = None
) -> np.ndarray:
    """`decode` of an encoded image; errors name it as `name`."""
    try:
        return decode(read(encoded, name), size, channels, interpolation, intensity)
    except BadInput as failure:
        raise BadInput(str(failure) if name in str(failure) else f"{name}: {failure}") from None


def read(encoded: bytes, name: str = "the image") -> Image.Image:
    """The decoded image of an encoded one; of an animation, the first frame.

    Raises:
        BadInput: empty, no image (says what it is instead), truncated, or too large; names it.
    """
    if len(encoded) > MAX_BYTES:
        raise BadInput(f"{name} has {len(encoded):,} bytes, more than the {MAX_BYTES:,} an image may have")
    try:
        return _read(encoded, name)
    except BadInput:
        bare = signatures.without_text(encoded)
        if bare is None or len(bare) == len(encoded):
            raise
    return _read(bare, name)


def remark(encoded: bytes) -> str:
    """What of a readable image does not count, if anything: further frames or pages, further bands."""
    try:
        image = _opened(encoded)
        frames, bands = getattr(image, "n_frames", 1), getattr(image, "tag_v2", {}).get(_BANDS, 1)
    except Exception:  # Pillow reads the first frame and stumbles over the next: that one does not count either
        return FRAMES
    more = image.mode in ("RGB", "RGBA") and bands > (4 if _has_alpha(image) else 3)
    return FRAMES if frames > 1 else BANDS if more else ""


def form(encoded: bytes, name: str = "the image") -> str:
    """What the format of a readable image is called, such as JPEG; raises BadInput for anything else."""
    if signatures.is_heic(encoded):
        return HEIC
    try:
        return str(_opened(encoded).format)
    except Exception:  # see `_read`
        raise BadInput(f"{name} {signatures.really(encoded) or 'is not a readable image'}") from None


def _opened(encoded: bytes) -> Image.Image:
    """A readable image, not decoded yet."""
    from PIL import Image

    bare = signatures.without_text(encoded) or encoded
    return Image.open(io.BytesIO(bare), formats=_formats(encoded, ""))


FRAMES = "several frames or pages; the first counts"
BANDS = "more than three bands; the first three count"


def flatten(image: Image.Image, intensity: Range | None = None) -> Image.Image:
    """The image upright and in 8 bits, mode L where it is grey and RGB else.

    EXIF rotation is applied. What is transparent shows white. CMYK, LAB, YCbCr and palettes become RGB.

    Args:
        image: any that Pillow has; 16-bit colours keep all their bits if it came from `read` or is not loaded yet.
        intensity: of an image with more than 8 bits, the values that become black and white; see `deep.eight_bits`.
    """
    from PIL import Image

    _load(image, "the image")
    if image.mode == "RGBA" and not _has_alpha(image):
        image = deep.opaque(image)
    image = upright(image)
    if deep.is_deep(image):
        image = deep.eight_bits(image, intensity)
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image
    try:
        if image.has_transparency_data:
            seen = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    except Exception as failure:  # a broken palette or colour profile, a mode that has no way to RGB
        raise BadInput(f"the image, of mode {image.mode}, cannot be brought to RGB: {failure}") from None


def upright(image: Image.Image) -> Image.Image:
    """The image as EXIF says it is to be seen."""
    from PIL import Image

    try:
        turned = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF says nothing about orientation
        return image
    return deep.transpose(image, Image.Transpose[turned]) if turned else image


def workers() -> int:
    """How many threads decode at once: the cores this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(16, cores or 1))


def _read(encoded: bytes, name: str) -> Image.Image:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(encoded), formats=_formats(encoded, name))
    except BadInput:
        raise
    except Image.DecompressionBombError:
        raise BadInput(f"{name} has more than the {MAX_PIXELS:,} pixels an image may have") from None
    except Exception:  # PIL's readers raise anything at all on broken input
        what = signatures.really(encoded) or f"is not a readable image (known: {', '.join((*FORMATS, HEIC))})"
        raise BadInput(f"{name} {what}") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadInput(f"{name} has {width} x {height} pixels, more than the {MAX_PIXELS:,} an image may have")
    _load(image, name)
    return image


@cache
def _known() -> tuple[str, ...]:
    """The formats that this Pillow has."""
    from PIL import Image

    # Larger images are refused here, in words of ours; what else it warns of (broken EXIF) has no consequence.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _formats(encoded: bytes, name: str) -> tuple[str, ...]:
    if not signatures.is_heic(encoded):
        return _known()
    try:
        import pillow_heif
    except ImportError:
        raise BadInput(
            f'{name} is a HEIC photo, which wants an extra: pip install "idat-tune[heic]"; or save it as JPEG'
        ) from None
    pillow_heif.register_heif_opener()
    return (*_known(), HEIC)


def _has_alpha(image: Image.Image) -> bool:
    """Whether a fourth band is transparency; Pillow takes it for that in a TIFF that does not say so."""
    tags = getattr(image, "tag_v2", None)
    return tags is None or tags.get(_EXTRA) not in (None, (0,), 0)


def _load(image: Image.Image, name: str) -> None:
    try:
        deep.load(image)
    except Exception as failure:  # see `_read`
        raise BadInput(f"{name} cannot be decoded: {failure}") from None
