"""The built-in tasks and backbones, and how they were made."""

import numpy as np

from idat_tune import tasks
from idat_tune.embedded.backbones import CHANNELS, MEAN, SIZE, STD, create_backbone, weights_file
from idat_tune.errors import unknown

__all__ = ["CHANNELS", "MEAN", "SIZE", "STD", "create_backbone", "load_split", "weights_file"]

_TASKS = tuple(task.name for task in tasks.TASKS.values() if task.embedded)


def load_split(task: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of an embedded task; only those of this split are made, always the same.

    Args:
        task: `digits`, `sprites_loc` or `sprites_ori`.
        split: `train`, `val`, `trainval` (train, then val) or `test`; no image is in two of train, val, test.

    Returns:
        pixels uint8 (N, 1, 32, 32) and labels int64 (N,).

    Raises:
        BadInput: the package brings no such task, or there is no such split.
    """
    if task not in _TASKS:
        raise unknown("embedded task", task, _TASKS)
    if split not in tasks.SPLITS:
        raise unknown("split", split, tasks.SPLITS)
    if split == "trainval":
        train, val = load_split(task, "train"), load_split(task, "val")
        return np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]])
    if task == "digits":
        from idat_tune.embedded.digits import load_digits

        return load_digits(split)
    from idat_tune.embedded.sprites import load_sprites

    return load_sprites(task, split)
