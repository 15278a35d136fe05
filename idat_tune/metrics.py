"""EpochMetrics, the score that ranks trials, the speed of a run, and the results tables as Parquet."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch of a run showed; plain numbers. Validation is absent where a run has no val split."""

    epoch: int  # counted from 0
    lr: float  # learning rate of the epoch
    train_loss: float  # mean over steps of what was minimised
    train_ce_student: float  # with the label smoothing that it is trained with; val_loss has none
    train_ce_teacher: float | None  # None where the student learns alone
    train_distill: float | None  # before the weight lambda; None where that is 0 all epoch
    val_accuracy: float | None  # fraction of the val split that the student gets right
    val_loss: float | None  # the student's mean cross-entropy on the val split
    val_teacher_accuracy: float | None
    seconds: float  # wall time, validation included
    images_per_second: float  # training images
    gpu_memory_gb: float | None  # peak allocated so far, 1e9 bytes; None without CUDA

    def as_dict(self) -> dict[str, Any]:
        """Field names to values, for JSON, Tune and Parquet."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`; keys that are not fields are left out."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def tracked(self) -> dict[str, float]:
        """The values under the names that tracking uses (`train/loss`, `val/accuracy`, ...); None left out."""
        named = {name: getattr(self, field) for name, field in TRACKED.items()}
        return {name: float(value) for name, value in named.items() if value is not None}


TRACKED = {
    "train/loss": "train_loss",
    "train/ce_student": "train_ce_student",
    "train/ce_teacher": "train_ce_teacher",
    "train/distill": "train_distill",
    "val/accuracy": "val_accuracy",
    "val/loss": "val_loss",
    "val/teacher_accuracy": "val_teacher_accuracy",
    "lr": "lr",
    "epoch_seconds": "seconds",
    "images_per_second": "images_per_second",
    "system/gpu_memory_gb": "gpu_memory_gb",  # where MLflow shows what it calls system metrics
}


@dataclass(frozen=True)
class Speed:
    """How fast a config trains on a worker."""

    train: float  # seconds per training image
    val: float  # seconds per validation image, of student and teacher
    beside: float  # seconds per run that belong to no epoch: models are built, caches filled

    @classmethod
    def shown(cls, epochs: Sequence[EpochMetrics], train: int, val: int, set_up_seconds: float) -> Self:
        """What the epochs of a run over so many training and validation images showed; at least one of them."""
        later = epochs[1:] or epochs  # in the first one caches are filled
        seconds = statistics.fmean(epoch.seconds for epoch in later)
        image = statistics.fmean(1 / epoch.images_per_second for epoch in later)
        beside = set_up_seconds + max(epochs[0].seconds - seconds, 0.0)
        return cls(image, max(seconds - train * image, 0.0) / val, beside)

    @classmethod
    def mean(cls, speeds: Sequence[Self]) -> Self:
        """The mean of several."""
        return cls(*(statistics.fmean(getattr(speed, each.name) for speed in speeds) for each in fields(cls)))

    def run(self, epochs: float, train: int, val: int) -> float:
        """Seconds of a run of so many epochs over so many images each."""
        return self.beside + epochs * (train * self.train + val * self.val)


WORST = -1.0  # score of a trial that has none, below every real one


def score(accuracy: float | None, loss: float | None, images: int) -> float:
    """One number that ranks by accuracy and breaks ties by loss; higher is better.

    The loss takes away less than the accuracy of one image among `images`, so that it can only decide ties:
    with 200 validation images accuracy moves in steps of half a point, and trials often tie.
    """
    if accuracy is None or loss is None or not math.isfinite(accuracy):
        return WORST
    squashed = loss / (1 + loss) if math.isfinite(loss) else 1.0
    return accuracy - 0.99 * squashed / images


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as one Parquet file, replacing it at once; a column is there if any row has it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(table, partial)
    partial.replace(path)


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a table written by `write_table`."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()
