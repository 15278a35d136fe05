"""Runs a plan: holds its folder, starts Ray, lets the conductor propose, and gathers what came out."""

import errno
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

from ray import tune

from idat_tune import data, model, tracking
from idat_tune.data import Images
from idat_tune.errors import DiskFull, Interrupted, TrackingFailed
from idat_tune.interrupts import Interrupts, interruptible
from idat_tune.journal import Journal
from idat_tune.search import finish
from idat_tune.search.budget import Budget
from idat_tune.search.cluster import Session, log_to, remove_tune_files
from idat_tune.search.conductor import Conductor
from idat_tune.search.listener import LOG, Listener
from idat_tune.search.manifest import Manifest, locked
from idat_tune.search.patience import Watch, setting
from idat_tune.search.plan import Plan, Resources
from idat_tune.search.workers import Hosts, Workers, workers
from idat_tune.tasks import Task
from idat_tune.tracking import Tracker

MOST_TEXT = 500  # characters of a reason in a tag
JOURNAL = "journal.jsonl"  # in the search folder
MOST_HINTS = 5  # as many as a portfolio has: the gain of more is small
MANY = 1_000_000  # the conductor, not Tune, says when there are no more trials


def drive(plans: Iterable[Plan], resources: Resources, listen: Callable[[Plan], Listener]) -> Iterator[dict[str, Any]]:
    """Carry out plans one after the other, each from where its journal ends; yields the result of each.

    What won on one task is tried early on the next.
    """
    winners: dict[Task, dict[str, Any]] = {}  # newest first
    with closing(Session(resources)) as session:
        with interruptible() as session.interrupts:
            setting()  # of patience: refused before anything is written
            session.prepare()
        for asked in plans:
            plan = asked.hinted(_nearest(winners, asked))
            if not (plan.folder / JOURNAL).exists():
                # Before anything is written; and once, instead of by all workers at the same time.
                for name in plan.backbones():
                    model.fetch(name)
            with locked(plan.folder):
                manifest = Manifest(plan, data.content_hash(plan.task.name))
                plan = manifest.hinted(plan)
                found = manifest.content["result"] or _search(plan, resources, session, manifest, listen(plan))
                if found["winner"]:
                    winners = {plan.task: found["winner"]["config"], **winners}
                yield found


def _nearest(winners: Mapping[Task, Mapping[str, Any]], plan: Plan) -> dict[str, Mapping[str, Any]]:
    """What won on a few other tasks, by trial id: those of the same group first."""
    others = sorted(winners, key=lambda task: task.group != plan.task.group)
    return {f"from-{task.name}": winners[task] for task in others[:MOST_HINTS]}


def _search(
    plan: Plan, resources: Resources, session: Session, manifest: Manifest, listener: Listener
) -> dict[str, Any]:
    began = time.perf_counter()
    listener.search_opened(plan)
    log_to(plan.folder / LOG)
    journal = Journal(plan.folder / JOURNAL)
    session.lost = listener.ray_lost
    with interruptible() as session.interrupts, _told_to_stop(plan, session.interrupts):
        # A new tracking store takes seconds to lay out, and so does Ray to start: both at once. As a daemon, so that
        # Ctrl-C need not wait for it.
        store = threading.Thread(target=tracking.lay_out, args=(plan.out,), daemon=True)
        store.start()
        room = session.start()
        if session.remark:
            listener.remarked(session.remark)
            session.remark = None
        store.join()
        tracker = Tracker(plan.out, plan.task.name)
        with _closing(plan, tracker, journal, listener, session.interrupts):
            open_parent(tracker, plan, journal, manifest)
            budget = Budget(plan, resources, journal, manifest, room.gpus_per_trial)
            manifest.set("stacked", max(room.stacked, manifest.content["stacked"]))
            conductor = Conductor(plan, journal, manifest, tracker, listener, budget, session.interrupts)
            listener.search_started(plan, room.trials, journal.records, budget)
            with workers(visible_images(plan), plan.trials, room) as made:
                conductor.place = made.place
                _tune(plan, conductor, made, room.trials)
            if session.interrupts.asked or not conductor.finished:
                raise KeyboardInterrupt
            journal.write_tables(plan.folder)
            return _gather(conductor, plan, journal, manifest, tracker, time.perf_counter() - began)


def visible_images(plan: Plan) -> dict[str, Images]:
    """The splits that trials may see; the test split is not among them."""
    spec = model.input_spec(plan.config_of({}).student)
    return {
        split: data.load(plan.task.name, split, spec.size, spec.channels, spec.interpolation)
        for split in ("train", "val")
    }


def open_parent(tracker: Tracker, plan: Plan, journal: Journal, manifest: Manifest) -> None:
    """Open the parent run, and complete what a crash left of its children."""
    params = {
        "task": plan.task.name,
        "space": plan.space.name,
        "trials": plan.trials,
        "seed": plan.seed,
        **{f"fixed.{key}": value for key, value in plan.space.fixed},
    }
    tags = {
        "group": plan.task.group,
        "data_hash": manifest.content["data_hash"],
        "search_id": manifest.content["search_id"],
    }
    manifest.set("parent_run", tracker.start(plan.name, params, tags, manifest.content["parent_run"]))
    for record in journal.records:
        tracker.log_trial(record)


@contextmanager
def _told_to_stop(plan: Plan, interrupts: Interrupts) -> Iterator[None]:
    """What was told to stop ends as such, whatever came of it on the way: Ray's processes may have been told too."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as failure:
        if not (interrupts.asked or isinstance(failure, KeyboardInterrupt)):
            raise
        raise Interrupted(f"search '{plan.name}' was interrupted; what was finished is kept") from None


@contextmanager
def _closing(
    plan: Plan, tracker: Tracker, journal: Journal, listener: Listener, interrupts: Interrupts
) -> Iterator[None]:
    """No parent run stays open when the search is cut off or fails, and the tables are those of the journal."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as failure:
        if interrupts.asked or isinstance(failure, KeyboardInterrupt):
            listener.interrupted()
            journal.write_tables(plan.folder)
            with suppress(Exception):  # the store may be out of reach; a resume sees to it
                tracker.finish("KILLED", {}, {"status": "interrupted"})
            raise
        with suppress(Exception):  # the tracking may be what failed
            tracker.finish("FAILED", {}, {"status": "failed", "reason": str(failure)[:MOST_TEXT]})
        if _disk_is_full(failure):
            raise DiskFull(
                f"the disk that holds {plan.folder} is full; make room and give the same command again: "
                "what was finished is kept"
            ) from failure
        if tracking.is_tracking(failure):
            raise TrackingFailed(
                f"tracking at {tracker.uri} failed ({failure}); what was finished is kept in {plan.folder}: give the "
                "same command again once it can be reached"
            ) from failure
        raise


def _disk_is_full(failure: BaseException | None) -> bool:
    """Whether a failure, or one that it came from, is for want of room."""
    while failure is not None:
        full = isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or any(words in str(failure) for words in ("No space left on device", "disk is full")):
            return True
        failure = failure.__cause__ or failure.__context__
    return False


def _tune(plan: Plan, conductor: Conductor, made: Workers | Hosts, at_once: int) -> None:
    tuner = tune.Tuner(
        made.trainable,
        tune_config=tune.TuneConfig(
            num_samples=MANY,
            search_alg=conductor,
            scheduler=conductor.scheduler,
            # Without the limit Tune puts all trials on one reused worker.
            max_concurrent_trials=at_once,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(plan.folder),
            verbose=0,
            callbacks=[Watch(conductor, made)],
        ),
    )
    try:
        tuner.fit()
    finally:
        remove_tune_files(plan.folder / "tune")


def _trial_name(trial: Any) -> str:
    return trial.config["id"]


def _gather(
    conductor: Conductor, plan: Plan, journal: Journal, manifest: Manifest, tracker: Tracker, seconds: float
) -> dict[str, Any]:
    exported = finish.export_winner(plan, journal, manifest)
    conductor.track_the_rest()
    result = finish.result(plan, journal, manifest, tracker.uri, seconds)
    if exported:
        tracker.log_folder(plan.folder / finish.BEST, finish.BEST)
    tracker.finish(
        "FINISHED" if exported else "FAILED",
        finish.tracked_metrics(result),
        {
            "status": "finished" if exported else "failed",
            "verdict": result["verdict"],
            "confirmed": str(bool(plan.folds)).lower(),
            "test_openings": str(result["test_openings"]),
        },
    )
    if exported:  # what failed is tried again when the same command is given again
        manifest.set("result", result)
    return result
