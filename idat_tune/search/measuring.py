"""What searches will cost, before they start: real steps are measured on the workers, the rest is foreseen."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import ray

from idat_tune import cost
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.metrics import Speed
from idat_tune.search.checks import check_devices, check_models, held_weights
from idat_tune.search.cluster import Session
from idat_tune.search.config import SearchConfig
from idat_tune.search.driver import from_here, visible_images
from idat_tune.search.estimates import Key, Pace, cost_key, estimated, sample_of
from idat_tune.search.plan import Plan
from idat_tune.search.room import CONTEXT_GB
from idat_tune.worker.probe import Probed, Prober

PROBES = 6  # configs that are measured at most
TELL_EVERY = 10.0  # seconds
END_SECONDS = 2.0  # for the export and for ending Ray

Costs = Mapping[RunConfig, Mapping[str, Any]]  # what `cost.describe` says


Tell = Callable[[str], None]


def estimates(
    plans: Sequence[Plan], shared: SearchConfig, price_per_hour: float | None, tell: Tell
) -> Iterator[dict[str, Any]]:
    """See `search.estimate`; several searches share one start, which the first one pays."""
    if shared.resources.stacked > 1:
        raise BadInput("--dry-run foresees trials that train by themselves, not --stacked; leave one of the two away")
    began = time.perf_counter()
    with closing(Session(shared)) as session:
        session.prepare()
        check_devices(plans)  # as a search does, and so with what follows
        for plan in plans:
            check_models(plan)
        tell("starting Ray")
        room = session.start(plans[0])
        for remark in session.remarks:
            tell(remark)
        workers, gpus = room.trials, room.gpus
        for number, plan in enumerate(plans):
            say = _about(plan, tell)
            say(f"starting {workers} worker{'s' * (workers > 1)}")
            probers, found = _probers(plan, workers, gpus, session.joined)
            start = time.perf_counter() - began if number == 0 else 0.0
            arms = [*plan.arms().values(), *plan.linear_probes()[:1]]
            costs = _costs([*arms, *(plan.sample() if plan.explores else ())])
            probed = _probe(_chosen(plan, costs), probers, say)
            for prober in probers:
                ray.kill(prober)
            pace = Pace(_speeds(probed, costs), sample_of(plan))
            ahead = estimated(plan, workers, pace, gpus)
            hours = {"hours": (start + ahead.seconds + END_SECONDS) / 3600, "gpu_hours": ahead.busy * gpus / 3600}
            yield {
                "name": plan.name,
                "task": plan.task.name,
                "trials": plan.trials,
                "epochs_per_trial": plan.config_of({}).epochs,
                "workers": workers,
                "gpus_per_trial": gpus,
                "device": found["device"],
                "epochs": {name: stage.epochs for name, stage in ahead.stages.items() if stage.epochs},
                "start_seconds": start,
                **hours,
                "price": _price(price_per_hour, gpus, **hours),
                "memory": _memory(probed, costs, found["gpu_gb"]),
                "probed": [_row(config, found, costs[config]) for config, found in probed.items()],
            }


def _about(plan: Plan, tell: Tell) -> Tell:
    """Tell with the task's name before it."""
    return lambda words: tell(f"{plan.task.name}: {words}")


def _probers(plan: Plan, workers: int, gpus: float, joined: bool) -> tuple[list[Any], dict[str, Any]]:
    """As many actors as trials would run at once, ready; and what the first of them is."""
    images = ray.put(visible_images(plan))
    supplied = from_here(plan, held_weights(plan), joined)
    actor = ray.remote(Prober).options(num_cpus=1, num_gpus=gpus)
    probers = [actor.remote(images, supplied) for _ in range(workers)]
    return probers, ray.get([prober.ready.remote() for prober in probers])[0]


def _costs(configs: Sequence[RunConfig]) -> Costs:
    """What the configs cost by their shapes, one of each kind that differs in that; the first ones stay."""
    distinct: dict[Key, RunConfig] = {}
    for config in configs:
        distinct.setdefault(cost_key(config.flat()), config)
    return {config: cost.describe(config) for config in distinct.values()}


def _gflop(cost: Mapping[str, Any]) -> float:
    """Of a training step, per image."""
    return cost["gflop_per_image"]["forward"] + cost["gflop_per_image"]["backward"]


def _chosen(plan: Plan, costs: Costs) -> list[RunConfig]:
    """The configs to measure: the cheapest, the dearest, the arms, and some more of the sample.

    Of arms all that differ in cost: they are run in any case, so each is known to count.
    """
    ranked = sorted(costs, key=lambda config: _gflop(costs[config]))
    arms = {cost_key(config.flat()) for config in plan.arms().values()}
    known = [config for config in costs if cost_key(config.flat()) in arms]
    chosen = list(dict.fromkeys([ranked[0], ranked[-1], *known, *costs]))
    return chosen[: max(PROBES, len({ranked[0], ranked[-1], *known}))]


def _probe(configs: Sequence[RunConfig], probers: Sequence[Any], tell: Tell) -> dict[RunConfig, Probed]:
    """Measure the configs on all workers at once, each in another order: they slow each other down as trials do."""
    starts = [number % len(configs) for number in range(len(probers))]
    turns = [[*configs[start:], *configs[:start]] for start in starts]
    asked = {
        prober.probe.remote([config]): config for prober, turn in zip(probers, turns, strict=True) for config in turn
    }
    waiting, every = list(asked), len(asked)
    tell(f"measuring steps of {len(configs)} configs, from the cheapest to the dearest, on each worker")
    while waiting:
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=TELL_EVERY)
        tell(f"{every - len(waiting)} of {every} measured")
    found: dict[RunConfig, list[Probed]] = {config: [] for config in configs}
    for config, answer in zip(asked.values(), ray.get(list(asked)), strict=True):
        found[config] += answer
    return {config: _mean(values) for config, values in found.items()}


def _mean(values: Sequence[Probed]) -> Probed:
    memory = [value.memory_gb for value in values if value.memory_gb is not None]
    speed = Speed.mean([value.speed for value in values])
    return Probed(speed, max(memory, default=None))


def _speeds(probed: Mapping[RunConfig, Probed], costs: Costs) -> dict[Key, Speed]:
    """The speed of every kind of config: as measured, or from a line through what was, over their FLOPs."""
    measured = {cost_key(config.flat()): found.speed for config, found in probed.items()}
    gflops = [_gflop(costs[config]) for config in probed]

    def between(name: str, gflop: float) -> float:
        values = [getattr(speed, name) for speed in measured.values()]
        if len(set(gflops)) == 1:
            return statistics.fmean(values)
        slope, base = statistics.linear_regression(gflops, values)
        return min(max(base + slope * gflop, min(values)), max(values))

    beside = statistics.fmean(speed.beside for speed in measured.values())
    everything = {cost_key(config.flat()): _gflop(described) for config, described in costs.items()}
    return {
        key: measured.get(key) or Speed(between("train", gflop), between("val", gflop), beside)
        for key, gflop in everything.items()
    }


def _price(per_hour: float | None, gpus: float, hours: float, gpu_hours: float) -> dict[str, Any] | None:
    """Money: by the GPU-hour where trials take GPUs, else by the hour that the machine is taken."""
    if per_hour is None:
        return None
    return {
        "per": "GPU-hour" if gpus else "hour",
        "per_hour": per_hour,
        "total": per_hour * (gpu_hours if gpus else hours),
    }


def _memory(probed: Mapping[RunConfig, Probed], costs: Costs, gpu_gb: float | None) -> dict[str, Any]:
    """Peak memory of a trial, 1e9 bytes: measured on a GPU, elsewhere predicted; and how many trials a GPU holds."""
    peaks = [found.memory_gb for found in probed.values() if found.memory_gb is not None]
    if peaks and gpu_gb:
        peak = max(peaks) + CONTEXT_GB
        return {"per_trial_gb": peak, "measured": True, "trials_per_gpu": int(gpu_gb / peak)}
    predicted = max(described["memory_gb"] for described in costs.values())
    return {"per_trial_gb": predicted, "measured": False, "trials_per_gpu": None}


def _row(config: RunConfig, found: Probed, described: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "config": config.flat(),
        "gflop_per_image": _gflop(described),
        "seconds_per_1000_images": 1000 * found.speed.train,
        "memory_gb": found.memory_gb,
    }
