"""Repeated stratified splits of the training images, other than the fixed train and val."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idat_tune.data.loading import Images

if TYPE_CHECKING:
    import numpy as np


def joined(train: Images, val: Images) -> Images:
    """The trainval split: train, then val."""
    import numpy as np

    return Images(np.concatenate([train.pixels, val.pixels]), np.concatenate([train.labels, val.labels]))


def fold(train: Images, val: Images, number: int) -> tuple[Images, Images]:
    """Split number `number` (from 0) of train and val together, with about as many val images as `val` has.

    Stratified cross-validation, repeated: with 800 + 200 images every image is a val image once in splits 0 to 4,
    once more in 5 to 9, and so on. The splits depend on labels and number alone, so that all configs of a search, and
    all searches of a task, are compared on the same ones. Classes may have fewer images than there are folds.
    """
    both = joined(train, val)
    for_train, for_val = (Images(both.pixels[rows], both.labels[rows]) for rows in fold_rows(train, val, number))
    return for_train, for_val


def fold_rows(train: Images, val: Images, number: int) -> tuple[np.ndarray, np.ndarray]:
    """As `fold`, as rows of the trainval split, for whoever holds that already."""
    import numpy as np

    labels = np.concatenate([train.labels, val.labels])
    held_out = fold_of(labels, folds_per_repeat(len(train), len(val)), number)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def folds_per_repeat(train: int, val: int) -> int:
    """How many disjoint val splits of that size the images give; at least two."""
    return max(2, round((train + val) / val))


def fold_of(labels: np.ndarray, folds: int, number: int) -> np.ndarray:
    """A mask (N,) of the val images of split `number`."""
    import numpy as np

    repeat, place = divmod(number, folds)
    random = np.random.default_rng(repeat)
    shuffled = random.permutation(len(labels))
    # Dealt out class by class like cards, so that folds differ by one image at most, in all and per class.
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]
    owner = np.empty(len(labels), np.int64)
    owner[dealt] = np.arange(len(labels)) % folds
    mask: np.ndarray = owner == place
    return mask
