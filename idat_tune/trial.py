"""One trial on a Ray worker: a RunConfig in, a result per epoch out; the worker lives on for the next."""

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import ray
import torch
from ray import tune
from safetensors.torch import load, save

from idat_tune import data
from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.engine.compiling import pays
from idat_tune.engine.devices import choose_device
from idat_tune.engine.resident import Resident
from idat_tune.journal import COMPLETE, CONFIRM, FAILED, FINAL, TEST
from idat_tune.metrics import WORST, EpochMetrics, score
from idat_tune.model import AdaptedModel, build
from idat_tune.run import evaluate_all, run_on, to_device

RUNNING = "running"


def settle() -> None:
    """Make this process a worker: one thread, as the cores are taken by other trials, and the user's own tasks."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    data.register_own()  # which RunConfig must know here too


class Trial(tune.Trainable):
    """What Ray Tune calls: `step` is one epoch. A failure is a result with a reason, not an exception."""

    def setup(self, config: dict[str, Any], images: Mapping[str, Images], trials: int = 0) -> None:
        """Take the splits once, out of Ray's object store, and prepare the first trial.

        `trials` is how many this worker may expect; with many on a GPU it compiles before the first.
        """
        settle()
        self.images = images
        self.trials = trials
        self.resident: Resident | None = None
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
        reached = -1
        try:
            for result in self._tested() if self.job["stage"] == TEST else self._trained():
                reached = result["epoch"]
                yield result
        except Exception as failure:  # whatever it is, it is a result: a search outlives every one of its trials
            yield _failure(reached + 1, f"{type(failure).__name__}: {failure}")

    def _trained(self) -> Iterator[dict[str, Any]]:
        """A result per epoch; the last one of a final run brings the trained tensors, as safetensors bytes."""
        start = time.perf_counter()
        config = RunConfig.from_flat(self.job["config"])
        final = self.job["stage"] == FINAL
        train, val = self._rows()
        training = run_on(self._resident(config), config, train, val)
        set_up = {
            "set_up_seconds": time.perf_counter() - start,
            "trainable_params": training.student.trainable_params(),
            "worker": os.getpid(),
        }
        for epoch in training:
            last = epoch.epoch + 1 == config.epochs
            state = {"state": save(training.student.trained_state())} if final and last else {}
            status = COMPLETE if last else RUNNING
            yield {**_result(epoch, len(val)), **set_up, **state, "status": status, "done": last}

    def _rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the resident images, train then val, this trial learns from and which it is measured on."""
        train, val = self.images["train"], self.images["val"]
        if self.job["stage"] == CONFIRM:
            of_train, of_val = data.fold_rows(train, val, self.job["fold"])
            return torch.from_numpy(of_train), torch.from_numpy(of_val)
        count = len(train) + len(val)
        learnt_from = count if self.job["stage"] == FINAL else len(train)
        rows = torch.arange(count)
        return rows[:learnt_from], rows[learnt_from:]

    def _resident(self, config: RunConfig) -> Resident:
        """Images, backbones and prefixes of this worker; made by its first trial."""
        device = choose_device(config.device)
        if self.resident is None or self.resident.device != device:
            images = data.joined(self.images["train"], self.images["val"])
            steps = self.trials * config.epochs * (len(images) // config.batch_size)
            self.resident = Resident(images, device, compiled=pays(steps, device))
        return self.resident

    def _tested(self) -> Iterator[dict[str, Any]]:
        """The one opening of the test split: every student of the final run, in one pass over its images."""
        config = RunConfig.from_flat(self.job["config"])
        device = choose_device(config.device)
        students = {name: _student(flat, ray.get(state)) for name, (flat, state) in self.job["students"].items()}
        for student, _ in students.values():
            student.to(device)
        spec = next(iter(students.values()))[0].spec
        batches = data.batches(config.task, "test", spec.size, spec.channels, spec.interpolation)
        tested = evaluate_all(students, (to_device(images, device) for images in batches))
        # As rows: Tune would flatten a mapping into its own keys.
        rows = [[name, accuracy, loss] for name, (accuracy, loss) in tested.items()]
        yield {"epoch": 0, "score": WORST, "status": COMPLETE, "done": True, "tested": rows, "worker": os.getpid()}


def _student(flat: Mapping[str, Any], state: bytes) -> tuple[AdaptedModel, RunConfig]:
    config = RunConfig.from_flat(flat)
    student = build(config.student, config.classes, config, seed=0)
    student.load_trained_state(load(state))
    return student, config


def _result(epoch: EpochMetrics, images: int) -> dict[str, Any]:
    rank = score(epoch.val_accuracy, epoch.val_loss, images) if images else WORST
    return {**epoch.as_dict(), "score": rank, "val_images": images}


def _failure(epoch: int, reason: str) -> dict[str, Any]:
    return {"epoch": epoch, "score": WORST, "status": FAILED, "reason": reason, "done": True}
