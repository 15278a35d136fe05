"""Optuna's sampler, and a space's domains in its words."""

import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from idat_tune.space import Choice, Domain


def new_study(seed: int) -> optuna.Study:
    """A study in memory: TPE over all parameters together, grouped by the conditions that switch them on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
    return optuna.create_study(direction="maximize", sampler=sampler)


def suggest(proposal: optuna.trial.Trial, label: str, domain: Domain) -> Any:
    """The sampler's value for a domain."""
    if isinstance(domain, Choice):
        return proposal.suggest_categorical(label, domain.values)
    if domain.integer:
        return proposal.suggest_int(label, int(domain.low), int(domain.high), log=domain.log)
    return proposal.suggest_float(label, domain.low, domain.high, log=domain.log)


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's form of a domain."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)
