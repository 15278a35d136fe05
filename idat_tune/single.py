"""One run outside a search: train, measure, export."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from idat_tune import data, export, model
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.metrics import EpochMetrics
from idat_tune.run import evaluate, run, to_device


def train_once(
    config: RunConfig, out: Path | None, test: bool, each: Callable[[EpochMetrics], None] = lambda epoch: None
) -> dict[str, Any]:
    """Train a config once; what `idat-tune train --json` prints.

    Args:
        config: what to train.
        out: folder for the student; none is written without it.
        test: train on train and val together and measure on the test split, instead of measuring on val.
        each: called after every epoch.

    Raises:
        BadInput: the data or a model cannot be had, or `out` cannot be written.
        Diverged: a loss was not finite.
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise BadInput(f"--out {out} cannot be written: the folder {out.absolute().parent} does not exist")
    began = time.perf_counter()
    spec = model.input_spec(config.student)
    shape = (spec.size, spec.channels, spec.interpolation)
    train = data.load(config.task, "trainval" if test else "train", *shape)
    training = run(config, train, None if test else data.load(config.task, "val", *shape))
    last = None
    for last in training:
        each(last)
    assert last is not None
    batches = (to_device(images, training.device) for images in data.batches(config.task, "test", *shape))
    accuracy = evaluate(training.student, batches, config)[0] if test else None
    result = {
        "config": config.flat(),
        "val_accuracy": last.val_accuracy,
        "teacher_val_accuracy": last.val_teacher_accuracy,
        "test_accuracy": accuracy,
        "trainable_params": training.student.trainable_params(),
        "seconds": time.perf_counter() - began,
        "out": None if out is None else str(out),
    }
    if out is not None:
        metrics = {key: value for key, value in result.items() if key not in ("config", "out") and value is not None}
        export.save(out, config, training.student.trained_state(), metrics)
    return result
