"""One run outside a search: train, measure, export."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from idat_tune import data, export, model
from idat_tune.config import RunConfig
from idat_tune.engine.devices import bf16
from idat_tune.metrics import EpochMetrics
from idat_tune.run import Training, evaluate, run, to_device

Each = Callable[[EpochMetrics], None]


def train_once(config: RunConfig, out: Path | None, test: bool, each: Each = lambda epoch: None) -> dict[str, Any]:
    """Train a config once; what `idat-tune train --json` prints.

    Under `protocol: paper` it trains on train and val together, measures on the test split after every epoch and keeps
    the best; `selected_on_test` says so in the result, in the export's metrics and in its card.

    Args:
        config: what to train.
        out: folder for the student; none is written without it.
        test: train on train and val together and measure on the test split, instead of measuring on val.
        each: called after every epoch.

    Raises:
        BadInput: the data or a model cannot be had, or `out` cannot be written.
        Diverged: a loss was not finite.
    """
    if out is not None:
        export.check_replaceable(out)
    began = time.perf_counter()
    model.check(config)
    spec = model.input_spec(config.student, config.image_size)
    shape = (spec.size, spec.channels, spec.interpolation)
    paper = config.selected_on_test
    train = data.load(config.task, "trainval" if test or paper else "train", *shape)
    training = run(config, train, None if test or paper else data.load(config.task, "val", *shape))

    def on_test() -> float:
        batches = data.batches(config.task, "test", *shape)
        return evaluate(training.student, (to_device(images, training.device) for images in batches), config)[0]

    accuracy: float | None = None
    best_epoch = None
    if paper:
        last, accuracy, best_epoch = _best_on_test(training, on_test, each)
    else:
        last = _to_the_end(training, each)
        accuracy = on_test() if test else None
    result = {
        "config": training.config.flat(),
        "val_accuracy": last.val_accuracy,
        "teacher_val_accuracy": last.val_teacher_accuracy,
        "test_accuracy": accuracy,
        "selected_on_test": paper,
        **({"best_epoch": best_epoch} if paper else {}),
        "precision": "bf16" if bf16(config, training.device) else "fp32",
        "trainable_params": training.student.trainable_params(),
        "seconds": time.perf_counter() - began,
        "out": None if out is None else str(out),
    }
    if out is not None:
        metrics = {key: value for key, value in result.items() if key not in ("config", "out") and value is not None}
        how = {"trained_on": "trainval" if test or paper else "train", "test_openings": None if paper else int(test)}
        export.save(out, training.config, training.student.trained_state(), metrics, protocol=how)
    return result


def _to_the_end(training: Training, each: Each) -> EpochMetrics:
    last = None
    for last in training:
        each(last)
    assert last is not None
    return last


def _best_on_test(training: Training, on_test: Callable[[], float], each: Each) -> tuple[EpochMetrics, float, int]:
    """The paper's way: the last epoch's metrics, and accuracy and number of the epoch that was best on test.

    The student ends with the weights of that epoch; of several it is the first.
    """
    best, number, state, last = -1.0, 0, training.student.trained_state(), None
    for last in training:
        each(last)
        accuracy = on_test()
        if accuracy > best:
            best, number, state = accuracy, last.epoch, training.student.trained_state()
    assert last is not None
    training.student.load_trained_state(state)
    return last, best, number
