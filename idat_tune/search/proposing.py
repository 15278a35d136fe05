"""New configs from the sampler: none that was run, as with the same seed it would come to the same."""

import itertools
import random
from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import islice
from typing import Any

import optuna
from optuna.trial import TrialState

from idat_tune.config import RunConfig
from idat_tune.search import grid
from idat_tune.search.config import GRID
from idat_tune.search.plan import Plan
from idat_tune.search.sampler import exhausted, reseed, suggest
from idat_tune.space import Choice, Domain

ATTEMPTS = 20  # of the sampler to propose something new; then a point is drawn of those that are left
MOST_POINTS = 10_000  # of a space whose points are counted; of a larger one nobody runs all


class Proposer:
    """Asks a study for points of a plan's space; what it proposes depends on the number and on what is known alone."""

    def __init__(self, plan: Plan, study: optuna.Study):
        self.plan = plan
        self.study = study

    def propose(self, number: int, known: Collection[RunConfig]) -> tuple[optuna.trial.Trial, RunConfig] | None:
        """A config that is not among those known, and what the study calls it; None if there is none left.

        The study learns nothing of what it proposed in vain: it has the value of that config already.
        """
        vain = []
        for proposal, config in self._candidates(number):
            if config not in known:
                break
            vain.append(proposal)
        else:
            proposal = None
        for one in vain:  # no sooner: while they seem to run, the sampler keeps away from them
            self.study.tell(one, state=TrialState.FAIL)
        return None if proposal is None else (proposal, config)

    def _candidates(self, number: int) -> Iterator[tuple[optuna.trial.Trial, RunConfig]]:
        """What the sampler proposes, then every point that is left of a finite space."""
        kind, seed, space = self.plan.config.explore.sampler, self.plan.seed, self.plan.space
        for attempt in itertools.count() if kind == GRID else range(ATTEMPTS if space.params else 0):
            if exhausted(self.study):
                return
            reseed(self.study, kind, seed, f"{number}/{attempt}" if attempt else number, space)
            yield self._ask()
        left = list(self._points)
        random.Random(f"{seed}/{number}").shuffle(left)
        for labels in left:
            self.study.enqueue_trial(labels)
            yield self._ask()

    def _ask(self) -> tuple[optuna.trial.Trial, RunConfig]:
        proposal = self.study.ask()

        def ask(label: str, domain: Domain) -> Any:
            return suggest(proposal, label, domain)

        return proposal, self.plan.config_of(self.plan.space.propose(ask))

    @cached_property
    def _points(self) -> list[dict[str, Any]]:
        """All points of a finite space, by label; none of one that has too many."""
        params = self.plan.space.params
        if not params or not all(isinstance(one.domain, Choice) or one.domain.integer for one in params):
            return []
        found = list(islice(grid.labelled(self.plan.space, _all), MOST_POINTS + 1))
        return found if len(found) <= MOST_POINTS else []


def _all(domain: Domain) -> tuple[Any, ...]:
    return domain.values if isinstance(domain, Choice) else tuple(range(int(domain.low), int(domain.high) + 1))
