"""How an encoded image becomes pixels: the one definition, for import, training, test and exported students."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from idat_tune.errors import BadInput

# Heavy modules are imported inside the functions: `import idat_tune.data` must stay light.
if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic")  # PIL numbers them 0, 1, 2, 3
MAX_PIXELS = 64_000_000  # of one image; larger ones are taken for decompression bombs
MAX_BYTES = 128 * 2**20  # of one encoded image
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
)  # of files taken for images
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_ORIENTATION = 0x0112  # the EXIF tag
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


def decode(image: Image.Image, size: int, channels: int = 3, interpolation: str = "bicubic") -> np.ndarray:
    """An image as uint8 pixels (`channels`, `size`, `size`).

    Made upright, brought to 8-bit RGB or grey (see `flatten`), then resized by PIL, antialiased; both sides
    become `size`, so the aspect is not kept.

    Raises:
        BadInput: the image cannot be decoded, or the shape is impossible.
    """
    import numpy as np

    check_shape(size, channels, interpolation)
    flat = flatten(image)
    if channels == 1:
        flat = flat.convert("L")  # ITU-R 601 luma
    pixels = np.asarray(flat.resize((size, size), INTERPOLATIONS.index(interpolation)))
    if pixels.ndim == 2:
        return np.repeat(pixels[None], channels, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_bytes(encoded: bytes, name: str, size: int, channels: int, interpolation: str) -> np.ndarray:
    """`decode` of an encoded image; errors name it as `name`."""
    try:
        return decode(read(encoded, name), size, channels, interpolation)
    except BadInput as failure:
        raise BadInput(str(failure) if name in str(failure) else f"{name}: {failure}") from None


def read(encoded: bytes, name: str = "the image") -> Image.Image:
    """The decoded image of an encoded one; of an animation, the first frame.

    Raises:
        BadInput: empty, no image, truncated, or too large; names it.
    """
    from PIL import Image

    if len(encoded) > MAX_BYTES:
        raise BadInput(f"{name} has {len(encoded):,} bytes, more than the {MAX_BYTES:,} an image may have")
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise BadInput(f"{name} has more than the {MAX_PIXELS:,} pixels an image may have") from None
    except Exception:  # PIL's readers raise anything at all on broken input
        what = "is empty" if not encoded else f"is not a readable image (known: {', '.join(_FORMATS)})"
        raise BadInput(f"{name} {what}") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadInput(f"{name} has {width} x {height} pixels, more than the {MAX_PIXELS:,} an image may have")
    _load(image, name)
    return image


def flatten(image: Image.Image) -> Image.Image:
    """The image upright and in 8 bits, mode L where it is grey and RGB else.

    EXIF rotation is applied. What is transparent shows white. 16-bit grey keeps its upper 8 bits (a range of
    0..65535 is assumed); floats are read as 0..1, or as 0..255 where any is above 1. CMYK and palettes become RGB.
    """
    from PIL import Image

    _load(image, "the image")
    image = _upright(image)
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _eight_bits(image)
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def workers() -> int:
    """How many threads decode at once: the cores this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(16, cores or 1))


def _load(image: Image.Image, name: str) -> None:
    try:
        image.load()
    except Exception as failure:  # see `read`
        raise BadInput(f"{name} cannot be decoded: {failure}") from None


def _upright(image: Image.Image) -> Image.Image:
    from PIL import Image

    try:
        turned = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF says nothing about orientation
        return image
    return image.transpose(Image.Transpose[turned]) if turned else image


def _eight_bits(image: Image.Image) -> Image.Image:
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode != "F":
        values = values // 256
    elif values.max(initial=0) <= 1:
        values = values * 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
