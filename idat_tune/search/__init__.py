"""A search: explore with Optuna under Ray Tune, confirm the best, train the winner on everything, test it once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from idat_tune import data, portfolio, tasks, tracking
from idat_tune import space as spaces
from idat_tune.backbones import EMBEDDED, RANDOM
from idat_tune.errors import Interrupted
from idat_tune.search.address import resolved
from idat_tune.search.listener import LOG, Listener
from idat_tune.search.manifest import begun, check_resumable, check_writable
from idat_tune.search.plan import Plan
from idat_tune.search.request import FOLDS, HALVING, TOP_K, TPE, Resources
from idat_tune.space import Space

__all__ = [
    "LOG",
    "Interrupted",
    "Listener",
    "Plan",
    "Resources",
    "estimate",
    "estimate_searches",
    "plan_search",
    "run_searches",
    "search",
]

TRIALS = 32


def search(
    task: str,
    *,
    space: str | Path | Space | None = None,
    trials: int = TRIALS,
    hours: float | None = None,
    gpu_hours: float | None = None,
    patience: int | None = None,
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    seeds: int = 3,
    top_k: int = TOP_K,
    folds: int = FOLDS,
    reopen_test: bool = False,
    sampler: str = TPE,
    stopping: str = HALVING,
    gpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
    stacked: int = 1,
    address: str | None = None,
    out: str | Path = "runs",
    name: str | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Search the best config of a task; the same `name` again resumes.

    Args:
        task: name of a task.
        space: a space, its name or its YAML file; unless given `embedded` for an embedded student, else `idat`.
        trials: how many to explore, arms (default, alone, no_distill) included; the arms always run.
        hours: of exploring, after which no new trial is proposed; what follows exploring comes on top.
        gpu_hours: the same, summed over the GPUs that explored trials take.
        patience: ends exploring after so many trials in a row that brought nothing beyond the noise; see
            `budget.longest_without_gain`.
        fixed: dotted keys held at a value for all trials, such as `{"epochs": 20}`.
        seed: of the sampler and of every explored run.
        seeds: runs of the winner in the final run.
        top_k: best explored configs that are confirmed, beside the arms.
        folds: splits that they are confirmed on; 0 leaves confirming out, and the winner is marked as unconfirmed.
        reopen_test: go on although the test split was opened before, and open it once more; recorded.
        sampler: what proposes trials: tpe, random, grid or gp.
        stopping: which of them end early: halving, median or none.
        gpus_per_trial: fraction of a GPU that a trial takes; 1 where there are GPUs, unless given.
        max_concurrent: trials at once; as many as cores or GPUs unless given.
        stacked: an experiment: so many trials at once in every process, where those of one shape train as one.
        address: of a Ray cluster (HOST:PORT, or auto); unless given, Ray is started on this machine, or, where this
            process has a Ray session already, that one is used and left as it is.
        out: folder of all searches and of the tracking store.
        name: of the search and its folder; `<task>-<number>` unless given.
        listener: hears of every trial and epoch.

    Returns:
        What `idat-tune search --json` prints; see `finish.result`.

    Raises:
        BadInput: before anything was started, whatever is wrong with the request.
        Interrupted: by Ctrl-C, SIGTERM or SIGHUP where this is the main thread; the same call resumes.
    """
    plan = plan_search(
        task,
        space=space,
        trials=trials,
        fixed=fixed or {},
        seed=seed,
        seeds=seeds,
        top_k=top_k,
        folds=folds,
        reopen_test=reopen_test,
        out=Path(out),
        name=name,
        sampler=sampler,
        stopping=stopping,
    )
    resources = Resources(hours, gpus_per_trial, max_concurrent, address, gpu_hours, patience, stacked)
    (result,) = run_searches([plan], resources, lambda plan: listener or Listener())
    return result


def estimate(
    plan: Plan,
    resources: Resources = Resources(),  # noqa: B008 - frozen
    price_per_hour: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """What a search will cost: real steps are measured on the workers it would have, the rest is foreseen.

    Takes about half a minute, starts Ray for it, and writes nothing. On a cluster the workers are the cluster's own.

    Args:
        plan: of `plan_search`.
        resources: where it would run. Patience cannot be foreseen: it only makes a search cheaper.
        price_per_hour: of a GPU where trials take GPUs, else of the machine.
        tell: called with what is done next, and every ten seconds with how far it is.

    Returns:
        Among others `hours` of wall time, `gpu_hours`, `epochs` by stage, `start_seconds`, `price` with `total` and
        `per` (None without a price), `memory` with `per_trial_gb` (1e9 bytes), whether it is `measured` or predicted
        from shapes, and `trials_per_gpu`.

    Raises:
        BadInput: there is no GPU whose hours could be counted, or a backbone cannot be built.
    """
    (found,) = estimate_searches([plan], resources, price_per_hour, tell)
    return found


def estimate_searches(
    plans: Sequence[Plan],
    resources: Resources,
    price_per_hour: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[dict[str, Any]]:
    """What `estimate` returns, for each of several searches one after the other; the first one pays the start."""
    resources = _reachable(resources)
    from idat_tune.search.rehearsal import estimates  # as below

    yield from estimates(plans, resources, price_per_hour, tell)


def plan_search(
    task: str,
    *,
    space: str | Path | Space | None,
    trials: int,
    fixed: Mapping[str, Any],
    seed: int,
    seeds: int,
    out: Path,
    name: str | None,
    top_k: int = TOP_K,
    folds: int = FOLDS,
    reopen_test: bool = False,
    sampler: str = TPE,
    stopping: str = HALVING,
) -> Plan:
    """The checked plan of a search; writes nothing, and loads torch only to see which teachers of `idat` are there.

    Raises:
        BadInput: an unknown task, a faulty space, a number out of range, data that is not there, or a
            MLFLOW_TRACKING_URI that can hold no runs.
    """
    known = tasks.get(task)
    own_space = space is None
    tracking.check()
    if not isinstance(space, Space):
        space = spaces.load(_own_space(fixed.get("student", known.student)) if space is None else str(space))
    plan = Plan.checked(
        name=_free_name(out, known.name) if name is None else name,
        task=known.name,
        space=space,
        fixed=fixed,
        trials=trials,
        seed=seed,
        final_seeds=seeds,
        out=out,
        top_k=top_k,
        folds=folds,
        reopen_test=reopen_test,
        sampler=sampler,
        stopping=stopping,
    )
    data.require(known.name)
    before = begun(plan)
    if own_space:  # which nobody asked for as it is
        plan = plan.without_absent_teachers(before.get("left_out"))
    check_writable(plan.out)
    check_resumable(plan, data.content_hash(known.name) if before else "")
    return plan.hinted({f"portfolio-{index}": point for index, point in enumerate(portfolio.starts(known.name))})


def _own_space(student: object) -> str:
    """The space whose teachers go with a student."""
    return "embedded" if str(student).removeprefix(RANDOM) in EMBEDDED else "idat"


def _free_name(out: Path, task: str) -> str:
    return next(name for number in range(1, 10**9) if not (out / (name := f"{task}-{number}")).exists())


def run_searches(
    plans: Sequence[Plan], resources: Resources, listen: Callable[[Plan], Listener]
) -> Iterator[dict[str, Any]]:
    """Carry out plans one after the other, or go on with them where they were left.

    Args:
        plans: of `plan_search`; they share one Ray session.
        resources: where and how long they may run.
        listen: who hears of a plan's trials.

    Yields:
        For each plan what `search` returns.

    Raises:
        BadInput: a folder is in use, or holds a search that was begun otherwise.
        Interrupted: by Ctrl-C, SIGTERM or SIGHUP where this is the main thread; the same call resumes.
    """
    resources = _reachable(resources)
    from idat_tune.search.driver import drive  # Ray is imported no sooner than a plan stands

    yield from drive(plans, resources, listen)


def _reachable(resources: Resources) -> Resources:
    """With the address of a cluster that answers, or none."""
    return replace(resources, address=resolved(resources.address))
