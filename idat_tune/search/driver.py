"""Runs a plan: holds its folder, starts Ray, lets the conductor propose, and gathers what came out."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ray import tune

from idat_tune import data, model
from idat_tune.data import Images
from idat_tune.journal import Journal
from idat_tune.search import finish
from idat_tune.search.budget import Budget
from idat_tune.search.cluster import Session, log_to, remove_tune_files
from idat_tune.search.conductor import Conductor
from idat_tune.search.listener import LOG, Interrupted, Listener
from idat_tune.search.manifest import Manifest, locked
from idat_tune.search.plan import Plan, Resources
from idat_tune.tracking import Tracker
from idat_tune.trial import Trial

JOURNAL = "journal.jsonl"  # in the search folder
MANY = 1_000_000  # the conductor, not Tune, says when there are no more trials


def drive(plans: Iterable[Plan], resources: Resources, listen: Callable[[Plan], Listener]) -> Iterator[dict[str, Any]]:
    """Carry out plans one after the other, each from where its journal ends; yields the result of each.

    What won on one task is tried early on the next.
    """
    session = Session(resources)
    winners: dict[str, dict[str, Any]] = {}
    try:
        if resources.gpu_hours is not None:
            session.start()  # before anything is written: it refuses where trials take no GPU
        for asked in plans:
            plan = asked.hinted(winners)
            if not (plan.folder / JOURNAL).exists():
                # Before anything is written; and once, instead of by all workers at the same time.
                for name in plan.backbones():
                    model.fetch(name)
            with locked(plan.folder):
                manifest = Manifest(plan, data.content_hash(plan.task.name))
                found = manifest.content["result"] or _search(plan, resources, session, manifest, listen(plan))
                if found["winner"]:
                    winners = {f"from-{plan.task.name}": found["winner"]["config"], **winners}
                yield found
    finally:
        session.close()


def _search(
    plan: Plan, resources: Resources, session: Session, manifest: Manifest, listener: Listener
) -> dict[str, Any]:
    began = time.perf_counter()
    listener.search_opened(plan)
    log_to(plan.folder / LOG)
    journal = Journal(plan.folder / JOURNAL)
    # A new tracking store takes seconds to lay out, and so does Ray to start: both at once.
    with ThreadPoolExecutor(1) as background:
        tracking = background.submit(_tracker, plan, journal, manifest)
        workers, gpus = session.start()
        tracker = tracking.result()
    with _closing(tracker):
        budget = Budget(plan, resources, journal, manifest, gpus)
        conductor = Conductor(plan, journal, manifest, tracker, listener, budget)
        listener.search_started(plan, workers, journal.records)
        try:
            _tune(plan, conductor, workers, gpus)
        finally:
            journal.write_tables(plan.folder)
        if not conductor.finished:
            raise Interrupted(f"search '{plan.name}' was interrupted; what was finished is kept")
        return _gather(plan, journal, manifest, tracker, time.perf_counter() - began)


def _images(plan: Plan) -> dict[str, Images]:
    """The splits that trials may see; the test split is not among them."""
    spec = model.input_spec(plan.config_of({}).student)
    return {
        split: data.load(plan.task.name, split, spec.size, spec.channels, spec.interpolation)
        for split in ("train", "val")
    }


def _tracker(plan: Plan, journal: Journal, manifest: Manifest) -> Tracker:
    tracker = Tracker(plan.out, plan.task.name)
    params = {
        "task": plan.task.name,
        "space": plan.space.name,
        "trials": plan.trials,
        "seed": plan.seed,
        **{f"fixed.{key}": value for key, value in plan.space.fixed},
    }
    tags = {"group": plan.task.group, "data_hash": manifest.content["data_hash"]}
    manifest.set("parent_run", tracker.start(plan.name, params, tags, manifest.content["parent_run"]))
    for record in journal.records:
        tracker.log_trial(record)
    return tracker


@contextmanager
def _closing(tracker: Tracker) -> Iterator[None]:
    """No parent run stays open when the search is cut off or fails."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        tracker.finish("KILLED", {}, {"status": "interrupted"})
        raise
    except Exception as failure:
        tracker.finish("FAILED", {}, {"status": "failed", "reason": str(failure)})
        raise


def _tune(plan: Plan, conductor: Conductor, workers: int, gpus: float) -> None:
    trainable = tune.with_resources(tune.with_parameters(Trial, images=_images(plan)), {"cpu": 1, "gpu": gpus})
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=MANY,
            search_alg=conductor,
            scheduler=conductor.scheduler,
            # Without the limit Tune puts all trials on one reused worker.
            max_concurrent_trials=workers,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(plan.folder),
            verbose=0,
        ),
    )
    with _terminated_as_interrupted():
        tuner.fit()
    remove_tune_files(plan.folder / "tune")


def _trial_name(trial: Any) -> str:
    return trial.config["id"]


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM takes the way of Ctrl-C, at which Tune returns in good order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _gather(plan: Plan, journal: Journal, manifest: Manifest, tracker: Tracker, seconds: float) -> dict[str, Any]:
    exported = finish.export_winner(plan, journal, manifest)
    result = finish.result(plan, journal, manifest, tracker.uri, seconds)
    if exported:
        tracker.log_folder(plan.folder / finish.BEST, finish.BEST)
    tracker.finish(
        "FINISHED" if exported else "FAILED",
        finish.tracked_metrics(result),
        {"status": "finished" if exported else "failed", "verdict": result["verdict"]},
    )
    if exported:  # what failed is tried again when the same command is given again
        manifest.set("result", result)
    return result
