"""Optuna's samplers and one of ours, and a space's domains in Optuna's words."""

import random
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from idat_tune.search import grid
from idat_tune.search.config import GP, GRID, RANDOM, TPE
from idat_tune.space import Choice, Domain, Space, distribution


def new_study(kind: str, seed: int, space: Space) -> optuna.Study:
    """A study in memory, whose sampler is of that kind."""
    return optuna.create_study(direction="maximize", sampler=new_sampler(kind, seed, space))


def new_sampler(kind: str, seed: int, space: Space) -> BaseSampler:
    """A sampler by name; one with the same seed proposes the same in a study that holds the same."""
    return SAMPLERS[kind](seed, space)


def reseed(study: optuna.Study, kind: str, seed: int, draw: int | str, space: Space) -> None:
    """Before each proposal: what comes depends on the seed, the draw's name and what is in the study alone.

    So a search that runs one trial at a time goes on after a restart as if there had been none, and a proposal whose
    trial a restart cut off is not drawn a second time for another.
    """
    if kind != GRID:  # draws nothing
        study.sampler = new_sampler(kind, random.Random(f"{seed}/{draw}").getrandbits(32), space)


def _tpe(seed: int, space: Space) -> BaseSampler:
    """All parameters together, grouped by the conditions that switch them on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def _random(seed: int, space: Space) -> BaseSampler:
    return RandomSampler(seed)


def _gp(seed: int, space: Space) -> BaseSampler:
    """A Gaussian process over the parameters that every trial has, which learns from complete trials alone.

    It knows neither conditions nor stopped trials; TPE, which does, proposes the parameters under conditions, each
    by itself, and all of them until 10 trials are complete.
    """
    return GPSampler(seed=seed, independent_sampler=TPESampler(seed=seed), warn_independent_sampling=False)


class GridSampler(BaseSampler):
    """Every point of a grid once, in a shuffled order, so that a grid cut off early still covers the space."""

    def __init__(self, seed: int, space: Space):
        self.points = grid.points(space)
        random.Random(seed).shuffle(self.points)
        self.distributions = {param.label: distribution(param.domain) for param in space.params}

    def untried(self, study: optuna.Study) -> dict[str, Any] | None:
        """The next point that no trial of the study has; None when there is none left."""
        tried = {_key(trial.params) for trial in study.get_trials(deepcopy=False)}
        return next((point for point in self.points if _key(point) not in tried), None)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All labels: a point is proposed as a whole."""
        return self.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point."""
        return self.untried(study) or {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Not asked for: a point has all that its conditions switch on."""
        raise AssertionError(f"the grid has no value for {param_name}")


def _key(point: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset(point.items())


def exhausted(study: optuna.Study) -> bool:
    """Whether the sampler has nothing more to propose; only a grid ever ends."""
    return isinstance(study.sampler, GridSampler) and study.sampler.untried(study) is None


SAMPLERS = {TPE: _tpe, RANDOM: _random, GRID: GridSampler, GP: _gp}


def suggest(proposal: optuna.trial.Trial, label: str, domain: Domain) -> Any:
    """The sampler's value for a domain."""
    if isinstance(domain, Choice):
        return proposal.suggest_categorical(label, domain.values)
    if domain.integer:
        return proposal.suggest_int(label, int(domain.low), int(domain.high), log=domain.log)
    return proposal.suggest_float(label, domain.low, domain.high, log=domain.log)
