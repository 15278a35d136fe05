"""The task `digits`: scikit-learn's handwritten digits at 32 pixels, in fixed stratified splits."""

import numpy as np
from numpy.random import PCG64

SEED = 20240717
COUNTS = {"train": 800, "val": 200, "test": 797}


def load_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The 8 x 8 scans resized (bicubic), one of the splits in COUNTS.

    Returns:
        pixels uint8 (N, 1, 32, 32), white on black, and labels int64 (N,), the digits themselves.
    """
    from sklearn import datasets

    source = datasets.load_digits()
    labels = source.target.astype(np.int64)
    chosen = _order(labels)[_span(split)]
    return np.stack([_resized(scan) for scan in source.images[chosen]])[:, None], labels[chosen]


def _span(split: str) -> slice:
    names = list(COUNTS)
    start = sum(COUNTS[name] for name in names[: names.index(split)])
    return slice(start, start + COUNTS[split])


def _order(labels_N: np.ndarray) -> np.ndarray:
    """All indices, shuffled so that any stretch of them holds the classes in their proportions.

    The m-th of the n images of a class (in random order) goes to place (m + u) / n of the whole, with
    one u per class. Raw PCG64 output is used because numpy promises never to change it.
    """
    draws_N = PCG64(SEED).random_raw(len(labels_N) + labels_N.max() + 1)
    place_N = np.empty(len(labels_N))
    for label in range(labels_N.max() + 1):
        members = np.flatnonzero(labels_N == label)
        shuffled = members[np.argsort(draws_N[members], kind="stable")]
        offset = draws_N[len(labels_N) + label] / 2.0**64
        place_N[shuffled] = (np.arange(len(members)) + offset) / len(members)
    return np.argsort(place_N, kind="stable")


def _resized(scan: np.ndarray) -> np.ndarray:
    """Values of 0 to 16 in 8 x 8 pixels as 0 to 255 in 32 x 32."""
    from PIL import Image

    image = Image.fromarray((scan * (255 / 16)).round().astype(np.uint8))
    return np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))
