"""Runs a plan: holds its folder, starts Ray, lets the searcher propose, and gathers what came out."""

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import ray
from ray import tune

from idat_tune import data, model
from idat_tune.data import Images
from idat_tune.errors import DiskFull, IdatError, Interrupted
from idat_tune.interrupts import Interrupts, interruptible
from idat_tune.journal import FAILED, FINAL, TEST, Journal
from idat_tune.journal.state import BEGUN, BROKE, DONE, INTERRUPTED, LOST, STARTED
from idat_tune.search import finish, precision
from idat_tune.search.budget import Budget
from idat_tune.search.callback import LOG, Callback, Callbacks
from idat_tune.search.checks import check_devices, check_models, check_weights, held_weights
from idat_tune.search.cluster import Session, log_to, remove_tune_files
from idat_tune.search.config import FILE, SearchConfig, write
from idat_tune.search.holding import locked
from idat_tune.search.manifest import JOURNAL, Manifest, check_resumable
from idat_tune.search.manifest import NAME as MANIFEST
from idat_tune.search.mend import whole_again
from idat_tune.search.patience import Watch, setting
from idat_tune.search.plan import Plan
from idat_tune.search.searcher import StagedSearcher
from idat_tune.search.stages import is_cut_short
from idat_tune.search.storage import copied
from idat_tune.search.tracked import WHEN_CUT_OFF, Tracked
from idat_tune.search.trained import lost_finals
from idat_tune.tasks import Task
from idat_tune.worker.pool import Pool
from idat_tune.worker.seat import Seat
from idat_tune.worker.supply import Wanted, wanted

MOST_TEXT = 500  # characters of a reason in a tag
MOST_HINTS = 5  # as many as a portfolio has: the gain of more is small
MANY = 1_000_000  # the searcher, not Tune, says when there are no more trials


def drive(
    plans: Iterable[Plan],
    shared: SearchConfig,
    callbacks: Callable[[Plan], Iterable[Callback]],
    winners: Mapping[Task, Mapping[str, Any]] | None = None,
    sharers: Callable[[], int] | None = None,
) -> Iterator[dict[str, Any]]:
    """Carry out plans one after the other, each from where its journal ends; yields the result of each.

    What won on one task is tried early on the next.

    Args:
        plans: the searches.
        shared: has the resources of all of them.
        callbacks: who is told of a plan's trials.
        winners: configs that won on other tasks before, newest first.
        sharers: how many drivers share these resources now, this one included.
    """
    winners = dict(winners or {})
    plans = list(plans)
    with closing(Session(shared, sharers)) as session:
        with interruptible() as session.interrupts:
            weights_of_all = checked(plans, session)
        for asked, identities in zip(plans, weights_of_all, strict=True):
            plan = asked if asked.config.hints is not None else asked.hinted(_nearest(winners, asked))
            with locked(plan.folder):
                check_resumable(plan, data.content_hash(plan.task.name))  # once more, as it is held now
                journal = Journal(plan.folder / JOURNAL)
                journal.make()  # first: a manifest alone is that of a search that lost its journal
                manifest = Manifest(plan, data.content_hash(plan.task.name), identities)
                plan = manifest.hinted(plan)
                asked_again = plan.as_config()
                plan = held(plan, journal)
                callback = Callbacks(callbacks(plan))
                callback.on_search_open(plan)
                log_to(plan.folder / LOG)
                with copied(plan.config.storage, plan.folder, callback.on_remark):
                    found = whole_again(plan, journal, manifest, callback)
                    if found is None:
                        check_weights(plan, manifest.content["weights"])  # a finished search may have to train again
                        write(plan.folder / FILE, asked_again)
                        found = _search(plan, session, manifest, journal, callback)
                callback.on_search_end(found)
                if found["winner"]:
                    winners = {plan.task: found["winner"]["config"], **winners}
                yield found


def checked(plans: Sequence[Plan], session: Session) -> list[dict[str, dict[str, Any]]]:
    """Get a session ready; returns which weights the backbones of each plan have.

    What is refused is so before anything is written, and before the first of several searches takes hours.

    Raises:
        BadInput: whatever cannot work.
    """
    setting()  # of patience
    session.prepare()
    check_devices(plans)
    for plan in plans:
        if not (plan.folder / MANIFEST).exists():
            check_models(plan)
    return [held_weights(plan) for plan in plans]


def begin(plan: Plan, journal: Journal) -> None:
    """Write down what is asked for, and what of it must be trained once more."""
    explore, final = plan.config.explore, plan.config.final
    asked = {"sampler": explore.sampler, "stopping": explore.stopping, "reopen_test": final.reopen_test}
    journal.decide(BEGUN, trials=explore.trials, seeds=final.seeds, **asked)
    lost = lost_finals(plan, journal)
    if lost or journal.state.lost:
        journal.decide(LOST, trials=lost)


def held(plan: Plan, journal: Journal) -> Plan:
    """The plan in the search's own precision, and with no fewer seeds than those that its test was opened for."""
    seeds = journal.state.seeds if journal.state.openings else 0
    if seeds > plan.config.final.seeds:
        plan = replace(plan, config=plan.config.updated({"final.seeds": seeds}))
    return precision.held(plan, journal)


def _nearest(winners: Mapping[Task, Mapping[str, Any]], plan: Plan) -> dict[str, Mapping[str, Any]]:
    """What won on a few other tasks, by trial id: those of the same group first."""
    others = sorted(winners, key=lambda task: task.group != plan.task.group)
    return {f"from-{task.name}": winners[task] for task in others[:MOST_HINTS]}


def _search(plan: Plan, session: Session, manifest: Manifest, journal: Journal, callback: Callback) -> dict[str, Any]:
    began = time.perf_counter()
    session.lost = callback.on_ray_lost
    sending = Tracked(plan, journal, manifest, callback)
    with interruptible() as session.interrupts, _told_to_stop(plan, session.interrupts), sending as tracked:
        room = session.start(plan)
        begin(plan, journal)  # no sooner: what is told to stop before it has asked for nothing
        while session.remarks:
            callback.on_remark(session.remarks.pop(0))
        settled = precision.settled(plan, journal, room)
        budget = Budget(plan, journal, room.gpus_per_trial)
        with _closing(plan, tracked, journal, callback, session.interrupts, budget):
            began_with = {"gpus_per_trial": room.gpus_per_trial, "stacked": room.stacked, "at_once": room.trials}
            journal.decide(STARTED, **began_with, precision=settled)
            plan = held(plan, journal)
            images, said = visible_images(plan), callback.on_remark
            supplied = from_here(plan, manifest.content["weights"], session.joined)
            workers = Pool(images, room.processes, room.gpus, room.stacked, said, supplied, session.limit(room))
            with closing(workers) as pool:
                searcher = StagedSearcher(plan, journal, manifest, tracked, callback, pool, budget, session.interrupts)
                callback.on_search_start(plan, room.trials, journal.records, budget)
                _tune(plan, searcher, room.most)
            if session.interrupts.asked:
                raise KeyboardInterrupt
            if not searcher.finished:
                raise IdatError(f"Ray Tune ended before the search was through; {plan.folder / LOG} may say why")
            journal.write_tables(plan.folder)
            return _gather(plan, journal, manifest, tracked, callback, time.perf_counter() - began)


def from_here(plan: Plan, known: Mapping[str, Mapping[str, Any]], joined: bool) -> Wanted | None:
    """What other machines may have to fetch from this one; None where there are none, and none can come.

    `joined`: whether Ray was there before, so that machines may yet come.
    """
    alone = sum(node["Alive"] for node in ray.nodes()) == 1 and not joined
    return None if alone else wanted(plan.task.name, data.content_hash(plan.task.name), known)


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
            tracked.close(WHEN_CUT_OFF)
            raise
        with suppress(OSError):  # for want of room, which is told below
            journal.decide(BROKE, reason=str(failure)[:MOST_TEXT], result=None)
        tracked.close(WHEN_CUT_OFF)
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
        tune.with_resources(Seat, {"cpu": 0, here: 0.001}),
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
    except Exception as failure:
        raise searcher.failure or failure from None  # Tune asks on after one, and fails at what comes of that
    finally:
        remove_tune_files(plan.folder / "tune")
    if searcher.failure:
        raise searcher.failure


def _trial_name(trial: Any) -> str:
    return trial.config["id"]


def _gather(
    plan: Plan, journal: Journal, manifest: Manifest, tracked: Tracked, callback: Callback, seconds: float
) -> dict[str, Any]:
    tested = not is_cut_short(journal)  # this time, too, if the test was opened before
    finished = tested and finish.export_winner(plan, journal, manifest)
    known = journal.state.result  # of a finished search that had lost its student
    found = known or finish.kept(finish.result(plan, journal, tracked.uri, seconds))
    # Before it is said that all is done: then it is sent, and the page with it.
    finish.write_page(plan, journal, manifest, found, callback.on_remark)
    if finished:
        journal.decide(DONE, result=found)
    else:
        reason = _unfinished(journal, tested) if journal.state.winner else found["verdict"]
        journal.decide(BROKE, reason=reason, result=found)
        if journal.state.winner:
            callback.on_remark(reason)
    tracked.close()
    return finish.placed(found, plan, tracked.uri, finished)


def _unfinished(journal: Journal, tested: bool) -> str:
    failed = [r for r in journal.records if r.status == FAILED and r.stage == (FINAL if tested else TEST)]
    why = f" ({failed[-1].id}: {failed[-1].reason})" if failed else ""
    what = "the student could not be exported" if tested else "the test could not be evaluated"
    return f"{what}{why}; the same command tries it again"
