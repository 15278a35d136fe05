"""What goes with a student that a search hands over: its figures, and how it came about."""

from collections.abc import Mapping, Sequence
from typing import Any

from idat_tune.journal import TrialRecord
from idat_tune.journal.hits import BESIDE_TEACHER
from idat_tune.search.comparison import mean_and_spread
from idat_tune.search.plan import WINNER
from idat_tune.search.verdict import Findings


def figures(
    found: Findings, contender: TrialRecord, finals: Sequence[TrialRecord], pair: bool = False
) -> dict[str, Any]:
    """What is known of the student of the first of some final runs of a contender, as an export keeps it.

    Args:
        found: in the search.
        contender: whose final runs they are.
        finals: in the order of their seeds; of one that was not tested, there is no figure of the test.
        pair: as one model with its teacher.
    """
    journal, confirmed = found.journal, found.confirmed(contender)
    tested = journal.tested()
    names = [final.id + BESIDE_TEACHER * pair for final in finals]
    measured: dict[str, Any] = {}
    if names and names[0] in tested:
        accuracy, loss = tested[names[0]]
        over_seeds = mean_and_spread([tested[name][0] for name in names if name in tested])
        measured = {"test_accuracy": accuracy, "test_loss": loss}
        measured |= {f"test_accuracy_{key}": over_seeds[key] for key in ("mean", "std")}
        measured["test_seeds"] = over_seeds["seeds"]
    if confirmed and not pair:
        measured["confirmed_accuracy"] = confirmed["mean"]
        measured["confirmed_standard_error"] = confirmed["standard_error"]
        measured["confirmed_folds"] = confirmed["folds"]
    measured |= {
        "trainable_params": contender.trainable_params,
        "search": found.plan.name,
        "trial": contender.id,
    }
    # Its figures are those of the first time, by the same config and seed.
    if finals and finals[0].id in journal.state.trained_again:
        measured["trained_again"] = True
    compared = [one.as_dict() for one in found.comparisons() if one.ours == WINNER]
    if compared and _is_winner(found, contender) and not pair:
        measured["comparisons"] = compared
    return measured


def protocol(found: Findings, contender: TrialRecord, why: str = "") -> Mapping[str, Any]:
    """How the student came about, as an export's provenance has it; `why` it was chosen, unless as the winner."""
    plan, openings = found.plan, len(found.journal.state.openings)
    folds = plan.config.confirm.folds
    by = f"the winner of search '{plan.name}'" if _is_winner(found, contender) else f"of search '{plan.name}'"
    judged = f"judged by {folds} disjoint splits of the training images" if folds else "judged by one val split"
    verdict = {"verdict": found.verdict()} if _is_winner(found, contender) else {}
    return {
        "trained_on": "trainval",
        "chosen": f"Trial {contender.id}, {why or by}, {judged}",
        "test_openings": openings,
        **verdict,
    }


def _is_winner(found: Findings, contender: TrialRecord) -> bool:
    return found.winner is not None and contender.id == found.winner.id
