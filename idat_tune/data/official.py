"""The official VTAB-1K: which rows of which TFDS split are train, val and test, and how labels are derived."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idat_tune.errors import BadInput


@dataclass(frozen=True)
class Rows:
    """Rows of one split of the source, in the order of its files."""

    split: str
    first: int = 0
    last: int | None = None  # exclusive; none means to the end


@dataclass(frozen=True)
class Official:
    """Where a task's images are in TFDS. Membership depends on the version, since no file is shuffled."""

    tfds: str  # data set, config and version
    val: Rows
    test: Rows
    train: Rows = Rows("train", 0, 800)

    def rows(self, split: str) -> Rows:
        """Those of train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


def _after(first: int) -> Rows:
    return Rows("train", first, first + 200)


_VALIDATION = Rows("validation", 0, 200)
_TEST = Rows("test")
_CLEVR = Official("clevr:3.*.*", _after(63000), Rows("validation"))
_DSPRITES = Official("dsprites:2.*.*", _after(589824), Rows("train", 663552))
_SMALLNORB = Official("smallnorb:2.*.*", Rows("test", 0, 200), Rows("test", 12150))

# As google-research/task_adaptation slices them; its unit tests assert the counts.
OFFICIAL = {
    "cifar": Official("cifar100:3.*.*", _after(45000), _TEST),
    "caltech101": Official("caltech101:3.*.*", _after(2754), _TEST),
    "dtd": Official("dtd:3.*.*", _VALIDATION, _TEST),
    "oxford_flowers102": Official("oxford_flowers102:2.*.*", _VALIDATION, _TEST),
    "oxford_iiit_pet": Official("oxford_iiit_pet:3.*.*", _after(2944), _TEST),
    "svhn": Official("svhn_cropped:3.*.*", _after(65931), _TEST),
    "sun397": Official("sun397/tfds:4.*.*", _VALIDATION, _TEST),
    "patch_camelyon": Official("patch_camelyon:2.*.*", _VALIDATION, _TEST),
    "eurosat": Official("eurosat/rgb:2.*.*", _after(16200), Rows("train", 21600)),
    "resisc45": Official("resisc45:3.*.*", _after(18900), Rows("train", 25200)),
    "diabetic_retinopathy": Official("diabetic_retinopathy_detection/btgraham-300:3.*.*", _VALIDATION, _TEST),
    "clevr_count": _CLEVR,
    "clevr_dist": _CLEVR,
    "dmlab": Official("dmlab:2.0.1", _VALIDATION, _TEST),
    "kitti": Official("kitti:3.1.0", _VALIDATION, _TEST),
    "dsprites_loc": _DSPRITES,
    "dsprites_ori": _DSPRITES,
    "smallnorb_azi": _SMALLNORB,
    "smallnorb_ele": _SMALLNORB,
}

_CLEVR_EDGES = (0, 8, 8.5, 9, 9.5, 10, 100)  # of the pixel coordinates' third component
_KITTI_EDGES = (-100, 8, 20, 999)  # metres
_NO_VEHICLE = 1000.0  # metres
_VEHICLES = 3  # types below: car, van, truck


def _clevr_count(row: Mapping[str, Any]) -> int:
    return len(_field(row, "objects", "pixel_coords")) - 3  # 3 to 10 objects


def _clevr_dist(row: Mapping[str, Any]) -> int:
    return _bucket(min(float(point[2]) for point in _field(row, "objects", "pixel_coords")), _CLEVR_EDGES)


def _kitti(row: Mapping[str, Any]) -> int:
    kinds, places = _field(row, "objects", "type"), _field(row, "objects", "location")
    near = [float(place[2]) for kind, place in zip(kinds, places, strict=True) if int(kind) < _VEHICLES]
    return _bucket(min(near, default=_NO_VEHICLE), _KITTI_EDGES)


def _plain(row: Mapping[str, Any]) -> int:
    return int(row["fine_label"] if "fine_label" in row else row["label"])  # CIFAR-100 has coarse ones too


_LABELS: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "clevr_count": _clevr_count,
    "clevr_dist": _clevr_dist,
    "kitti": _kitti,
    "dsprites_loc": lambda row: int(row["label_x_position"]) * 16 // 32,
    "dsprites_ori": lambda row: int(row["label_orientation"]) * 16 // 40,  # buckets of 3 and 2 by turns
    "smallnorb_azi": lambda row: int(row["label_azimuth"]),
    "smallnorb_ele": lambda row: int(row["label_elevation"]),
}


def label(task: str, row: Mapping[str, Any], where: str) -> int:
    """The task's label of a row that has the features of its TFDS data set.

    Raises:
        BadInput: a feature is missing, or the row has nothing to derive the label from; names `where`.
    """
    try:
        return _LABELS.get(task, _plain)(row)
    except (KeyError, TypeError, ValueError, IndexError) as failure:
        raise BadInput(f"{where}: no label for {task} in features {', '.join(row)} ({failure})") from None


def features(task: str) -> tuple[str, ...]:
    """The features of which one or more make the label."""
    named = {
        "clevr_count": ("objects",),
        "clevr_dist": ("objects",),
        "kitti": ("objects",),
        "dsprites_loc": ("label_x_position",),
        "dsprites_ori": ("label_orientation",),
        "smallnorb_azi": ("label_azimuth",),
        "smallnorb_ele": ("label_elevation",),
    }
    return named.get(task, ("label", "fine_label"))


def image(task: str, encoded: bytes) -> bytes:
    """The image as the benchmark shows it: dSprites' zeros and ones become black and white, else nothing changes."""
    if not task.startswith("dsprites"):
        return encoded
    from PIL import Image

    from idat_tune.data import pixels

    grey = pixels.read(encoded).convert("L")
    if grey.getextrema()[1] > 1:  # type: ignore[operator]
        return encoded
    buffer = io.BytesIO()
    Image.eval(grey, lambda value: 255 * value).save(buffer, "PNG")
    return buffer.getvalue()


def _bucket(value: float, edges: Sequence[float]) -> int:
    """The last edge below `value`, counted from 0."""
    below = sum(edge < value for edge in edges) - 1
    if below < 0:
        raise ValueError(f"{value} is below {edges[0]}")
    return below


def _field(row: Mapping[str, Any], sequence: str, name: str) -> Sequence[Any]:
    """One field of a sequence of objects, which may come as a dict of lists or as a list of dicts."""
    objects = row[sequence]
    return objects[name] if isinstance(objects, Mapping) else [one[name] for one in objects]
