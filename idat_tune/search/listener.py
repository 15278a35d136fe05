"""What a search tells whoever watches it."""

from collections.abc import Sequence

from idat_tune.journal import TrialRecord
from idat_tune.metrics import EpochMetrics
from idat_tune.search.budget import Budget
from idat_tune.search.plan import Job, Plan

LOG = "log.txt"  # in the search folder: what Ray, Tune, Optuna and MLflow have to say


class Listener:
    """Hears every event of a search and does nothing; the terminal's progress is one that shows them."""

    def search_opened(self, plan: Plan) -> None:
        """The search folder is there and held, and nothing has been started yet."""

    def search_started(self, plan: Plan, workers: int, earlier: Sequence[TrialRecord], budget: Budget) -> None:
        """Trials begin, `workers` at once; `earlier` ones were finished before a restart; `budget` counts time."""

    def remarked(self, sentence: str) -> None:
        """Something to know about the machine or the workers; the search goes on."""

    def trial_started(self, job: Job) -> None:
        """A trial was handed to a worker."""

    def epoch_done(self, job: Job, epoch: EpochMetrics) -> None:
        """A running trial got through an epoch."""

    def trial_ended(self, record: TrialRecord) -> None:
        """A trial finished, was stopped early, or failed."""

    def exploring_ended(self, limit: str) -> None:
        """Nothing new is proposed any more, for the reason that `budget.WHY` has; what runs goes on to its end."""

    def winner_chosen(self, winner: TrialRecord) -> None:
        """Exploring is over and the winner is frozen; its trainings on all training images follow."""

    def test_opened(self, students: int, opening: int) -> None:
        """The test split is opened for all students of the final run; `opening` counts from 1."""

    def tracking_failed(self, sentence: str) -> None:
        """The tracking store takes nothing; the search goes on. The sentence says why, and what comes of it."""

    def made_again(self, what: str) -> None:
        """Something of a finished search was lost, and is made again from what is left."""

    def ray_lost(self, process: str) -> None:
        """A process of Ray's died; Ray is about to end this process. What was finished is kept."""

    def interrupted(self) -> None:
        """The search was told to stop, and is about to."""
