"""How much of the differences between trials each setting explains, with what a bootstrap says of that."""

import random
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from idat_tune.journal import FAILED
from idat_tune.report import pictures, words
from idat_tune.report.evidence import Evidence
from idat_tune.report.page import Html, paragraph
from idat_tune.space import distribution

ENOUGH = 50  # trials, before importances say more than the next search would contradict
RESAMPLES = 30  # of the bootstrap
TAIL = 0.05  # of them on either side of what is shown


class _Drawn(optuna.storages.InMemoryStorage):
    """Holds trials that were drawn elsewhere, some twice; adding them one by one would copy each."""

    def __init__(self, trials: list[FrozenTrial]):
        super().__init__()
        self.trials = trials

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        """All of them."""
        return self.trials


def importance(evidence: Evidence) -> Html:
    """A bar for each setting, where there are trials enough to say."""
    proposed = [r for r in evidence.explored if r.labels and r.val_accuracy is not None and r.status != FAILED]
    if len(proposed) < ENOUGH:
        return paragraph(
            f"Not enough trials to rank settings: {len(proposed)} in the space, and below about {ENOUGH} two ways of "
            "ranking contradict each other. The strips above show what there is to see."
        )
    domains = {param.label: distribution(param.domain) for param in evidence.params}
    trials = []
    for record in proposed:
        labels = {label: chosen for label, chosen in (record.labels or {}).items() if label in domains}
        of_these = {label: domains[label] for label in labels}
        accuracy = float(record.val_accuracy or 0)
        trials.append(optuna.trial.create_trial(params=labels, distributions=of_these, value=accuracy))
    whole, draw = _importances(trials), random.Random(0)
    drawn = [_importances(draw.choices(trials, k=len(trials))) for _ in range(RESAMPLES)]
    rows = []
    for label, share in sorted(whole.items(), key=lambda pair: -pair[1]):
        found, cut = sorted(one.get(label, 0.0) for one in drawn), int(TAIL * RESAMPLES)
        low, high = found[cut], found[-1 - cut]
        shown = f"{100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        rows.append(pictures.Bar(label, share, shown, low, high))
    about = "; ".join(f"{row.name} {row.shown}" for row in rows)
    caption = (
        f"PED-ANOVA over {words.plural(len(proposed), 'trial')}: what sets the better ones apart. In brackets and as a "
        f"line: {100 * (1 - 2 * TAIL):.0f} % of {RESAMPLES} bootstrap samples. Settings whose lines overlap are not "
        "ranked."
    )
    return pictures.figure(pictures.bars("Importance of settings", about, rows), caption)


def _importances(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", storage=_Drawn(list(trials)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        except (ValueError, RuntimeError):  # of a sample in which nothing differs
            return {}
