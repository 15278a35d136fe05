"""Repeated stratified splits of the training images, other than the fixed train and val."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idat_tune.data.dealing import dealt, joined_groups
from idat_tune.data.loading import Images

if TYPE_CHECKING:
    import numpy as np


def joined(train: Images, val: Images) -> Images:
    """The trainval split: train, then val."""
    import numpy as np

    pixels, labels = np.concatenate([train.pixels, val.pixels]), np.concatenate([train.labels, val.labels])
    return Images(pixels, labels, _groups(train, val))


def fold(train: Images, val: Images, number: int) -> tuple[Images, Images]:
    """Split number `number` (from 0) of train and val together, with about as many val images as `val` has.

    Stratified cross-validation, repeated: with 800 + 200 images every image is a val image once in splits 0 to 4,
    once more in 5 to 9, and so on. The splits depend on the images and the number alone, so that all configs of a
    search, and all searches of a task, are compared on the same ones. Classes may have fewer images than there are
    folds. Images of one group, or with the same pixels, stay together; then folds are only about equal in size.
    """
    both = joined(train, val)
    for_train, for_val = (Images(both.pixels[rows], both.labels[rows]) for rows in fold_rows(train, val, number))
    return for_train, for_val


def fold_rows(train: Images, val: Images, number: int) -> tuple[np.ndarray, np.ndarray]:
    """As `fold`, as rows of the trainval split, for whoever holds that already."""
    import numpy as np

    labels, together = np.concatenate([train.labels, val.labels]), _together(train, val)
    folds = folds_per_repeat(len(train), len(val))
    if together is not None:
        folds = min(folds, len(np.unique(together)))
    held_out = fold_of(labels, folds, number, together)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def folds_per_repeat(train: int, val: int) -> int:
    """How many disjoint val splits of that size the images give; at least two."""
    return max(2, round((train + val) / val))


def fold_of(labels: np.ndarray, folds: int, number: int, together: np.ndarray | None = None) -> np.ndarray:
    """A mask (N,) of the val images of split `number`; images with the same number in `together` stay together."""
    import numpy as np

    repeat, place = divmod(number, folds)
    if together is not None:
        apart: np.ndarray = dealt(labels, together, [1 / folds] * folds, repeat) == place
        return apart
    random = np.random.default_rng(repeat)
    shuffled = random.permutation(len(labels))
    # Dealt out class by class like cards, so that folds differ by one image at most, in all and per class.
    dealt_out = shuffled[np.argsort(labels[shuffled], kind="stable")]
    owner = np.empty(len(labels), np.int64)
    owner[dealt_out] = np.arange(len(labels)) % folds
    mask: np.ndarray = owner == place
    return mask


def _together(train: Images, val: Images) -> np.ndarray | None:
    """Numbers (N,) of what must stay together; None where every image may stand alone, or all are one."""
    import numpy as np

    keys, groups = [np.concatenate([train.digests, val.digests])], _groups(train, val)
    if groups is not None:
        alone = np.char.add("\0", np.arange(len(groups)).astype(str))  # no group that anyone could have named
        keys.append(np.where(groups == "", alone, groups))
    together = joined_groups(*keys)
    return together if 1 < len(np.unique(together)) < len(together) else None


def _groups(train: Images, val: Images) -> np.ndarray | None:
    import numpy as np

    if train.groups is None and val.groups is None:
        return None
    return np.concatenate([np.full(len(part), "") if part.groups is None else part.groups for part in (train, val)])
