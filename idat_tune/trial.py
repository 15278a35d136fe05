"""One trial on a Ray worker: a RunConfig in, a result per epoch out; the worker lives on for the next."""

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from ray import tune
from safetensors.torch import save

from idat_tune import data
from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.journal import COMPLETE, FAILED, FINAL
from idat_tune.metrics import WORST, EpochMetrics, score
from idat_tune.run import Training, evaluate, run, to_device

RUNNING = "running"


class Trial(tune.Trainable):
    """What Ray Tune calls: `step` is one epoch. A failure is a result with a reason, not an exception."""

    def setup(self, config: dict[str, Any], images: Mapping[str, Images]) -> None:
        """Take the splits once, out of Ray's object store, and prepare the first trial."""
        # More threads per trial were slower, and the cores are taken by other trials.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.images = images
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare another trial on the same worker; nothing of the last one stays."""
        self.job = new_config
        self.results = self._results()
        return True

    def step(self) -> dict[str, Any]:
        """The next result of the trial."""
        return next(self.results)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial is short, and one that dies runs again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as nothing was saved."""

    def _results(self) -> Iterator[dict[str, Any]]:
        start = time.perf_counter()
        reached = -1
        try:
            config = RunConfig.from_flat(self.job["config"])
            final = self.job["stage"] == FINAL
            train, val = self.images["train"], self.images["val"]
            if final:
                train, val = joined(train, val), None
            training = run(config, train, val)
            set_up = {
                "set_up_seconds": time.perf_counter() - start,
                "trainable_params": sum(value.numel() for value in training.student.trainable().values()),
                "worker": os.getpid(),
            }
            for epoch in training:
                reached = epoch.epoch
                last = epoch.epoch + 1 == config.epochs
                after = test_result(training, config) if final and last else {}
                status = COMPLETE if last else RUNNING
                yield {**_result(epoch, val), **set_up, **after, "status": status, "done": last}
        except Exception as failure:  # whatever it is, it is a result: a search outlives every one of its trials
            yield _failure(reached + 1, f"{type(failure).__name__}: {failure}")


def _result(epoch: EpochMetrics, val: Images | None) -> dict[str, Any]:
    images = len(val) if val is not None else 0
    rank = score(epoch.val_accuracy, epoch.val_loss, images) if images else WORST
    return {**epoch.as_dict(), "score": rank, "val_images": images}


def _failure(epoch: int, reason: str) -> dict[str, Any]:
    return {"epoch": epoch, "score": WORST, "status": FAILED, "reason": reason, "done": True}


def joined(train: Images, val: Images) -> Images:
    """The trainval split: train, then val."""
    return Images(np.concatenate([train.pixels, val.pixels]), np.concatenate([train.labels, val.labels]))


def test_result(training: Training, config: RunConfig) -> dict[str, Any]:
    """Accuracy and loss on the test split, and the trained tensors as safetensors bytes."""
    spec, device = training.student.spec, training.device
    batches = data.batches(config.task, "test", spec.size, spec.channels, spec.interpolation)
    accuracy, loss = evaluate(training.student, (to_device(images, device) for images in batches), config)
    return {"test_accuracy": accuracy, "test_loss": loss, "state": save(training.student.trained_state())}
