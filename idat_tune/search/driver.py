"""Runs a plan: holds its folder, starts Ray, lets the searcher propose, and gathers what came out."""

import errno
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import ray
from ray import tune

from idat_tune import data, model, weights
from idat_tune.backbones import NO_TEACHER
from idat_tune.data import Images
from idat_tune.engine.devices import choose_device
from idat_tune.errors import BadInput, DiskFull, Interrupted
from idat_tune.interrupts import Interrupts, interruptible
from idat_tune.journal import Journal
from idat_tune.journal.state import BEGUN, DONE, INTERRUPTED, LOST, STARTED
from idat_tune.search import finish, precision
from idat_tune.search.budget import Budget
from idat_tune.search.callback import LOG, Callback, Callbacks
from idat_tune.search.cluster import Session, log_to, remove_tune_files
from idat_tune.search.config import FILE, SearchConfig, write
from idat_tune.search.manifest import JOURNAL, Manifest, begun, check_resumable, is_finished, locked
from idat_tune.search.mend import whole_again
from idat_tune.search.patience import Watch, setting
from idat_tune.search.plan import Plan
from idat_tune.search.searcher import StagedSearcher
from idat_tune.search.tracked import Tracked
from idat_tune.search.trained import lost_finals
from idat_tune.tasks import Task
from idat_tune.worker.pool import Pool
from idat_tune.worker.seat import CPUS, Seat

MOST_TEXT = 500  # characters of a reason in a tag
MOST_HINTS = 5  # as many as a portfolio has: the gain of more is small
MANY = 1_000_000  # the searcher, not Tune, says when there are no more trials


def drive(
    plans: Iterable[Plan], shared: SearchConfig, callbacks: Callable[[Plan], Iterable[Callback]]
) -> Iterator[dict[str, Any]]:
    """Carry out plans one after the other, each from where its journal ends; yields the result of each.

    What won on one task is tried early on the next. `shared` has the resources of all of them.
    """
    winners: dict[Task, dict[str, Any]] = {}  # newest first
    plans = list(plans)
    with closing(Session(shared)) as session:
        with interruptible() as session.interrupts:
            # What is refused is so before anything is written, and before the first of several searches takes hours.
            setting()  # of patience
            session.prepare()
            check_devices(plans)
            for plan in plans:
                if not (plan.folder / JOURNAL).exists():
                    check_models(plan)
            held = [held_weights(plan) for plan in plans]
        for asked, identities in zip(plans, held, strict=True):
            plan = asked if asked.config.hints is not None else asked.hinted(_nearest(winners, asked))
            with locked(plan.folder):
                check_resumable(plan, data.content_hash(plan.task.name))  # once more, as it is held now
                journal = Journal(plan.folder / JOURNAL)
                journal.make()  # first: a manifest alone is that of a search that lost its journal
                manifest = Manifest(plan, data.content_hash(plan.task.name), identities)
                plan = manifest.hinted(plan)
                write(plan.folder / FILE, plan.as_config())
                plan = precision.held(plan, journal)
                callback = Callbacks(callbacks(plan))
                callback.on_search_open(plan)
                log_to(plan.folder / LOG)
                found = whole_again(plan, journal, manifest, callback)
                if found is None:
                    _check_weights(plan, manifest.content["weights"])  # a finished search may have to train again
                    begin(plan, journal)
                    found = _search(plan, session, manifest, journal, callback)
                callback.on_search_end(found)
                if found["winner"]:
                    winners = {plan.task: found["winner"]["config"], **winners}
                yield found


def begin(plan: Plan, journal: Journal) -> None:
    """Write down what is asked for, and what of it must be trained once more."""
    explore, final = plan.config.explore, plan.config.final
    asked = {"sampler": explore.sampler, "stopping": explore.stopping, "reopen_test": final.reopen_test}
    journal.decide(BEGUN, trials=explore.trials, seeds=final.seeds, **asked)
    lost = lost_finals(plan, journal)
    if lost:
        journal.decide(LOST, trials=lost)


def check_devices(plans: Iterable[Plan]) -> None:
    """Make sure that the device of the trials to come is on this machine, if that is where Ray is yet to be started.

    Of a Ray that is there already only its workers know.

    Raises:
        BadInput: naming it.
    """
    if not ray.is_initialized():
        to_come = [plan for plan in plans if not is_finished(plan)]
        for name in {plan.config_of({}).device for plan in to_come} - {"auto"}:
            choose_device(name)


def check_models(plan: Plan) -> None:
    """Make sure that whatever a trial may use can be built and has weights here; of those on the hub they are fetched.

    Before anything is written; and once, instead of by all workers at the same time.

    Raises:
        BadInput: naming what cannot; where the space alone asks for it, it says so.
    """
    default = plan.config_of({})
    model.check(default)
    for config in plan.pairs():
        try:
            model.check(config)
        except BadInput as failure:
            if config.teacher in (NO_TEACHER, default.teacher) or config.student != default.student:
                raise
            raise BadInput(
                f"space '{plan.space.name}' wants {config.teacher} as a teacher: {failure}; or hold another with --set "
                f"teacher={default.teacher}, or take it out of a space of your own"
            ) from None


def held_weights(plan: Plan) -> dict[str, dict[str, Any]]:
    """Which weights the backbones of a search have; nothing for one that is finished and only read again.

    Raises:
        BadInput: they cannot be had, or are others than those that the search was begun with.
    """
    if is_finished(plan):
        return {}
    _check_weights(plan, begun(plan).get("weights", {}))
    return {name: weights.identify(name).as_dict() for name in plan.backbones()}


def _check_weights(plan: Plan, known: Mapping[str, Mapping[str, Any]]) -> None:
    for name, held in known.items():
        weights.check_same(name, held, f"search '{plan.name}' was begun with", ", or give a new search another --name")


def _nearest(winners: Mapping[Task, Mapping[str, Any]], plan: Plan) -> dict[str, Mapping[str, Any]]:
    """What won on a few other tasks, by trial id: those of the same group first."""
    others = sorted(winners, key=lambda task: task.group != plan.task.group)
    return {f"from-{task.name}": winners[task] for task in others[:MOST_HINTS]}


def _search(plan: Plan, session: Session, manifest: Manifest, journal: Journal, callback: Callback) -> dict[str, Any]:
    began = time.perf_counter()
    session.lost = callback.on_ray_lost
    with interruptible() as session.interrupts, _told_to_stop(plan, session.interrupts):
        # A new tracking store takes seconds to lay out, and so does Ray to start: both at once. As a daemon, so that
        # Ctrl-C need not wait for it.
        tracked = Tracked(plan, journal, manifest, callback)
        store = threading.Thread(target=tracked.lay_out, daemon=True)
        store.start()
        room = session.start()
        if session.remark:
            callback.on_remark(session.remark)
            session.remark = None
        settled = precision.settled(plan, journal, room)
        store.join()
        budget = Budget(plan, journal, room.gpus_per_trial)
        with _closing(plan, tracked, journal, callback, session.interrupts, budget):
            tracked.open()
            journal.decide(STARTED, gpus_per_trial=room.gpus_per_trial, stacked=room.stacked, precision=settled)
            plan = precision.held(plan, journal)
            images, said = visible_images(plan), callback.on_remark
            with closing(Pool(images, room.processes, room.gpus, room.stacked, said)) as pool:
                searcher = StagedSearcher(plan, journal, manifest, tracked, callback, pool, budget, session.interrupts)
                callback.on_search_start(plan, room.trials, journal.records, budget)
                _tune(plan, searcher, room.trials)
            if session.interrupts.asked or not searcher.finished:
                raise KeyboardInterrupt
            journal.write_tables(plan.folder)
            return _gather(plan, journal, manifest, tracked, time.perf_counter() - began)


def visible_images(plan: Plan) -> dict[str, Images]:
    """The splits that trials may see; the test split is not among them."""
    default = plan.config_of({})
    spec = model.input_spec(default.student, default.image_size)
    return {
        split: data.load(plan.task.name, split, spec.size, spec.channels, spec.interpolation)
        for split in ("train", "val")
    }


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
    plan: Plan, tracked: Tracked, journal: Journal, callback: Callback, interrupts: Interrupts, budget: Budget
) -> Iterator[None]:
    """No parent run stays open when the search is cut off or fails, and the tables are those of the journal."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as failure:
        if interrupts.asked or isinstance(failure, KeyboardInterrupt):
            callback.on_interrupt()
            budget.note(0)
            journal.decide(INTERRUPTED)
            journal.write_tables(plan.folder)
            tracked.cut_off("KILLED", {"status": "interrupted"})
            raise
        tracked.cut_off("FAILED", {"status": "failed", "reason": str(failure)[:MOST_TEXT]})
        if _disk_is_full(failure):
            raise DiskFull(
                f"the disk that holds {plan.folder} is full; make room and give the same command again: "
                "what was finished is kept"
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


def _tune(plan: Plan, searcher: StagedSearcher, at_once: int) -> None:
    here = f"node:{ray.util.get_node_ip_address()}"  # so that no other machine's end is that of a seat
    tuner = tune.Tuner(
        tune.with_resources(Seat, {"cpu": CPUS, here: 0.001}),
        tune_config=tune.TuneConfig(
            num_samples=MANY,
            search_alg=searcher,
            scheduler=searcher.scheduler,
            # Without the limit Tune puts all trials on one reused seat.
            max_concurrent_trials=at_once,
            reuse_actors=True,  # a seat, which is light, but whose process takes a second to start
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(plan.folder),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[Watch(searcher, searcher.pool)],
        ),
    )
    try:
        tuner.fit()
    finally:
        remove_tune_files(plan.folder / "tune")


def _trial_name(trial: Any) -> str:
    return trial.config["id"]


def _gather(plan: Plan, journal: Journal, manifest: Manifest, tracked: Tracked, seconds: float) -> dict[str, Any]:
    exported = finish.export_winner(plan, journal, manifest)
    known = journal.state.result  # of a finished search that had lost its student
    found = known or finish.kept(finish.result(plan, journal, tracked.uri, seconds))
    tracked.finish(found, exported)
    if exported:  # what failed is tried again when the same command is given again
        journal.decide(DONE, result=found)
    return finish.placed(found, plan, tracked.uri)
