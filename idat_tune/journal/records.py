"""What is known of a trial that has ended, as a line of the journal and as a row of a table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from idat_tune.journal.hits import unpacked
from idat_tune.metrics import WORST, EpochMetrics, score

STAGES = EXPLORE, CONFIRM, FINAL, TEST = "explore", "confirm", "final", "test"
STATUSES = COMPLETE, STOPPED, FAILED = "complete", "stopped", "failed"


@dataclass(frozen=True)
class TrialRecord:
    """What is known of a trial that has ended, well or not."""

    id: str  # unique in its search: arm-default, trial-003, confirm-2-trial-003, final-0-trial-003, test
    stage: str  # EXPLORE, CONFIRM (on another split), FINAL (on trainval) or TEST (which opens the test split)
    arms: tuple[str, ...]  # what it stands for: default, alone, one of the space, winner, ...; none if proposed
    config: Mapping[str, Any]  # flat, complete
    status: str  # COMPLETE, STOPPED early, or FAILED
    reason: str | None = None  # why it failed
    labels: Mapping[str, Any] | None = None  # what the sampler chose, by its names; None outside the space
    epochs: tuple[EpochMetrics, ...] = ()
    val_images: int = 0
    seconds: float = 0.0  # wall time from proposal to end
    set_up_seconds: float = 0.0  # of these, building models and loading data
    trainable_params: int | None = None  # of the student: adapters and head
    worker: int | None = None  # process that it ran in
    node: str | None = None  # machine of that process
    weights: Mapping[str, str | None] = field(default_factory=dict)  # by backbone: sha256 of the file it was built on
    contender: str | None = None  # in CONFIRM: the explored trial whose config it runs
    fold: int | None = None  # in CONFIRM: the number of the split
    hits: str | None = None  # in CONFIRM: whether each val image was named rightly, as `hits.packed` has it
    tested: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # by final trial: test accuracy, loss
    test_hits: Mapping[str, str] = field(default_factory=dict)  # by final trial: as `hits`, of the test images
    began: float = field(default=0.0, compare=False)  # Unix time in seconds; 0 in a journal of before it was kept
    ended: float = field(default=0.0, compare=False)  # likewise, set by the journal

    @property
    def last(self) -> EpochMetrics | None:
        """The last epoch it got through."""
        return self.epochs[-1] if self.epochs else None

    @property
    def val_accuracy(self) -> float | None:
        """Validation accuracy of its last epoch, a fraction."""
        return self.last.val_accuracy if self.last else None

    @property
    def score(self) -> float:
        """The rank of its last epoch; the worst there is for a trial that failed."""
        if self.status == FAILED or self.last is None:
            return WORST
        return score(self.last.val_accuracy, self.last.val_loss, max(self.val_images, 1))

    @property
    def started_ms(self) -> int:
        """When it began, Unix time in milliseconds."""
        return int(self.began * 1000) or self.ended_ms - int(self.seconds * 1000)

    @property
    def ended_ms(self) -> int:
        """When it ended, likewise."""
        return int(self.ended * 1000)

    def stamps(self) -> Iterator[int]:
        """When each of its epochs was through, likewise; without what it waited for between them."""
        elapsed = self.set_up_seconds
        for epoch in self.epochs:
            elapsed += epoch.seconds
            yield self.started_ms + int(elapsed * 1000)

    def row(self) -> dict[str, Any]:
        """Its row of trials.parquet."""
        last = self.last.as_dict() if self.last else {}
        return {
            "trial": self.id,
            "stage": self.stage,
            "arms": ",".join(self.arms),
            "status": self.status,
            "reason": self.reason,
            "contender": self.contender,
            "fold": self.fold,
            "epochs_run": len(self.epochs),
            **{name: last.get(name) for name in ("val_accuracy", "val_loss", "val_teacher_accuracy", "train_loss")},
            "score": self.score,
            "trainable_params": self.trainable_params,
            "seconds": self.seconds,
            "set_up_seconds": self.set_up_seconds,
            "training_seconds": sum(epoch.seconds for epoch in self.epochs),
            **self.config,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, for what JSON gives back.

        Raises:
            ValueError, TypeError, KeyError: that was not given back by it.
        """
        epochs = tuple(EpochMetrics.from_dict(epoch) for epoch in values["epochs"])
        tested = {trial: tuple(found) for trial, found in values["tested"].items()}
        record = cls(**{**values, "arms": tuple(values["arms"]), "epochs": epochs, "tested": tested})
        record._check()
        return record

    def _check(self) -> None:
        """Refuse values that only a damaged file holds."""
        for name, known in (("stage", STAGES), ("status", STATUSES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, not one of {', '.join(known)}")
        for name, kind in _KINDS.items():
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}")
        for text in (*([self.hits] if self.hits is not None else []), *self.test_hits.values()):
            unpacked(text)


_TEXT, _COUNT = str | None, int | None
_KINDS: Mapping[str, Any] = {
    "id": str, "config": dict, "labels": dict | None, "reason": _TEXT, "contender": _TEXT, "fold": _COUNT,
    "trainable_params": _COUNT, "val_images": int, "seconds": float | int, "set_up_seconds": float | int,
    "began": float | int, "ended": float | int, "node": _TEXT, "hits": _TEXT, "test_hits": dict,
}  # fmt: skip
