"""Ray Tune's view of a stopping rule: what it may end, and what came before a restart."""

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from idat_tune.journal import EXPLORE, Journal
from idat_tune.metrics import score
from idat_tune.search.stopping import Rule

METRIC = "score"  # of a Tune result


class Stopper(FIFOScheduler):
    """Ends proposed trials as a rule says; arms and everything after exploring always run to their end."""

    def __init__(self, rule: Rule, journal: Journal):
        super().__init__()
        self.rule = rule
        self.stopped: set[str] = set()  # Tune's ids of the trials that it ended early
        for record in journal.of(EXPLORE):
            for epoch in record.epochs:
                rank = score(epoch.val_accuracy, epoch.val_loss, max(record.val_images, 1))
                rule.stops(record.id, epoch.epoch + 1, rank)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """Let the rule judge an epoch of an explored trial; arms are judged too, as others are compared with them."""
        job = trial.config
        if job["stage"] != EXPLORE or not self.rule.stops(job["id"], result["epoch"] + 1, result[METRIC]):
            return TrialScheduler.CONTINUE
        if job["arms"]:
            return TrialScheduler.CONTINUE
        self.stopped.add(trial.trial_id)
        return TrialScheduler.STOP
