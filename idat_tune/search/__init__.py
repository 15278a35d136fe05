"""A search: explore with Optuna under Ray Tune, confirm the best, train the winner on everything, test it once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idat_tune import data, portfolio, tasks, tracking
from idat_tune.backbones import EMBEDDED, RANDOM
from idat_tune.errors import Interrupted
from idat_tune.search.address import resolved
from idat_tune.search.callback import LOG, Callback
from idat_tune.search.config import SearchConfig, by_key
from idat_tune.search.manifest import begun, check_resumable, check_writable
from idat_tune.search.plan import Plan
from idat_tune.search.storage import Storage, fetch

__all__ = [
    "LOG",
    "Callback",
    "Interrupted",
    "Plan",
    "SearchConfig",
    "estimate",
    "estimate_searches",
    "plan_search",
    "run_searches",
    "search",
]


def search(what: str | SearchConfig, *, callbacks: Iterable[Callback] = (), **options: Any) -> dict[str, Any]:
    """Search the best config of a task; the same `name` again resumes.

    Args:
        what: name of a task, or a whole SearchConfig.
        callbacks: are told of every trial and epoch, and what else happens; see Callback.
        options: settings of SearchConfig by the last word of their keys, such as `trials=64`; they override `what`.

    Returns:
        What `idat-tune search --json` prints; see `finish.result`.

    Raises:
        BadInput: before anything was started, whatever is wrong with the request.
        Interrupted: by Ctrl-C, SIGTERM or SIGHUP where this is the main thread; the same call resumes.
    """
    (result,) = run_searches([plan_search(_asked(what, options))], lambda plan: callbacks)
    return result


def _asked(what: str | SearchConfig, options: Mapping[str, Any]) -> SearchConfig:
    return what.updated(by_key(options)) if isinstance(what, SearchConfig) else SearchConfig.of(what, **options)


def estimate(
    plan: Plan, price_per_hour: float | None = None, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """What a search will cost: real steps are measured on the workers it would have, the rest is foreseen.

    Takes about half a minute, starts Ray for it, and writes nothing. On a cluster the workers are the cluster's own.

    Args:
        plan: of `plan_search`. Patience cannot be foreseen: it only makes a search cheaper.
        price_per_hour: of a GPU where trials take GPUs, else of the machine.
        tell: called with what is done next, and every ten seconds with how far it is.

    Returns:
        Among others `hours` of wall time, `gpu_hours`, `epochs` by stage, `start_seconds`, `price` with `total` and
        `per` (None without a price), `memory` with `per_trial_gb` (1e9 bytes), whether it is `measured` or predicted
        from shapes, and `trials_per_gpu`.

    Raises:
        BadInput: there is no GPU whose hours could be counted, or a backbone cannot be built.
    """
    (found,) = estimate_searches([plan], price_per_hour, tell)
    return found


def estimate_searches(
    plans: Sequence[Plan], price_per_hour: float | None = None, tell: Callable[[str], None] = lambda line: None
) -> Iterator[dict[str, Any]]:
    """What `estimate` returns, for each of several searches one after the other; the first one pays the start."""
    shared = _reachable(plans[0].config)
    from idat_tune.search.measuring import estimates  # as below

    yield from estimates(plans, shared, price_per_hour, tell)


def plan_search(config: SearchConfig) -> Plan:
    """The checked plan of a search; loads torch only to see which teachers of `idat` are there.

    Writes nothing, but for a copy of the search that `storage` has and its folder lacks, which is fetched.

    Raises:
        BadInput: an unknown task, a faulty space, a number out of range, data that is not there, a storage that cannot
            be written, or a MLFLOW_TRACKING_URI that can hold no runs.
    """
    known = tasks.get(config.task)
    tracking.check()
    space = config.space or _own_space(config.fixed.get("student", known.student))
    storage = Storage(config.storage) if config.storage else None
    name = config.name or _free_name(Path(config.out), known.name, storage)
    if storage:
        check_writable(Path(config.out))
        storage.check()
        fetch(storage, Path(config.out) / name)
    plan = Plan.checked(config.updated({"space": space, "name": name}))
    data.require(known.name)
    before = begun(plan)
    if config.space is None:  # so that nobody asked for it as it is
        plan = plan.without_absent_teachers(before.get("left_out"))
    check_writable(plan.out)
    check_resumable(plan, data.content_hash(known.name) if before else "")
    if config.hints is None:
        known_good = portfolio.starts(known.name, plan.kinds())
        return plan.hinted({f"portfolio-{index}": point for index, point in enumerate(known_good)})
    return plan


def _own_space(student: object) -> str:
    """The space whose teachers go with a student."""
    return "embedded" if str(student).removeprefix(RANDOM) in EMBEDDED else "idat"


def _free_name(out: Path, task: str, storage: Storage | None) -> str:
    names = (f"{task}-{number}" for number in range(1, 10**9))
    return next(name for name in names if not (out / name).exists() and not (storage and storage.has(name)))


def run_searches(plans: Sequence[Plan], callbacks: Callable[[Plan], Iterable[Callback]]) -> Iterator[dict[str, Any]]:
    """Carry out plans, or go on with them where they were left: one after the other, or `parallel_tasks` at once.

    Args:
        plans: of `plan_search`; they share one Ray session, which is that of the first.
        callbacks: who is told of a plan's trials.

    Yields:
        For each plan what `search` returns; as they end.

    Raises:
        BadInput: a folder is in use, or holds a search that was begun otherwise.
        Interrupted: by Ctrl-C, SIGTERM or SIGHUP where this is the main thread; the same call resumes.
    """
    shared = _reachable(plans[0].config)
    # Ray is imported no sooner than a plan stands.
    if len(plans) > 1 and shared.resources.parallel_tasks > 1:
        from idat_tune.search.beside import drive_beside

        yield from drive_beside(plans, shared, callbacks)
    else:
        from idat_tune.search.driver import drive

        yield from drive(plans, shared, callbacks)


def _reachable(config: SearchConfig) -> SearchConfig:
    """With the address of a cluster that answers, or none."""
    return config.updated({"resources.address": resolved(config.resources.address)})
