"""A search's tracking: a process of its own sends what the journal holds, and what it owes can be sent later."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from idat_tune import tasks, tracking
from idat_tune.errors import BadInput, TrackingFailed
from idat_tune.journal import Journal, TrialRecord
from idat_tune.journal.state import TRACKED
from idat_tune.metrics import EpochMetrics
from idat_tune.search.callback import LOG, Callback
from idat_tune.search.holding import locked
from idat_tune.search.manifest import JOURNAL, Manifest, of_folder
from idat_tune.search.plan import Job, Plan

AWAY, BACK = "away", "back"
LISTEN_EVERY = 0.5  # seconds
WHEN_CUT_OFF = 5.0  # that what was told to stop takes for it at most


def described(folder: Path, content: Mapping[str, Any]) -> tracking.Search:
    """A search as its manifest has it."""
    space, task = content["space"], content["task"]
    params = {"task": task, "space": space["name"], "seed": content["seed"]}
    fixed = {f"fixed.{key}": value for key, value in space["fixed"].items()}
    tags = {"data_hash": content["data_hash"], **content.get("origin", {})}
    with suppress(BadInput):  # of a task that is not known here any more
        tags["group"] = tasks.get(task).group
    every = {key: str(value) for key, value in {**params, **fixed}.items()}
    out, place = folder.parent.absolute(), content.get("place", {})
    if place and place["store"] != tracking.named(out):  # where its ids mean nothing
        place = {what: given for what, given in place.items() if what == "experiment"}
    always = tuple(key for key, domain in space["params"].items() if not _is_conditional(domain))
    known = (folder.name, task, content["search_id"], content["data_hash"])
    return tracking.Search(str(out), *known, every, tags, place, tuple(space["params"]), always)


def _is_conditional(domain: Any) -> bool:
    return isinstance(domain, list) or bool({"when", "unless"} & set(domain))


class Tracked:
    """The tracking of one search: nothing here waits for the store before the search is over."""

    def __init__(self, plan: Plan, journal: Journal, manifest: Manifest, callback: Callback):
        self.journal = journal
        self.callback = callback
        self.search = described(plan.folder, manifest.content)
        self.uri = tracking.uri(plan.out)
        self.store = tracking.named(plan.out)
        self.link: tracking.Link | None = None
        self.written = 0  # runs that were brought to their end, once all is sent
        self._away = ""  # why, while it is
        self._told: list[str] = []  # what was said, each at most once
        self._listened = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """What was not closed before is left as it is: nothing of it was begun."""
        if self.link:
            self.link.kill()
            self.link = None

    def start(self) -> None:
        """Start sending; takes milliseconds."""
        with (self.search.folder / LOG).open("ab") as said:
            local = tracking.is_file(self.uri)  # for a store that is none, silence soon means that it is away
            self.link = tracking.Link(self.search, self.journal.path, self.journal.state.parent_run, said, local)

    def log_start(self, job: Job, began: float) -> None:
        """A trial begins, at that Unix time."""
        about = {"stage": job.stage, "arms": job.arms, "config": job.config.flat(), "began": began}
        self._tell({"trial": job.id, "begun": {**about, "contender": job.contender, "fold": job.fold}})

    def log_epoch(self, trial: str, set_up_seconds: float, epoch: EpochMetrics) -> None:
        """A running trial got through an epoch."""
        self._tell({"trial": trial, "set_up_seconds": set_up_seconds, "epoch": asdict(epoch)})

    def log_trial(self, record: TrialRecord) -> None:
        """A trial is in the journal, from where it is sent."""
        self._listen()

    def _tell(self, message: Mapping[str, Any]) -> None:
        if self.link:
            self.link.tell(message)
            self._listen()

    def _listen(self) -> None:
        if self.link and time.monotonic() - self._listened > LISTEN_EVERY:
            self._listened = time.monotonic()
            self._take(self.link.heard())

    def _take(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            if "away" in message:
                self._away = message["away"]
                if self.owed and AWAY not in self._told:
                    rest = f"the search goes on, and what is owed is sent when it is back, or by {self._later}"
                    self._say(AWAY, f"is away ({self._away}); {rest}")
            if "back" in message:
                self._away = ""
                if self._told == [AWAY]:
                    self._say(BACK, "is back, and gets what it lacks")
            if "run" in message and message["run"] != self.journal.state.parent_run:
                self.journal.decide(TRACKED, run=message["run"])
            if "whole" in message:
                self.written = message["written"]
                if self.owed or message["whole"] != self.journal.state.parent_run:
                    self.journal.decide(TRACKED, run=message["whole"], whole=self.store)

    @property
    def owed(self) -> bool:
        """Whether the store may lack something that the journal holds."""
        return self.journal.state.whole_at != self.store

    @property
    def _later(self) -> str:
        return f"`idat-tune track {self.search.name}`"

    def _say(self, what: str, rest: str) -> None:
        self._told.append(what)
        tell = self.callback.on_tracking_back if what == BACK else self.callback.on_tracking_failure
        tell(f"tracking at {tracking.shown(self.uri)} {rest}")

    def close(self, most: float | None = None) -> None:
        """Send the rest of what the journal holds, as long as the store takes it; what is owed then is told."""
        if self.link is None:
            return
        link, self.link = self.link, None
        self._take(link.close() if most is None else link.close(most))
        if self.owed and self._told[-1:] != [AWAY]:
            self._say(AWAY, f"is away ({self._away or 'no answer in time'}); what is owed is sent by {self._later}")

    def complete(self) -> None:
        """Send all of a finished search that the store does not have: it was lost, or could not be reached."""
        self.start()
        self.close()
        if self.written:
            self.callback.on_made_again(f"the runs in {tracking.shown(self.uri)}")


def track(folder: Path) -> dict[str, Any]:
    """Send what the tracking store lacks of a search that nobody runs, be it all of it.

    Returns:
        `name`, `tracking_uri`, and how many `runs` were sent: made, or brought to their end.

    Raises:
        BadInput: there is no search, or it is running.
        TrackingFailed: the store is away.
    """
    search = described(folder.absolute(), of_folder(folder))
    with locked(folder):
        journal = Journal(folder / JOURNAL)
        out = folder.absolute().parent
        uri, state = tracking.uri(out), journal.state
        runs = 0
        if state.first is not None:
            try:
                with tracking.patient():
                    sent = tracking.send_all(search, journal.path, state.parent_run)
            except Exception as failure:  # whatever MLflow or its database raise
                raise TrackingFailed(
                    f"tracking at {tracking.shown(uri)} is away ({tracking.plainly(failure)}); nothing is lost: the "
                    "same command sends it later"
                ) from failure
            runs = sent.written
            if state.whole_at != tracking.named(out) or state.parent_run != sent.run:
                journal.decide(TRACKED, run=sent.run, whole=tracking.named(out))
    return {"name": folder.name, "tracking_uri": uri, "runs": runs}
