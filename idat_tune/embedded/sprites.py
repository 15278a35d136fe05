"""The tasks `sprites_loc` and `sprites_ori`: one rendered shape per image, after dSprites.

Everything after the corners of a shape is integer arithmetic on raw PCG64 output, so that the pixels
are the same on every machine and with every version of numpy.
"""

# N images, E edges of a shape, H crossings of an outline with a scan line

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import PCG64

SIZE = 32  # side of an image, pixels
CLASSES = 16
COUNTS = {"train": 800, "val": 200, "test": 4000}
# One stream of random numbers per task and split: no image depends on which others are made.
SEEDS = {
    ("sprites_loc", "train"): 1601,
    ("sprites_loc", "val"): 1602,
    ("sprites_loc", "test"): 1603,
    ("sprites_ori", "train"): 2201,
    ("sprites_ori", "val"): 2202,
    ("sprites_ori", "test"): 2203,
}
# Where the centre of a shape may lie, pixels from the left and from the top: one pixel per class for
# `sprites_loc`, as in dSprites.
CENTRES = {"sprites_loc": (8.0, 24.0), "sprites_ori": (10.0, 22.0)}
# From the centre of a shape to its farthest corner, pixels. Smaller shapes can be located, but too few
# pixels tell their sixteen orientations apart for patches of 8 pixels.
RADII = {"sprites_loc": (4.0, 7.5), "sprites_ori": (6.0, 9.5)}
UNIT = 256  # steps of the grid that corners are rounded to, per pixel
LINES = 8  # scan lines per row of pixels


@dataclass(frozen=True)
class Factors:
    """What the images show: arrays (N,), one entry per image."""

    shape: np.ndarray  # index into SHAPES
    x: np.ndarray  # centre, pixels from the left
    y: np.ndarray  # centre, pixels from the top
    radius: np.ndarray  # pixels
    degrees: np.ndarray  # anticlockwise from upright


def load_sprites(task: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Render one of the splits in COUNTS; its classes differ by one image at most in number.

    Returns:
        pixels uint8 (N, 1, 32, 32), white on black, and labels int64 (N,): for `sprites_loc` the
        sixteenth of CENTRES that the horizontal centre lies in, from the left; for `sprites_ori` the
        turn anticlockwise from upright, where class i lies within 11.25 degrees of 22.5 * i.
    """
    factors, labels = draw_factors(task, split)
    return render(factors)[:, None], labels


def draw_factors(task: str, split: str) -> tuple[Factors, np.ndarray]:
    """The random factors of a split and its labels int64 (N,)."""
    count = COUNTS[split]
    order_N, shape_N, x_N, y_N, size_N, turn_N = _uniforms(PCG64(SEEDS[task, split]), 6, count)
    labels_N = np.argsort(order_N, kind="stable") % CLASSES
    if task == "sprites_loc":
        x_N = (labels_N + x_N) / CLASSES
    else:
        turn_N = (labels_N + turn_N - 0.5) / CLASSES
    (low, high), (small, large) = CENTRES[task], RADII[task]
    factors = Factors(
        shape=(shape_N * len(SHAPES)).astype(np.int64),
        x=low + (high - low) * x_N,
        y=low + (high - low) * y_N,
        radius=small + (large - small) * size_N,
        degrees=360 * turn_N,
    )
    return factors, labels_N.astype(np.int64)


def _uniforms(source: PCG64, rows: int, count: int) -> np.ndarray:
    return (source.random_raw(rows * count) >> np.uint64(11)).reshape(rows, count) / 2.0**53


def render(factors: Factors) -> np.ndarray:
    """Pixels uint8 (N, 32, 32) of shapes that lie inside the frame; their edges are antialiased."""
    corners_NE2 = _corners(factors)
    assert corners_NE2.min() >= 0
    assert corners_NE2.max() <= SIZE * UNIT
    return _filled(corners_NE2)


def _corners(factors: Factors) -> np.ndarray:
    """Integer corners (N, E, 2) in steps of 1 / UNIT pixels, x to the right and y down."""
    outline_NE2 = _OUTLINES[factors.shape] * factors.radius[:, None, None]
    turn_N = np.radians(factors.degrees)
    cos_N1, sin_N1 = np.cos(turn_N)[:, None], np.sin(turn_N)[:, None]
    right_NE, up_NE = outline_NE2[..., 0], outline_NE2[..., 1]
    x_NE = factors.x[:, None] + cos_N1 * right_NE - sin_N1 * up_NE
    y_NE = factors.y[:, None] - (sin_N1 * right_NE + cos_N1 * up_NE)
    return np.rint(np.stack([x_NE, y_NE], axis=-1) * UNIT).astype(np.int32)


def _filled(corners_NE2: np.ndarray) -> np.ndarray:
    """Coverage of each pixel: exact along scan lines, averaged over the LINES of a row.

    An outline that crosses a line upwards covers all that lies right of it, one that crosses it
    downwards uncovers that again; so two entries per crossing and a running sum fill the shape.
    """
    step = UNIT // LINES
    line_S = np.arange(SIZE * LINES, dtype=np.int32) * step + step // 2
    x0_NE, y0_NE = corners_NE2[..., 0], corners_NE2[..., 1]
    x1_NE, y1_NE = np.roll(x0_NE, -1, axis=1), np.roll(y0_NE, -1, axis=1)
    below_NES = y0_NE[..., None] <= line_S
    image_H, edge_H, line_H = np.nonzero(below_NES != (y1_NE[..., None] <= line_S))
    x0, y0, x1, y1 = (array[image_H, edge_H].astype(np.int64) for array in (x0_NE, y0_NE, x1_NE, y1_NE))
    cross_H = x0 + (line_S[line_H] - y0) * (x1 - x0) // (y1 - y0)
    sign_H = np.where(y1 < y0, 1, -1)
    column_H, within_H = np.divmod(cross_H, UNIT)

    width = SIZE + 2  # room for what a crossing at the right edge hands on
    cell_H = (image_H * SIZE + line_H // LINES) * width + column_H
    cells = len(corners_NE2) * SIZE * width
    covered = np.bincount(cell_H, sign_H * (UNIT - within_H), cells) + np.bincount(cell_H + 1, sign_H * within_H, cells)
    coverage = np.abs(np.cumsum(covered.reshape(-1, SIZE, width), axis=2)[..., :SIZE])
    return np.minimum(coverage / (LINES * UNIT) * 255 + 0.5, 255).astype(np.uint8)


# Outlines of the shapes, upright, x to the right and y up. None looks the same after a turn of less
# than 360 degrees, so each has one orientation.


def _heart() -> list[tuple[float, float]]:
    turns = [2 * math.pi * i / 24 for i in range(24)]
    return [
        (16 * math.sin(t) ** 3, 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
        for t in turns
    ]


def _drop() -> list[tuple[float, float]]:
    arc = [math.radians(-210 + 240 * i / 16) for i in range(17)]
    return [(math.cos(t), math.sin(t)) for t in arc] + [(0.0, 2.3)]


SHAPES: dict[str, list[tuple[float, float]]] = {
    "heart": _heart(),
    "drop": _drop(),
    "dart": [(0, 3), (2, -2), (0, -1), (-2, -2)],
    "L": [(-1, 2), (-1, -2), (2, -2), (2, -1), (0, -1), (0, 2)],
    "flag": [(-1, 3), (2, 1.7), (-0.3, 0.4), (-0.3, -2.5), (-1, -2.5)],
}


def _outline(points: list[tuple[float, float]], corners: int) -> np.ndarray:
    """Corners (E, 2) around the centre of mass, the farthest at distance 1; the last is repeated as padding."""
    xy_E2 = np.array(points, dtype=np.float64)
    next_E2 = np.roll(xy_E2, -1, axis=0)
    cross_E = xy_E2[:, 0] * next_E2[:, 1] - next_E2[:, 0] * xy_E2[:, 1]
    centred_E2 = xy_E2 - ((xy_E2 + next_E2) * cross_E[:, None]).sum(axis=0) / (3 * cross_E.sum())
    scaled_E2 = centred_E2 / np.hypot(*centred_E2.T).max()
    return np.concatenate([scaled_E2, np.repeat(scaled_E2[-1:], corners - len(points), axis=0)])


_OUTLINES = np.stack([_outline(points, max(map(len, SHAPES.values()))) for points in SHAPES.values()])
