"""Joint training of a student and a teacher; yields EpochMetrics."""

# B batch, C classes

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.distill import Bridge, distillation
from idat_tune.engine.optimizer import FlatAdamW, scheduler_for
from idat_tune.engine.split import Parts, Split
from idat_tune.errors import BadInput, Diverged
from idat_tune.metrics import EpochMetrics
from idat_tune.model import AdaptedModel, build_pair

EVAL_BATCH = 200


def run(config: RunConfig, train: Images, val: Images | None = None, classes: int | None = None) -> "Training":
    """One joint training: iterate it for an EpochMetrics per epoch; the models are on it, at any time.

        training = run(config, data.load("digits", "train", 32, 1), data.load("digits", "val", 32, 1))
        for epoch in training:
            print(epoch.epoch, epoch.val_accuracy)
        training.student

    Args:
        config: what to train.
        train: images that are learnt from; their shape is what the student takes.
        val: images to measure on after every epoch, if any.
        classes: outputs of the heads; those of the config's task unless given.

    Raises:
        BadInput: the models cannot be built, or the images do not fit them.
        Diverged: while iterating, once a training loss is not finite.
    """
    return Training(config, train, val, classes)


class Training:
    """Student, teacher, optimizer and schedule of one run."""

    def __init__(self, config: RunConfig, train: Images, val: Images | None, classes: int | None = None):
        self.config = config
        self.device = choose_device(config.device)
        classes = classes or config.classes
        if self.device.type == "cuda":  # workers live on: the peak is of this run, not of the ones before
            torch.cuda.reset_peak_memory_stats(self.device)
        self.student, self.teacher = build_pair(config, classes)
        self.bridge = self._bridge()
        trained = [*self._models(), *([self.bridge] if self.bridge else [])]
        for module in trained:
            module.to(self.device)
        self._check(train, classes)
        self.train = to_device(train, self.device)
        self.val = None if val is None else to_device(val, self.device)
        self.splits = [Split(model, whole=self.bridge is not None) for model in self._models()]
        self.optimizer = FlatAdamW(config.optim, trained)
        self.scheduler = scheduler_for(config, self.optimizer.adamw)
        self.shuffle = torch.Generator().manual_seed(config.seed)

    def _models(self) -> list[AdaptedModel]:
        return [self.student] if self.teacher is None else [self.student, self.teacher]

    def _bridge(self) -> Bridge | None:
        """What compares features, where the config asks for that; it trains along and is left behind."""
        if self.teacher is None or self.config.distill.loss != "feature":
            return None
        # Apart from the seeds of student and teacher, 2 s and 2 s + 1.
        generator = torch.Generator().manual_seed(2**40 + self.config.seed)
        return Bridge(self.student.block_widths(), self.teacher.block_widths(), generator)

    def _check(self, train: Images, classes: int) -> None:
        spec = self.student.spec
        shape = train.pixels.shape[1:]
        if shape != (spec.channels, spec.size, spec.size):
            raise BadInput(
                f"student {self.config.student} takes {spec.channels}x{spec.size}x{spec.size} images, not "
                f"{'x'.join(map(str, shape))}"
            )
        if len(train) < self.config.batch_size:
            raise BadInput(f"batch_size {self.config.batch_size} is larger than the {len(train)} training images")
        if train.labels.max() >= classes:
            raise BadInput(f"the images have label {train.labels.max()}, but the heads only {classes} classes")

    def __iter__(self) -> Iterator[EpochMetrics]:
        # Seeded here for drop-path alone; initial values and shuffling have generators of their own.
        torch.manual_seed(self.config.seed)
        for epoch in range(self.config.total_epochs):
            yield self._epoch(epoch)

    def _epoch(self, epoch: int) -> EpochMetrics:
        start = time.perf_counter()
        weight = self.config.distill_weight(epoch)
        labels = self.train[1]
        for model in self._models():
            model.train()
        order = torch.randperm(len(labels), generator=self.shuffle).to(self.device)
        batch = self.config.batch_size
        steps = len(labels) // batch  # the last, smaller batch is dropped, as released
        totals = torch.zeros(4, device=self.device)
        for step in range(steps):
            index = order[step * batch : (step + 1) * batch]
            batches = [tuple(part[index] for part in parts) for parts in self._train_parts]
            totals += self._step(batches, labels[index], weight)
        loss, ce_student, ce_teacher, distill = (totals / steps).tolist()
        trained = time.perf_counter() - start
        lr = self.optimizer.adamw.param_groups[0]["lr"]
        if not math.isfinite(loss):
            raise Diverged(f"the training loss became {loss} in epoch {epoch} at learning rate {lr:.3g}")
        self.scheduler.step(epoch + 1)
        (accuracy, val_loss), (teacher_accuracy, _) = self._validate()
        return EpochMetrics(
            epoch=epoch,
            lr=lr,
            train_loss=loss,
            train_ce_student=ce_student,
            train_ce_teacher=None if self.teacher is None else ce_teacher,
            train_distill=distill if weight > 0 else None,
            val_accuracy=accuracy,
            val_loss=val_loss,
            val_teacher_accuracy=teacher_accuracy,
            seconds=time.perf_counter() - start,
            images_per_second=steps * batch / trained,
            gpu_memory_gb=_peak_memory_gb(self.device),
        )

    def _step(self, batches: list[Parts], labels_B: Tensor, weight: float) -> Tensor:
        """One update of both models; its (loss, student's CE, teacher's CE, distillation), not yet synchronised."""
        distill = ce_teacher = torch.zeros((), device=self.device)
        teacher_BC: Tensor | None = None
        with autocast(self.config, self.device):
            if weight > 0:
                student_BC, teacher_BC, distill = self._distilled(batches)
            else:
                student_BC, *others = self._logits(batches)
                teacher_BC = others[0] if others else None
            ce_student = loss = F.cross_entropy(student_BC, labels_B)
            if teacher_BC is not None:
                ce_teacher = F.cross_entropy(teacher_BC, labels_B)
                loss = ce_student + ce_teacher + weight * distill
        # One backward and one optimizer for both: the released second backward of the same loss changes
        # nothing but a factor 2 in the teacher's gradient, to which Adam is indifferent.
        self.optimizer.step(loss)
        return torch.stack([loss, ce_student, ce_teacher, distill]).detach()

    def _logits(self, batches: list[Parts]) -> list[Tensor]:
        """Logits (B, C) of the student and of the teacher, if there is one."""
        return [split.suffix(parts).float() for split, parts in zip(self.splits, batches, strict=True)]

    def _distilled(self, batches: list[Parts]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of student and teacher, (B, C) each, and the distillation loss between them."""
        if self.bridge is None:
            student_BC, teacher_BC = self._logits(batches)
            return student_BC, teacher_BC, distillation(student_BC, teacher_BC, self.config.distill)
        assert self.teacher is not None
        (pixels,), _ = batches
        student_BC, ours = self.student.with_features(pixels, self.bridge.student_blocks)
        teacher_BC, theirs = self.teacher.with_features(pixels, self.bridge.teacher_blocks)
        distill = self.bridge(ours, theirs, self.config.distill.detach_teacher)
        return student_BC.float(), teacher_BC.float(), distill

    def _parts(self, pixels: Tensor) -> list[Parts]:
        """What each model keeps of images: it never changes, so it is computed once."""
        with autocast(self.config, self.device):
            return [split.prefix(pixels) for split in self.splits]

    @cached_property
    def _train_parts(self) -> list[Parts]:
        return self._parts(self.train[0])

    @cached_property
    def _val_parts(self) -> list[Parts]:
        return [] if self.val is None else self._parts(self.val[0])

    def _validate(self) -> list[tuple[float | None, float | None]]:
        """Accuracy and loss on the val split, of student and teacher; None where there is none."""
        found: list[tuple[float | None, float | None]] = []
        for split, parts in zip(self.splits, self._val_parts, strict=False):
            assert self.val is not None
            split.model.eval()
            found.append(_measured(split, parts, self.val[1], self.config))
        return [*found, (None, None), (None, None)][:2]


def _measured(split: Split, parts: Parts, labels: Tensor, config: RunConfig) -> tuple[float, float]:
    pieces = zip(*(part.split(EVAL_BATCH) for part in parts), strict=True)
    with torch.no_grad(), autocast(config, labels.device):
        logits = torch.cat([split.suffix(piece).float() for piece in pieces])
    correct, loss = _tally(logits, labels).tolist()
    return correct / len(labels), loss / len(labels)


def _tally(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Right answers and summed cross-entropy, (2,), on the device."""
    loss = F.cross_entropy(logits_BC, labels_B, reduction="sum")
    return torch.stack([(logits_BC.argmax(dim=-1) == labels_B).sum().float(), loss])


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], config: RunConfig) -> tuple[float, float]:
    """Accuracy (a fraction) and mean cross-entropy of a model over pairs of pixels (B, ch, H, W) and labels (B,).

    Leaves the model in eval mode. Larger batches are cut, so their size does not matter.
    """
    return evaluate_all({"": (model, config)}, batches)[""]


def evaluate_all(
    models: Mapping[str, tuple[nn.Module, RunConfig]], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, tuple[float, float]]:
    """As `evaluate`, for several models (each with its config) in one pass over the batches."""
    tallies: dict[str, Tensor] = {}
    count = 0
    for model, _ in models.values():
        model.eval()
    with torch.no_grad():
        for pixels_B, labels_B in _cut(batches):
            for name, (model, config) in models.items():
                with autocast(config, pixels_B.device):
                    logits_BC = model(pixels_B).float()
                tally = _tally(logits_BC, labels_B)
                tallies[name] = tallies[name] + tally if name in tallies else tally
            count += len(labels_B)
    sums = {name: tally.tolist() for name, tally in tallies.items()}
    return {name: (correct / count, loss / count) for name, (correct, loss) in sums.items()}


def _cut(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    for pixels, labels in batches:
        yield from zip(pixels.split(EVAL_BATCH), labels.split(EVAL_BATCH), strict=True)


def choose_device(name: str) -> torch.device:
    """The device of a name; `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        BadInput: the device asked for is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not there[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise BadInput(f"device '{name}' is not on this machine; known: auto, cpu; `idat-tune doctor` tells more")
    return device


def autocast(config: RunConfig, device: torch.device) -> AbstractContextManager:
    """The mixed-precision context of a config: bf16 on CUDA unless fp32 is asked for, fp32 elsewhere."""
    bf16 = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def to_device(images: Images, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels (bytes) and labels as tensors on the device."""
    # Copied: the arrays may be read-only views of memory that other processes share.
    return torch.tensor(images.pixels, device=device), torch.tensor(images.labels, device=device)


def _peak_memory_gb(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
