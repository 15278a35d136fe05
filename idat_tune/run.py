"""Joint training of a student and a teacher; yields EpochMetrics."""

# B batch, C classes, N images

import math
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from idat_tune.config import RunConfig
from idat_tune.data import Images, joined
from idat_tune.engine.devices import autocast, choose_device
from idat_tune.engine.eager import EVAL_BATCH, Eager, tally
from idat_tune.engine.memory import watched
from idat_tune.engine.optimizer import learning_rates
from idat_tune.engine.recorded import Recorded
from idat_tune.engine.recording import Epoch
from idat_tune.engine.resident import Resident
from idat_tune.errors import BadInput, Diverged
from idat_tune.metrics import EpochMetrics
from idat_tune.model import AdaptedModel, input_spec


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
        OutOfMemory: at once or while iterating; what the run held is free again.
    """
    images = train if val is None else joined(train, val)
    of_train, of_val = torch.arange(len(images)).tensor_split([len(train)])
    return run_on(Resident(images, choose_device(config.device)), config, of_train, of_val, classes)


def run_on(resident: Resident, config: RunConfig, train: Tensor, val: Tensor, classes: int | None = None) -> "Training":
    """As `run`, on images that a worker keeps from run to run; `train` and `val` (may be empty) name rows of them."""
    return Training(config, resident, train, val, classes or config.classes)


class Training:
    """One run: its models, which train while it is iterated."""

    def __init__(self, config: RunConfig, resident: Resident, train: Tensor, val: Tensor, classes: int):
        # With fewer images than a batch, a step takes all of them.
        if (few := len(train)) and few < config.batch_size:
            config = config.updated({"batch_size": few})
        self.config = config
        self.resident = resident
        self.device = resident.device
        if self.device.type == "cuda":  # workers live on: the peak is of this run, not of the ones before
            torch.cuda.reset_peak_memory_stats(self.device)
        self.train, self.val = train.to(self.device), val.to(self.device)
        self._check(classes)
        with watched(config, resident):
            self.engine = _engine(config, resident, classes)
        self.shuffle = torch.Generator(self.device).manual_seed(config.seed)
        self.rates = learning_rates(config)
        self.reached = 0  # epochs that are done
        self.trained: tuple[list[float], float] | None = None  # summed losses of the next epoch, seconds; once trained
        self._planned: Epoch | None = None

    @property
    def student(self) -> AdaptedModel:
        """The student, as trained so far."""
        return self.engine.student

    @property
    def teacher(self) -> AdaptedModel | None:
        """The teacher, as trained so far; None where the student learns alone."""
        return self.engine.teacher

    def _check(self, classes: int) -> None:
        spec = input_spec(self.config.student, self.config.image_size)
        shape = self.resident.pixels.shape[1:]
        if shape != (spec.channels, spec.size, spec.size):
            raise BadInput(
                f"student {self.config.student} takes {spec.channels}x{spec.size}x{spec.size} images, not "
                f"{'x'.join(map(str, shape))}"
            )
        if not len(self.train):
            raise BadInput("there are no images to train with")
        largest = int(self.resident.labels[self.train].max())
        if largest >= classes:
            raise BadInput(f"the images have label {largest}, but the heads only {classes} classes")

    def __iter__(self) -> Iterator[EpochMetrics]:
        """The epochs that are left, from where it stands."""
        while self.goes_on:
            (found,) = advance([self])
            if isinstance(found, Diverged):
                raise found
            yield found

    @property
    def goes_on(self) -> bool:
        """Whether there are epochs left."""
        return self.reached < len(self.rates)

    @property
    def undoes(self) -> bool:
        """Whether an epoch that failed can be tried again, as it left no trace."""
        return self.engine.undoes

    @property
    def stacks_with(self) -> Hashable:
        """Equal for runs that may have their next epoch as one; None for one that has it by itself."""
        alike = self.engine.stacks_with
        distills = self.config.distills(self.reached)
        return alike and (alike, self.config.batch_size, len(self.train), len(self.val), distills)

    def planned(self) -> Epoch:
        """What the next epoch is to do; the same until it is done."""
        if self._planned is None:
            config, epoch = self.config, self.reached
            weight, rise = config.distill_weight(epoch), config.distill_rise(epoch)
            self._planned = Epoch(self._order(), self.rates[epoch], weight, rise)
        return self._planned

    def done(self, tallies: Sequence[tuple[float, float]], validated: float) -> EpochMetrics | Diverged:
        """Count the epoch and say how it went: from right answers and summed losses of each model, and seconds."""
        assert self.trained is not None
        planned, epoch, (totals, trained) = self.planned(), self.reached, self.trained
        loss, ce_student, ce_teacher, distill = (total / len(planned.order) for total in totals)
        self.reached, self._planned, self.trained = epoch + 1, None, None
        if not math.isfinite(loss):
            return Diverged(f"the training loss became {loss} in epoch {epoch} at learning rate {planned.lr:.3g}")
        (accuracy, val_loss), (teacher_accuracy, _) = self._validated(tallies)
        alone = self.config.alone
        return EpochMetrics(
            epoch=epoch,
            lr=planned.lr,
            train_loss=loss,
            train_ce_student=ce_student,
            train_ce_teacher=None if alone else ce_teacher,
            train_distill=distill if planned.distilled else None,
            val_accuracy=accuracy,
            val_loss=val_loss,
            val_teacher_accuracy=teacher_accuracy,
            seconds=trained + validated,
            images_per_second=planned.order.numel() / trained,
            gpu_memory_gb=_peak_memory_gb(self.device, self.engine.working),
        )

    def _order(self) -> Tensor:
        """Rows (steps, B) of the training images in a new order; the last, smaller batch is dropped, as released."""
        batch = self.config.batch_size
        steps = len(self.train) // batch
        shuffled = torch.randperm(len(self.train), generator=self.shuffle, device=self.device)
        return self.train[shuffled[: steps * batch]].view(steps, batch)

    def _validated(self, tallies: Sequence[tuple[float, float]]) -> list[tuple[float | None, float | None]]:
        """Accuracy and loss on the val images, of student and teacher; None where there is none."""
        count = len(self.val)
        return [*((correct / count, loss / count) for correct, loss in tallies), (None, None), (None, None)][:2]


def advance(trainings: Sequence[Training]) -> list[EpochMetrics | Diverged]:
    """The next epoch of one run, or at once of several that stack, for each as it would be by itself.

    Raises:
        OutOfMemory: what the runs share is free again, and those that stack are where they were; fewer may have room.
    """
    first = trainings[0]
    with watched(first.config, first.resident):
        untrained = [training for training in trainings if training.trained is None]
        if untrained:  # else the last attempt found no room to validate
            _train(untrained)
        start = time.perf_counter()
        tallies = _validate(trainings)
        validated = time.perf_counter() - start
    return [training.done(of_one, validated) for training, of_one in zip(trainings, tallies, strict=True)]


def _train(trainings: Sequence[Training]) -> None:
    start = time.perf_counter()
    epochs = [training.planned() for training in trainings]
    if len(trainings) == 1:
        totals = trainings[0].engine.train(*epochs[0])[None].tolist()
    else:
        totals = Recorded.train_together(_recorded(trainings), epochs).tolist()
    seconds = time.perf_counter() - start
    for training, of_one in zip(trainings, totals, strict=True):
        training.trained = of_one, seconds


def _validate(trainings: Sequence[Training]) -> list[list[tuple[float, float]]]:
    """Right answers and summed losses of student and teacher, of each run; nothing where there are no val images."""
    rows = [training.val for training in trainings]
    if not len(rows[0]):
        return [[] for _ in rows]
    if len(trainings) == 1:
        return [trainings[0].engine.validate(rows[0]).tolist()]
    return Recorded.validate_together(_recorded(trainings), rows).tolist()


def _recorded(trainings: Sequence[Training]) -> list[Recorded]:
    return [training.engine for training in trainings if isinstance(training.engine, Recorded)]


def _engine(config: RunConfig, resident: Resident, classes: int) -> Eager | Recorded:
    return (Recorded if resident.records(config) else Eager)(config, resident, classes)


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], config: RunConfig) -> tuple[float, float]:
    """Accuracy (a fraction) and mean cross-entropy of a model over pairs of pixels (B, ch, H, W) and labels (B,).

    Leaves the model in eval mode. Larger batches are cut, so their size does not matter.
    """
    found = evaluate_all({"": (model, config)}, batches)[0][""]
    return found.accuracy, found.loss


class Evaluated(NamedTuple):
    """What a model came to on some images."""

    accuracy: float  # a fraction
    loss: float  # mean cross-entropy
    logits: Tensor  # (N, C), float32, on the CPU


def evaluate_all(
    models: Mapping[str, tuple[nn.Module, RunConfig]], batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[dict[str, Evaluated], Tensor]:
    """As `evaluate`, for several models (each with its config) in one pass over the batches; and the labels (N,)."""
    sums: dict[str, Tensor] = {}
    logits: dict[str, list[Tensor]] = {name: [] for name in models}
    labels = []
    for model, _ in models.values():
        model.eval()
    with torch.no_grad():
        for pixels_B, labels_B in _cut(batches):
            for name, (model, config) in models.items():
                with autocast(config, pixels_B.device):
                    logits_BC = model(pixels_B).float()
                found = tally(logits_BC, labels_B)
                sums[name] = sums[name] + found if name in sums else found
                logits[name].append(logits_BC.cpu())
            labels.append(labels_B.cpu())
    labels_N = torch.cat(labels)
    count = len(labels_N)
    plain = {name: found.tolist() for name, found in sums.items()}
    found_of = {
        name: Evaluated(correct / count, loss / count, torch.cat(logits[name]))
        for name, (correct, loss) in plain.items()
    }
    return found_of, labels_N


def _cut(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    for pixels, labels in batches:
        yield from zip(pixels.split(EVAL_BATCH), labels.split(EVAL_BATCH), strict=True)


def to_device(images: Images, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels (bytes) and labels as tensors on the device."""
    # Copied: the arrays may be read-only views of memory that other processes share.
    return torch.tensor(images.pixels, device=device), torch.tensor(images.labels, device=device)


def _peak_memory_gb(device: torch.device, working: int) -> float | None:
    """The most that was allocated since the run began; what replayed steps use, torch does not count again."""
    if device.type != "cuda":
        return None
    replayed = torch.cuda.memory_allocated(device) + working
    return max(torch.cuda.max_memory_allocated(device), replayed) / 1e9
