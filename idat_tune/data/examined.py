"""What images are, without their pixels: decoded, hashed, and kept as a file beside a half imported split."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from idat_tune.data import deep, files, pixels
from idat_tune.data.deep import Extremes
from idat_tune.data.parquet import Encoded

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Image:
    """What one image is, without its pixels."""

    name: str
    label: int
    bytes_digest: bytes  # sha256 of the file
    pixels_digest: bytes  # sha256 of the upright RGB pixels, before any resizing
    size: tuple[int, int]  # width, height
    values: Extremes | None = None  # where it has more than 8 bits
    remark: str = ""  # what of it does not count
    group: str = ""  # images of one group stay together


@dataclass
class Split:
    """The images of a split in their order, and what could not be read."""

    images: list[Image]
    bad: list[str]  # sentences that name them

    @property
    def hash(self) -> str:
        """sha256 over labels, files and groups (where there are any), in order."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(image.label.to_bytes(8, "little", signed=True) + image.bytes_digest + image.group.encode())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Keep it beside a half imported split, so that the images need not be decoded again."""
        import numpy as np

        with files.whole(path) as file:
            np.savez(
                file,
                name=np.array([image.name for image in self.images]),
                label=np.array([image.label for image in self.images]),
                digests=_digests(self.images),
                size=np.array([image.size for image in self.images]),
                values=np.array([_NONE if image.values is None else astuple(image.values) for image in self.images]),
                remark=np.array([image.remark for image in self.images], dtype=np.str_),
                group=np.array([image.group for image in self.images], dtype=np.str_),
                bad=np.array(self.bad, dtype=np.str_),
            )

    @classmethod
    def load(cls, path: Path) -> Split:
        """What `save` wrote; raises OSError or ValueError where there is nothing of use."""
        import numpy as np

        with np.load(path, allow_pickle=False) as kept:
            lists = (kept[name].tolist() for name in ("name", "label", "size", "values", "remark", "group"))
            images = [
                Image(name, label, both[0].tobytes(), both[1].tobytes(), (size[0], size[1]), _extremes(values), *more)
                for both, name, label, size, values, *more in zip(kept["digests"], *lists, strict=True)
            ]
            return cls(images, kept["bad"].tolist())


def examine(one: Encoded) -> Image:
    """Decode and hash one image.

    Raises:
        BadInput: it cannot be decoded; names it.
    """
    image = pixels.upright(pixels.read(one.image, one.name))
    seen = hashlib.sha256(b"%d %d " % image.size)
    values = None
    if deep.is_deep(image):
        held = deep.values(image)
        values = deep.extremes(held)
        seen.update(held.tobytes())
    else:
        seen.update(pixels.flatten(image).convert("RGB").tobytes())
    stored = hashlib.sha256(one.image).digest()
    return Image(
        one.name, one.label, stored, seen.digest(), image.size, values, pixels.remark(one.image), one.group or ""
    )


def _digests(images: list[Image]) -> np.ndarray:
    import numpy as np

    joined = b"".join(image.bytes_digest + image.pixels_digest for image in images)
    return np.frombuffer(joined, np.uint8).reshape(len(images), 2, 32)


_NONE = (float("nan"),) * 5  # an image of 8 bits, in a file


def _extremes(kept: list[float]) -> Extremes | None:
    least, most, usual_least, usual_most, whole = kept
    return None if whole != whole else Extremes(least, most, usual_least, usual_most, bool(whole))
