"""Joint training of a student and a teacher; yields EpochMetrics."""

# B batch, C classes

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from idat_tune.config import COOLDOWN_EPOCHS, OptimConfig, RunConfig
from idat_tune.data import Images
from idat_tune.distill import Bridge, distillation
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
    """Student, teacher, optimizer and schedule of one run, on the plain eager path."""

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
        self.val = None if val is None else [to_device(val, self.device)]
        self.optimizer = optimizer_for(config.optim, trained)
        self.scheduler = scheduler_for(config, self.optimizer)
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
        images, labels = self.train
        for model in self._models():
            model.train()
        order = torch.randperm(len(labels), generator=self.shuffle).to(self.device)
        batch = self.config.batch_size
        steps = len(labels) // batch  # the last, smaller batch is dropped, as released
        totals = torch.zeros(4, device=self.device)
        for step in range(steps):
            index = order[step * batch : (step + 1) * batch]
            totals += self._step(images[index], labels[index], weight)
        loss, ce_student, ce_teacher, distill = (totals / steps).tolist()
        trained = time.perf_counter() - start
        lr = self.optimizer.param_groups[0]["lr"]
        if not math.isfinite(loss):
            raise Diverged(f"the training loss became {loss} in epoch {epoch} at learning rate {lr:.3g}")
        self.scheduler.step(epoch + 1)
        accuracy, val_loss = self._validate(self.student)
        return EpochMetrics(
            epoch=epoch,
            lr=lr,
            train_loss=loss,
            train_ce_student=ce_student,
            train_ce_teacher=None if self.teacher is None else ce_teacher,
            train_distill=distill if weight > 0 else None,
            val_accuracy=accuracy,
            val_loss=val_loss,
            val_teacher_accuracy=None if self.teacher is None else self._validate(self.teacher)[0],
            seconds=time.perf_counter() - start,
            images_per_second=steps * batch / trained,
            gpu_memory_gb=_peak_memory_gb(self.device),
        )

    def _step(self, pixels: Tensor, labels_B: Tensor, weight: float) -> Tensor:
        """One update of both models; its (loss, student's CE, teacher's CE, distillation), not yet synchronised."""
        distill = ce_teacher = torch.zeros((), device=self.device)
        teacher_BC: Tensor | None = None
        with autocast(self.config, self.device):
            if weight > 0:
                student_BC, teacher_BC, distill = self._distilled(pixels)
            else:
                student_BC = self.student(pixels).float()
                teacher_BC = self.teacher(pixels).float() if self.teacher else None
            ce_student = loss = F.cross_entropy(student_BC, labels_B)
            if teacher_BC is not None:
                ce_teacher = F.cross_entropy(teacher_BC, labels_B)
                loss = ce_student + ce_teacher + weight * distill
        # One backward and one optimizer for both: the released second backward of the same loss changes
        # nothing but a factor 2 in the teacher's gradient, to which Adam is indifferent.
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return torch.stack([loss, ce_student, ce_teacher, distill]).detach()

    def _distilled(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of student and teacher, (B, C) each, and the distillation loss between them."""
        assert self.teacher is not None
        if self.bridge is None:
            student_BC, teacher_BC = self.student(pixels).float(), self.teacher(pixels).float()
            return student_BC, teacher_BC, distillation(student_BC, teacher_BC, self.config.distill)
        student_BC, ours = self.student.with_features(pixels, self.bridge.student_blocks)
        teacher_BC, theirs = self.teacher.with_features(pixels, self.bridge.teacher_blocks)
        distill = self.bridge(ours, theirs, self.config.distill.detach_teacher)
        return student_BC.float(), teacher_BC.float(), distill

    def _validate(self, model: AdaptedModel) -> tuple[float | None, float | None]:
        return (None, None) if self.val is None else evaluate(model, self.val, self.config)


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], config: RunConfig) -> tuple[float, float]:
    """Accuracy (a fraction) and mean cross-entropy of a model over pairs of pixels (B, ch, H, W) and labels (B,).

    Leaves the model in eval mode. Larger batches are cut, so their size does not matter.
    """
    return evaluate_all({"": (model, config)}, batches)[""]


def evaluate_all(
    models: Mapping[str, tuple[nn.Module, RunConfig]], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, tuple[float, float]]:
    """As `evaluate`, for several models (each with its config) in one pass over the batches."""
    correct, loss, count = dict.fromkeys(models, 0.0), dict.fromkeys(models, 0.0), 0
    for model, _ in models.values():
        model.eval()
    with torch.no_grad():
        for pixels_B, labels_B in _cut(batches):
            for name, (model, config) in models.items():
                with autocast(config, pixels_B.device):
                    logits_BC = model(pixels_B).float()
                correct[name] += (logits_BC.argmax(dim=-1) == labels_B).sum().item()
                loss[name] += F.cross_entropy(logits_BC, labels_B, reduction="sum").item()
            count += len(labels_B)
    return {name: (correct[name] / count, loss[name] / count) for name in models}


def _cut(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    for pixels, labels in batches:
        yield from zip(pixels.split(EVAL_BATCH), labels.split(EVAL_BATCH), strict=True)


def optimizer_for(config: OptimConfig, models: Sequence[nn.Module]) -> torch.optim.AdamW:
    """AdamW over what trains in all models; weight decay on matrices only.

    Biases get none, nor do class token, position embedding and position bias where a whole backbone trains.
    """
    groups = [
        group
        for model in models
        for group in param_groups_weight_decay(model, config.weight_decay, no_weight_decay_list=_undecayed(model))
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.999), eps=1e-8)


def _undecayed(model: nn.Module) -> set[str]:
    """What timm says of the backbone."""
    if not isinstance(model, AdaptedModel):
        return set()
    backbone: Any = model.backbone
    return {f"backbone.{name}" for name in backbone.no_weight_decay()}


def scheduler_for(config: RunConfig, optimizer: torch.optim.Optimizer):  # type: ignore[no-untyped-def]
    """timm's cosine over epochs; linear warm-up replaces its beginning, so epoch 0 runs at `optim.warmup_lr`.

    Under the paper's protocol its cool-down follows, at `optim.min_lr`.
    """
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=config.epochs,
        min_lr=config.optim.min_lr,
        warmup_lr=config.optim.warmup_lr,
        warmup_epochs=config.optim.warmup_epochs,
        cooldown_epochs=COOLDOWN_EPOCHS if config.protocol == "paper" else 0,
    )
    assert epochs == config.total_epochs
    return scheduler


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
