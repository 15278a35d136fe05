"""Asynchronous halving: proposed trials that are not among the best of their rung end early."""

from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from idat_tune.journal import EXPLORE, Journal, TrialRecord
from idat_tune.metrics import score

METRIC = "score"  # of a Tune result
RUNGS_APART = 3  # the best third of a rung goes on


class Halving(AsyncHyperBandScheduler):
    """Asynchronous successive halving of proposed trials; arms and final runs always run to their end."""

    def __init__(self, epochs: int, warmup_epochs: int, journal: Journal):
        # A fifth of the epochs: with less, the best config is often stopped; never inside the warm-up.
        grace = min(max(warmup_epochs + 1, epochs // 5), epochs)
        super().__init__(
            time_attr="training_iteration",
            metric=METRIC,
            mode="max",
            max_t=epochs,
            grace_period=grace,
            reduction_factor=RUNGS_APART,
        )
        self.stopped: set[str] = set()  # Tune's ids of the trials that it ended early
        for record in journal.of(EXPLORE):
            self._replay(record)

    def _replay(self, record: TrialRecord) -> None:
        """Put a trial of before a restart on the rungs that it reached."""

        @dataclass
        class Past:
            trial_id: str

        for epoch in record.epochs:
            rank = score(epoch.val_accuracy, epoch.val_loss, max(record.val_images, 1))
            self._brackets[0].on_result(Past(record.id), epoch.epoch + 1, rank)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """Stop a proposed trial that is not among the best of its rung."""
        if trial.config["stage"] != EXPLORE:
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP and trial.config["arms"]:
            return TrialScheduler.CONTINUE
        if decision == TrialScheduler.STOP:
            self.stopped.add(trial.trial_id)
        return decision
