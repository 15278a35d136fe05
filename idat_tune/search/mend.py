"""A finished search given again: whatever of its files was lost is made again from its journal."""

import shutil
from typing import Any

from idat_tune import export
from idat_tune.errors import BadInput
from idat_tune.journal import Journal
from idat_tune.report.task import FILE as PAGE
from idat_tune.search import finish
from idat_tune.search.callback import Callback
from idat_tune.search.manifest import Manifest
from idat_tune.search.plan import Plan
from idat_tune.search.stages import winner
from idat_tune.search.tracked import Tracked
from idat_tune.search.trained import lost_finals

TABLES = ("trials.parquet", "epochs.parquet")


def whole_again(plan: Plan, journal: Journal, manifest: Manifest, callback: Callback) -> dict[str, Any] | None:
    """The result of a finished search, all of whose files are there.

    None where the search is not finished, or must train its winner again because the tensors are lost too.

    Raises:
        BadInput: the journal has lost the winner, so nothing can be made from it.
    """
    if journal.state.winner and winner(plan, journal) is None:
        raise BadInput(
            f"{journal.path} does not hold {journal.state.winner}, the winner of search '{plan.name}'; put the "
            "journal back, or give this search another --name"
        )
    result, asked = journal.state.result, plan.config
    if result is None or not journal.state.finished_for(
        asked.explore.trials, asked.final.seeds, asked.final.reopen_test
    ):
        return None
    if not _is_exported(plan):
        _clear_part(plan)
        lost = lost_finals(plan, journal)
        if lost:
            callback.on_made_again(f"{finish.BEST}/, for which {lost[0]} is trained again; the test stays closed")
            return None
        callback.on_made_again(f"{finish.BEST}/, from the tensors of the final run")
        if not finish.export_winner(plan, journal, manifest):
            return None
    if not all((plan.folder / table).is_file() for table in TABLES):
        callback.on_made_again(" and ".join(TABLES))
        journal.write_tables(plan.folder)
    if not (plan.folder / PAGE).is_file():
        callback.on_made_again(PAGE)
        finish.write_page(plan, journal, manifest, result, callback.on_remark)
    tracked = Tracked(plan, journal, manifest, callback)
    tracked.complete()
    return finish.placed(result, plan, tracked.uri)


def _is_exported(plan: Plan) -> bool:
    return all((plan.folder / finish.BEST / name).is_file() for name in export.FILES)


def _clear_part(plan: Plan) -> None:
    """Remove what is left of an export; a folder that holds anything else stays as it is, and is refused later."""
    best = plan.folder / finish.BEST
    if best.is_dir() and {entry.name for entry in best.iterdir()} <= set(export.FILES):
        shutil.rmtree(best)
