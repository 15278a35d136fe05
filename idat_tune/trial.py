"""One trial on a Ray worker: a RunConfig in, a result per epoch out; the worker lives on for the next."""

import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ray
import torch
from ray import tune
from safetensors.torch import load, save

from idat_tune import data, weights
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
    threads = os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0]  # it may be a list, of nested levels
    torch.set_num_threads(int(threads))
    data.register_own()  # which RunConfig must know here too


class Worker:
    """What a process keeps from trial to trial: images, frozen backbones, and all that comes from the two."""

    def __init__(self, images: Mapping[str, Images], trials: int, staged: bool | None = None):
        """Take the splits that trials may see, and what `Resident` is told: how many trials to expect, and `staged`."""
        settle()
        self.images = images
        self.trials = trials
        self.staged = staged
        self._resident: Resident | None = None

    def resident(self, config: RunConfig) -> Resident:
        """Images, backbones and prefixes on the device of a config; made by the first trial."""
        device = choose_device(config.device)
        if self._resident is None or self._resident.device != device:
            images = data.joined(self.images["train"], self.images["val"])
            steps = self.trials * config.epochs * max(1, len(images) // config.batch_size)
            self._resident = Resident(images, device, self.staged, compiled=pays(steps, device))
        return self._resident

    def rows(self, job: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the resident images, train then val, a trial learns from and which it is measured on."""
        train, val = self.images["train"], self.images["val"]
        if job["stage"] == CONFIRM:
            of_train, of_val = data.fold_rows(train, val, job["fold"])
            return torch.from_numpy(of_train), torch.from_numpy(of_val)
        count = len(train) + len(val)
        learnt_from = count if job["stage"] == FINAL else len(train)
        rows = torch.arange(count)
        return rows[:learnt_from], rows[learnt_from:]


class Run:
    """A trial that trains on a worker, and its results."""

    def __init__(self, worker: Worker, job: Mapping[str, Any]):
        start = time.perf_counter()
        self.job = job
        self.config = RunConfig.from_flat(job["config"])
        held = check_weights(job, [self.config.student, *([] if self.config.alone else [self.config.teacher])])
        train, self.val = worker.rows(job)
        self.training = run_on(worker.resident(self.config), self.config, train, self.val)
        self.set_up = {
            "set_up_seconds": time.perf_counter() - start,
            "trainable_params": self.training.student.trainable_params(),
            "worker": os.getpid(),
            "weights": held,
        }

    def result(self, epoch: EpochMetrics) -> dict[str, Any]:
        """What Tune gets of an epoch; the last of a final run brings the trained tensors, as safetensors bytes."""
        images, last = len(self.val), epoch.epoch + 1 == self.config.epochs
        rank = score(epoch.val_accuracy, epoch.val_loss, images) if images else WORST
        result: dict[str, Any] = {**epoch.as_dict(), "score": rank, "val_images": images, **self.set_up}
        if last and self.job["stage"] == FINAL:
            result["state"] = save(self.training.student.trained_state())
        return {**result, "status": COMPLETE if last else RUNNING, "done": last}


def check_weights(job: Mapping[str, Any], names: Iterable[str]) -> list[list[str | None]]:
    """The sha256 of the files that this worker has for some backbones, each with its name.

    A file is read once per process.

    Raises:
        BadInput: they are others than the search was begun with.
    """
    begun_with = dict(job.get("weights", ()))
    backbones = list(dict.fromkeys(names))
    for name in backbones:
        if name in begun_with:
            weights.check_same(name, begun_with[name], "this search was begun with", f" on {platform.node()}")
    # As rows: Tune would flatten a mapping into its own keys.
    return [[name, weights.identify(name).sha256] for name in backbones]


def tested(job: Mapping[str, Any]) -> dict[str, Any]:
    """The one opening of the test split: every student of the final run, in one pass over its images."""
    config = RunConfig.from_flat(job["config"])
    device = choose_device(config.device)
    check_weights(job, [flat["student"] for flat, _ in job["students"].values()])
    students = {name: _student(flat, ray.get(state)) for name, (flat, state) in job["students"].items()}
    for student, _ in students.values():
        student.to(device)
    spec = next(iter(students.values()))[0].spec
    batches = data.batches(config.task, "test", spec.size, spec.channels, spec.interpolation)
    found = evaluate_all(students, (to_device(images, device) for images in batches))
    # As rows: Tune would flatten a mapping into its own keys.
    rows = [[name, accuracy, loss] for name, (accuracy, loss) in found.items()]
    return {"epoch": 0, "score": WORST, "status": COMPLETE, "done": True, "tested": rows, "worker": os.getpid()}


def _student(flat: Mapping[str, Any], state: bytes) -> tuple[AdaptedModel, RunConfig]:
    config = RunConfig.from_flat(flat)
    student = build(config.student, config.classes, config, seed=0)
    student.load_trained_state(load(state))
    return student, config


def failed(epoch: int, failure: Exception) -> dict[str, Any]:
    """The result of a trial that failed in that epoch."""
    reason = f"{type(failure).__name__}: {failure}"
    return {"epoch": epoch, "score": WORST, "status": FAILED, "reason": reason, "done": True}


class Trial(tune.Trainable):
    """What Ray Tune calls: `step` is one epoch. A failure is a result with a reason, not an exception."""

    def setup(self, config: dict[str, Any], images: Mapping[str, Images], trials: int = 0) -> None:
        """Take the splits once, out of Ray's object store, and prepare the first trial.

        `trials` is how many this worker may expect; with many on a GPU it compiles before the first.
        """
        self.worker: Worker | Exception
        try:
            self.worker = Worker(images, trials)
        except Exception as failure:  # Tune would say no more than that the worker died
            self.worker = failure
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare another trial on the same worker; nothing of the last one stays."""
        self.results = self._results(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next result of the trial."""
        return next(self.results)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial is short, and one that dies runs again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as nothing was saved."""

    def _results(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        reached = 0
        try:
            if job["stage"] == TEST:
                yield tested(job)
            elif isinstance(self.worker, Exception):
                raise self.worker
            else:
                run = Run(self.worker, job)
                for epoch in run.training:
                    reached = epoch.epoch + 1
                    yield run.result(epoch)
        except Exception as failure:  # whatever it is, it is a result: a search outlives every one of its trials
            yield failed(reached, failure)
