"""A search's tracking: sends what the journal holds, stops no search, and owes what could not be sent."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from idat_tune import tracking
from idat_tune.journal import Journal, TrialRecord
from idat_tune.journal.state import TRACKED
from idat_tune.search import finish
from idat_tune.search.callback import Callback
from idat_tune.search.manifest import Manifest
from idat_tune.search.plan import Plan

log = logging.getLogger("mlflow.idat_tune")  # goes where MLflow's own go


class Tracked:
    """The tracking of one search. Once the store takes nothing, it is asked again at the end, and then no more."""

    def __init__(self, plan: Plan, journal: Journal, manifest: Manifest, callback: Callback):
        self.plan = plan
        self.journal = journal
        self.manifest = manifest
        self.callback = callback
        self.uri = tracking.uri(plan.out)
        self.owed = False  # whether the store lacks what the journal holds
        self.tracker: tracking.Tracker | None = None

    def lay_out(self) -> None:
        """Make the store, if it is one of ours; what fails then fails again in `open`, and is told there."""
        try:
            tracking.lay_out(self.plan.out)
        except Exception as failure:
            log.warning("the store could not be made: %s", failure)

    def open(self) -> None:
        """Open the parent run, and complete what a crash left of its children."""
        self._safely(self._open, "; the search goes on, and tries again at its end")

    def log_trial(self, record: TrialRecord) -> None:
        """Send a finished trial."""
        if self.tracker:
            log_trial = self.tracker.log_trial
            self._safely(lambda: log_trial(record), "; the search goes on, and tries again at its end")

    def finish(self, result: Mapping[str, Any], exported: bool) -> None:
        """End the parent run with what came out, and send before what is owed."""
        rest = "; what it lacks is sent when the same command is given again"
        if self.owed:
            self.owed = False
            self._safely(self._open, rest)
        self._safely(lambda: self._finish(result, exported), rest)

    def cut_off(self, status: str, tags: Mapping[str, str]) -> None:
        """End the parent run of a search that did not get to its end; a resume opens it again."""
        if self.tracker:
            end = self.tracker.finish
            self._safely(lambda: end(status, {}, tags), "")

    def complete(self, result: Mapping[str, Any]) -> None:
        """Send all of a finished search that the store does not have: it was lost, or could not be reached."""
        self._safely(lambda: self._complete(result), "; what it lacks is sent when the same command is given again")

    def _complete(self, result: Mapping[str, Any]) -> None:
        tracking.lay_out(self.plan.out)
        there = tracking.Tracker(self.plan.out, self.plan.task.name)
        if not there.closed(self.journal.state.parent_run):
            self.callback.on_made_again(f"the runs in {tracking.shown(self.uri)}")
            self._open()
            self._finish(result, exported=True)

    def _open(self) -> None:
        tracking.lay_out(self.plan.out)
        tracker = tracking.Tracker(self.plan.out, self.plan.task.name)
        params = {
            "task": self.plan.task.name,
            "space": self.plan.space.name,
            "trials": self.plan.config.explore.trials,
            "seed": self.plan.seed,
            **{f"fixed.{key}": value for key, value in self.plan.space.fixed},
        }
        content = self.manifest.content
        tags = {"group": self.plan.task.group, "data_hash": content["data_hash"], "search_id": content["search_id"]}
        before = self.journal.state.parent_run
        run = tracker.start(self.plan.name, params, tags, before)
        if run != before:
            self.journal.decide(TRACKED, run=run)
        for record in self.journal.records:
            tracker.log_trial(record)
        self.tracker = tracker

    def _finish(self, result: Mapping[str, Any], exported: bool) -> None:
        assert self.tracker is not None
        if exported:
            self.tracker.log_folder(self.plan.folder / finish.BEST, finish.BEST)
        tags = {
            "status": "finished" if exported else "failed",
            "verdict": result["verdict"],
            "confirmed": str(bool(self.plan.config.confirm.folds)).lower(),
            "test_openings": str(result["test_openings"]),
        }
        self.tracker.finish("FINISHED" if exported else "FAILED", finish.tracked_metrics(result), tags)

    def _safely(self, call: Callable[[], object], rest: str) -> None:
        """Do it, unless the store has failed before; `rest` says what follows if it fails now."""
        if self.owed:
            return
        try:
            with tracking.patient():
                call()
        except Exception as failure:  # whatever MLflow or its database raise
            log.warning("tracking failed", exc_info=True)
            self.owed = True
            why = f"tracking at {tracking.shown(self.uri)} failed ({tracking.plainly(failure)})"
            self.callback.on_tracking_failure(f"{why}{rest}")
