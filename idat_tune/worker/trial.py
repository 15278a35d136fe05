"""One trial on a worker: a RunConfig in, a result per epoch out; the worker lives on for the next."""

import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
import torch
from safetensors.torch import save

from idat_tune import data, features, weights
from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.engine.devices import bf16, choose_device
from idat_tune.engine.inside import looked_inside
from idat_tune.engine.memory import watched
from idat_tune.engine.resident import Resident
from idat_tune.errors import BadInput, Diverged, IdatError, OutOfMemory, Unfit
from idat_tune.journal import COMPLETE, CONFIRM, FAILED, FINAL
from idat_tune.journal.hits import packed
from idat_tune.metrics import WORST, EpochMetrics, score
from idat_tune.predictions import Predictions, Run, encoded
from idat_tune.run import Training, advance, evaluate_all, run_on

RUNNING = "running"
FAULT = "fault"  # status: the worker is of no more use, and the trial has no result; `unfit` says if no other here is


def settle() -> None:
    """Make this process a worker: one thread, as the cores are taken by other trials."""
    threads = os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0]  # it may be a list, of nested levels
    torch.set_num_threads(int(threads))


def gpu_share() -> float:
    """The part of a GPU that Ray has given this process, who may have to share it; 1 where that is not said."""
    if not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return 1.0
    return min(1.0, ray.get_runtime_context().get_assigned_resources().get("GPU") or 1.0)


def precision_of(config: RunConfig) -> str:
    """What a run of that config computes in, on a worker like this one: bf16 or fp32."""
    settle()
    return "bf16" if bf16(config, choose_device(config.device)) else "fp32"


def twice(work: Callable[[], Any]) -> Any:
    """Once more where there was no room: what trials share, and can make again, has been let go since."""
    try:
        return work()
    except (OutOfMemory, torch.OutOfMemoryError):
        pass  # with all that the error holds
    return work()


class Worker:
    """What a process keeps from trial to trial: images, frozen backbones, and all that comes from the two."""

    def __init__(self, images: Mapping[str, Images], recorded: bool | None = None):
        """Take the splits that trials may see; `recorded` is as of `Resident`."""
        settle()
        self.images = images
        self.recorded = recorded
        self._resident: Resident | None = None

    def resident(self, config: RunConfig) -> Resident:
        """Images, backbones and prefixes on the device of a config; made by the first trial."""
        device = choose_device(config.device)
        if self._resident is None or self._resident.device != device:
            images = data.joined(self.images["train"], self.images["val"])
            self._resident = Resident(images, device, self.recorded, share=gpu_share())
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


class Trial:
    """A trial that trains on a worker, and its results."""

    training: Training

    def __init__(self, worker: Worker, job: Mapping[str, Any]):
        start = time.perf_counter()
        self.worker, self.job = worker, job
        self.reached = 0  # epochs that are done
        self.config = config_of(job)
        held = check_weights(job, [self.config.student, *([] if self.config.alone else [self.config.teacher])])
        self._begin()
        self.set_up = {
            "set_up_seconds": time.perf_counter() - start,
            "trainable_params": self.training.student.trainable_params(),
            **HERE,
            "weights": held,
        }

    def _begin(self) -> None:
        train, self.val = self.worker.rows(self.job)
        self.training = run_on(self.worker.resident(self.config), self.config, train, self.val)

    def advanced(self) -> EpochMetrics | Diverged:
        """The next epoch; tried once more where it found no room."""
        try:
            found = advance([self.training])[0]
        except OutOfMemory:
            found = None
        if found is None:
            if not self.training.undoes:
                self._repeat()
            found = advance([self.training])[0]
        self.reached += isinstance(found, EpochMetrics)
        return found

    def _repeat(self) -> None:
        """Train again up to where it was, as an epoch that failed may have left traces; with the same result."""
        del self.training  # to make room
        self._begin()
        for _ in range(self.reached):
            advance([self.training])

    def result(self, epoch: EpochMetrics) -> dict[str, Any]:
        """What Tune gets of an epoch.

        The last of a final run brings the trained tensors of student and teacher, as safetensors bytes; the last that
        confirms, what it said of each val image, and on one split what it makes of some inside.
        """
        images, last = len(self.val), epoch.epoch + 1 == self.config.epochs
        rank = score(epoch.val_accuracy, epoch.val_loss, images) if images else WORST
        result: dict[str, Any] = {**epoch.as_dict(), "score": rank, "val_images": images, **self.set_up}
        if last and self.job["stage"] == FINAL:
            teacher = self.training.teacher
            result["state"] = save(self.training.student.trained_state())
            result["teacher_state"] = None if teacher is None else save(teacher.trained_state())
        if last and self.job["stage"] == CONFIRM:
            result |= self._predictions()
            result |= self._features() if self.job["fold"] == features.FOLD else {}
        return {**result, "status": COMPLETE if last else RUNNING, "done": last}

    def _predictions(self) -> dict[str, Any]:
        """What student and teacher say of the val images: right or wrong for the journal, and logits."""
        training, config = self.training, self.config
        models = {"student": training.student, **({"teacher": training.teacher} if training.teacher else {})}
        resident = self.worker.resident(config)
        rows = self.val.to(resident.device)
        batches = [(resident.pixels[rows], resident.labels[rows])]
        with watched(config, resident):
            found, labels = evaluate_all({name: (model, config) for name, model in models.items()}, batches)
        teacher = found["teacher"].logits.numpy() if "teacher" in found else None
        run = Run(self.job["id"], CONFIRM, self.job["contender"], self.job["fold"], config.seed)
        said = Predictions(run, self.val.cpu().numpy(), labels.numpy(), found["student"].logits.numpy(), teacher)
        return {"hits": packed(said.hits), "predictions": [[run.trial, encoded(config.task, said)]]}

    def _features(self) -> dict[str, Any]:
        """What the student makes of some val images inside, for the page of the search; a picture costs no result."""
        try:
            return {"features": self._looked_inside()}
        except Exception as failure:
            logging.getLogger(__name__).warning("%s has no features: %s", self.job["id"], failure)
            return {}

    def _looked_inside(self) -> bytes:
        resident = self.worker.resident(self.config)
        rows = self.val[:: math.ceil(len(self.val) / features.MOST)].to(resident.device)
        with watched(self.config, resident):
            given, attention = looked_inside(self.training.student, resident.pixels[rows], self.config)
        images, labels = rows.cpu().numpy(), resident.labels[rows].cpu().numpy()
        looks = None if attention is None else attention.numpy()
        found = features.Features(images, labels, features.mapped(given.numpy()), looks)
        return features.encoded(found)


HERE = {"worker": os.getpid(), "node": platform.node()}  # of every result


@contextmanager
def whatever_is_wrong_is_of_this_machine() -> Iterator[None]:
    """What the driver has found to be right and is wrong here."""
    try:
        yield
    except BadInput as failure:
        raise Unfit(str(failure)) from None


def config_of(job: Mapping[str, Any]) -> RunConfig:
    """The run of a job.

    Raises:
        Unfit: its task is not known here.
    """
    with whatever_is_wrong_is_of_this_machine():
        return RunConfig.from_flat(job["config"])


def check_weights(job: Mapping[str, Any], names: Iterable[str]) -> list[list[str | None]]:
    """The sha256 of the files that this worker has for some backbones, each with its name.

    A file is read once per process.

    Raises:
        Unfit: they are others than the search was begun with.
    """
    begun_with = dict(job.get("weights", ()))
    backbones = list(dict.fromkeys(names))
    for name in backbones:
        if name in begun_with:
            with whatever_is_wrong_is_of_this_machine():
                weights.check_same(name, begun_with[name], "this search was begun with", f" on {platform.node()}")
    # As rows: Tune would flatten a mapping into its own keys.
    return [[name, weights.identify(name).sha256] for name in backbones]


def failed(epoch: int, failure: Exception) -> dict[str, Any]:
    """What came of a trial that failed in that epoch: a result, where it would be the same anywhere, or a fault."""
    reason, unfit = f"{type(failure).__name__}: {failure}", isinstance(failure, Unfit)
    known = isinstance(failure, IdatError | torch.OutOfMemoryError) and not unfit
    ended = {"epoch": epoch, "score": WORST, "reason": reason, "done": True}
    return {**ended, "status": FAILED} if known else {**ended, "status": FAULT, "unfit": unfit}
