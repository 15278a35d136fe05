"""Images of more than 8 bits: their values, and the one range of a task that becomes black to white."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from idat_tune.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

Range = tuple[float, float]  # the values that are black and white
_BITS = (8, 10, 12, 14, 16, 24, 32)  # of instruments; their values lie in files of 16 or 32
_TAIL = 0.001  # of an image's values may lie beyond what is usual: dead pixels, glare
# Pillow keeps only the upper byte of colours of 16 bits. Read in the other order of bytes, it keeps the lower one.
_OTHER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
_COLOURS = ("RGB;16", "RGBX;16", "RGBA;16")
_LOWER = "idat_tune.lower"  # in an image's info: another image, with the lower bytes


@dataclass(frozen=True)
class Extremes:
    """The finite values of one deep image."""

    least: float
    most: float
    usual_least: float  # without the lowest thousandth
    usual_most: float  # without the highest thousandth
    whole: bool  # integers


def is_deep(image: Image.Image) -> bool:
    """Whether a loaded image has values of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F" or _LOWER in image.info


def load(image: Image.Image) -> None:
    """As `image.load()`, but keeps all 16 bits of colours, for `values`; raises whatever Pillow does."""
    lower = _lower(image)
    image.load()
    if lower is not None:
        image.info[_LOWER] = lower


def values(image: Image.Image) -> np.ndarray:
    """The values (H, W) or (H, W, 3) of a deep image that `load` loaded, float64; what is not finite is NaN."""
    import numpy as np

    found = np.asarray(image).astype(np.float64)
    if _LOWER in image.info:
        found = (found * 256 + np.asarray(image.info[_LOWER]))[..., :3]
    found[~np.isfinite(found)] = np.nan
    return found


def transpose(image: Image.Image, how: Any) -> Image.Image:
    """As `image.transpose(how)`, with all its bits."""
    turned = image.transpose(how)
    if _LOWER in image.info:
        turned.info[_LOWER] = image.info[_LOWER].transpose(how)
    return turned


def opaque(image: Image.Image) -> Image.Image:
    """The colours of an image of mode RGBA, with all their bits."""
    colours = image.convert("RGB")
    if _LOWER in image.info:
        colours.info[_LOWER] = image.info[_LOWER].convert("RGB")
    return colours


def extremes(found: np.ndarray) -> Extremes | None:
    """Of the values of an image; none if there is nothing finite among them."""
    import numpy as np

    finite = found[~np.isnan(found)]
    if not finite.size:
        return None
    usual = np.quantile(finite, [_TAIL, 1 - _TAIL])
    return Extremes(
        float(finite.min()), float(finite.max()), float(usual[0]), float(usual[1]), bool((finite % 1 == 0).all())
    )


def range_of(found: Iterable[Extremes]) -> Range | None:
    """The range that images have in common: by the usual conventions where one fits, else by their usual values.

    Positive integers start at 0 and end at the most that 8, 10, 12, ... bits hold; fractions are 0..1 or -1..1. All
    else (Hounsfield units, heights, counts below 0) ends where the usual values do. None of no images.
    """
    every = list(found)
    if not every:
        return None
    least, most = min(one.least for one in every), max(one.most for one in every)
    if all(one.whole for one in every) and least >= 0 and most > 1:
        for bits in _BITS:
            if most < 2**bits:
                return 0.0, float(2**bits - 1)
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        if low <= least and most <= high:
            return low, high
    low, high = min(one.usual_least for one in every), max(one.usual_most for one in every)
    return (low, high) if low < high else (least, max(most, least + 1))


def eight_bits(image: Image.Image, intensity: Range | None) -> Image.Image:
    """A deep image in 8 bits, mode L or RGB (RGBA where it has transparency): `intensity` is black to white.

    Values beyond are black or white, what is not finite is black. Without a range, integers are read by the fewest of
    8, 10, 12, ... bits that hold them all (see `range_of`), and floats as 0..1, or as 0..255 where any is above 1.
    """
    import numpy as np
    from PIL import Image

    found = values(image)
    low, high = intensity or _assumed(image, found)
    scaled = np.clip((found - low) * (255 / (high - low)), 0, 255)
    scaled = np.floor(scaled) if intensity is None and image.mode != "F" else np.rint(scaled)
    flat = Image.fromarray(np.nan_to_num(scaled).astype(np.uint8))
    if image.mode == "RGBA":
        flat.putalpha(image.getchannel("A"))
    return flat


def check_range(intensity: object) -> Range | None:
    """A range as a file of ours has it: two numbers, or null; raises BadInput for anything else."""
    if intensity is None:
        return None
    if isinstance(intensity, list | tuple) and len(intensity) == 2:
        low, high = intensity
        if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
            return float(low), float(high)
    raise BadInput(f"a range of intensities is two numbers, the smaller first, and not {intensity!r}")


def _assumed(image: Image.Image, found: np.ndarray) -> Range:
    import numpy as np

    if image.mode != "F":
        alone = extremes(found)
        usual = range_of([alone] if alone else [])
        return (0.0, 255 * 256.0) if usual in (None, (0.0, 65535.0)) else usual  # of 16 bits: the upper byte
    return 0.0, 1.0 if np.nan_to_num(found).max(initial=0) <= 1 else 255.0


def _lower(image: Image.Image) -> Image.Image | None:
    """The lower bytes of an image in colours of 16 bits that is not loaded yet."""
    from PIL import Image

    tiles = getattr(image, "tile", None)
    if not tiles or not _order(tiles[0]).startswith(_COLOURS):
        return None
    file = image.fp  # type: ignore[attr-defined]
    place = file.tell()
    file.seek(0)
    twin = Image.open(io.BytesIO(file.read()), formats=[str(image.format)])
    file.seek(place)
    twin.tile = [_swapped(tile) for tile in twin.tile]
    twin.load()
    return twin


def _order(tile: Any) -> str:
    """The raw mode of a tile, such as RGB;16L."""
    mode = tile.args if isinstance(tile.args, str) else tile.args[0] if tile.args else ""
    return mode if isinstance(mode, str) else ""


def _swapped(tile: Any) -> Any:
    mode = _order(tile)
    other = mode[:-1] + _OTHER[mode[-1]]
    return tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:]))
