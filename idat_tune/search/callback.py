"""What a search tells whoever follows it, as callbacks."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partialmethod
from typing import Any

from idat_tune.journal import TrialRecord
from idat_tune.metrics import EpochMetrics
from idat_tune.search.budget import Budget
from idat_tune.search.plan import Job, Plan

LOG = "log.txt"  # in the search folder: what Ray, Tune, Optuna and MLflow have to say


class Callback:
    """Is told of every event of a search, in the driver, and does nothing; a subclass does what it wants of them.

    Accuracies are fractions. A callback that raises is not called again, and the search goes on without it.
    """

    def on_search_open(self, plan: Plan) -> None:
        """The search folder is there and held, and nothing has been started yet."""

    def on_search_start(self, plan: Plan, workers: int, earlier: Sequence[TrialRecord], budget: Budget) -> None:
        """Trials begin, `workers` at once; `earlier` ones were finished before a restart; `budget` counts time."""

    def on_remark(self, sentence: str) -> None:
        """Something to know about the machine, the workers or another callback; the search goes on."""

    def on_trial_start(self, job: Job) -> None:
        """A trial was handed to a worker: `job.id`, `job.stage`, `job.config`."""

    def on_epoch_end(self, job: Job, epoch: EpochMetrics) -> None:
        """A running trial got through an epoch: `epoch.epoch` counts from 0, `epoch.val_accuracy`, ..."""

    def on_trial_end(self, record: TrialRecord) -> None:
        """A trial finished, was stopped early, or failed: `record.status`, `record.val_accuracy`, `record.config`."""

    def on_explore_end(self, limit: str) -> None:
        """Nothing new is proposed any more, for the reason that `budget.WHY` has; what runs goes on to its end."""

    def on_winner(self, winner: TrialRecord) -> None:
        """Exploring is over and the winner is frozen; its trainings on all training images follow."""

    def on_test_open(self, students: int, opening: int) -> None:
        """The test split is opened for all students of the final run; `opening` counts from 1."""

    def on_tracking_failure(self, sentence: str) -> None:
        """The tracking store takes nothing; the search goes on. The sentence says why, and what comes of it."""

    def on_made_again(self, what: str) -> None:
        """Something of a finished search was lost, and is made again from what is left."""

    def on_tracking_back(self, sentence: str) -> None:
        """The tracking store that was away takes what it lacks; said once."""

    def on_ray_lost(self, process: str) -> None:
        """A process of Ray's died; Ray is about to end this process. What was finished is kept."""

    def on_interrupt(self) -> None:
        """The search was told to stop, and is about to."""

    def on_search_end(self, result: Mapping[str, Any]) -> None:
        """All is done, and exported: what `search` returns."""


class Callbacks(Callback):
    """Several as one: each is told, in their order; one that raises is left out from then on, and the others hear why.

    Ctrl-C and what else is no Exception goes through.
    """

    def __init__(self, callbacks: Iterable[Callback]):
        self.left = list(callbacks)

    def tell(self, event: str, *about: Any) -> None:
        """Call that method of each."""
        for callback in list(self.left):
            if callback not in self.left:  # it failed meanwhile, in hearing of another that did
                continue
            try:
                getattr(callback, event)(*about)
            except Exception as failure:
                self.left.remove(callback)
                why = f"{type(failure).__name__}: {failure}".splitlines()[0]
                self.on_remark(f"callback {type(callback).__name__} failed ({why}) and is not called again")


for _event in [name for name in vars(Callback) if name.startswith("on_")]:
    setattr(Callbacks, _event, partialmethod(Callbacks.tell, _event))  # all there are, so that none is forgotten
