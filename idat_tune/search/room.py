"""The room that there is for trials: counted machine by machine, and what an autoscaler may add."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from idat_tune.search.config import ResourcesConfig

MOST_AT_ONCE = 512  # trials on a cluster; a driver takes in some 430 reports a second, see benchmarks/tracking.md
MOST_PER_GPU = 2  # trials, unless told: one may set up while the other steps, which is predicted
CONTEXT_GB = 0.6  # of GPU memory that a process takes beside PyTorch's
USED = 0.9  # part of a GPU's memory that trials may plan with
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")  # which `ray up` leaves on the head
ACCELERATOR = "accelerator_type:"
# Memory of a GPU by Ray's name for it, 1e9 bytes; where a name stands for several, the least.
GPU_GB = {
    "A10G": 24.0,
    "A100": 40.0,
    "A100-40G": 40.0,
    "A100-80G": 80.0,
    "H100": 80.0,
    "H200": 141.0,
    "L4": 24.0,
    "L40S": 48.0,
    "P100": 16.0,
    "T4": 16.0,
    "V100": 16.0,
}


@dataclass(frozen=True)
class Machine:
    """What a machine has for trials."""

    cpus: float
    gpus: float = 0.0
    gpu: str = ""  # Ray's name of its GPUs; none where Ray knows none

    def fits(self, gpus_each: float) -> int:
        """How many processes, each with a core and so much of a GPU; a part of a GPU is of one GPU only."""
        cores = int(self.cpus)
        if not gpus_each:
            return cores
        return min(cores, int(self.gpus // gpus_each) if gpus_each >= 1 else int(self.gpus) * parts(gpus_each))


@dataclass(frozen=True)
class Room:
    """What there is for trials."""

    trials: int  # at once
    processes: int  # that train them
    gpus: float  # of each process
    stacked: int = 1  # trials that each process takes at most
    limit: int | None = None  # processes at most, however the cluster grows; None where they stay as many as now

    @property
    def gpus_per_trial(self) -> float:
        """How much of a GPU each takes when they are that many."""
        return self.gpus * self.processes / self.trials

    @property
    def most(self) -> int:
        """Trials at once, however the cluster grows."""
        return self.trials if self.limit is None else self.limit * self.stacked


def parts(gpus_each: float) -> int:
    """How many processes share a GPU of which each takes such a part."""
    return int(1 / gpus_each + 1e-6)


def room(
    machines: Sequence[Machine],
    gpus_each: float,
    resources: ResourcesConfig,
    grows: bool = False,
    sharers: int = 1,
) -> Room:
    """What there is for trials on some machines, where each process takes so much of a GPU.

    Args:
        machines: those that are there.
        gpus_each: of each process.
        resources: what the user says.
        grows: whether others may come, or these may be held by somebody else: whether they are a cluster.
        sharers: searches that share all this, and what the user allows, in equal parts.
    """
    fit = max(1, math.ceil(at_once(machines, gpus_each) / sharers))
    stacked, allowed = resources.stacked, resources.max_concurrent
    # Once the others have ended all of it is for one.
    limit = (math.ceil(allowed / stacked) if allowed else max(MOST_AT_ONCE // stacked, 1)) if grows else None
    most = math.ceil(allowed / sharers) if allowed else None
    wanted = math.ceil(most / stacked) if most else None  # processes
    if stacked == 1 and not grows:  # as many as the user wants, be there cores or not
        return Room(most or fit, most or fit, gpus_each)
    processes = min(fit, wanted) if wanted else fit
    seats = processes * stacked
    return Room(min(most, seats) if most else seats, processes, gpus_each, stacked, limit)


def at_once(machines: Iterable[Machine], gpus_each: float) -> int:
    """How many processes fit on all of them together; a core and its part of a GPU are of one machine."""
    return sum(machine.fits(gpus_each) for machine in machines)


def there(nodes: Iterable[Mapping[str, Any]]) -> list[Machine]:
    """The machines of `ray.nodes()` that are alive."""
    return [_machine(node["Resources"]) for node in nodes if node["Alive"]]


def to_come(file: Path | None = None) -> list[Machine]:
    """The machines that an autoscaler may add at most, all of them, as `ray up` left word of on the head."""
    content = _content((file or BOOTSTRAP).expanduser())
    types, head = content.get("available_node_types"), content.get("head_node_type")
    if not isinstance(types, dict):
        return []
    found = []
    for name, kind in types.items():
        if isinstance(kind, dict) and name != head:
            count, has = kind.get("max_workers"), kind.get("resources")
            found += [_machine(has)] * count if isinstance(count, int) and isinstance(has, dict) else []
    found.sort(key=lambda machine: machine.gpus, reverse=True)
    most = content.get("max_workers")
    return found[:most] if isinstance(most, int) else found


def missing(coming: Iterable[Machine], machines: Iterable[Machine]) -> list[Machine]:
    """Those that may come and are not there yet, told by their cores and GPUs."""
    left = list(coming)
    for machine in machines:
        alike = [one for one in left if (one.cpus, one.gpus) == (machine.cpus, machine.gpus)]
        if alike:
            left.remove(alike[0])
    return left


def is_head_of_ray_up() -> bool:
    """Whether `ray up` made this machine the head of a cluster."""
    return BOOTSTRAP.expanduser().exists()


def shared_gpu(machines: Iterable[Machine], per_trial_gb: Callable[[], float]) -> float:
    """The part of a GPU that a trial takes, by its memory and that of the smallest GPU; a whole one of unknown memory.

    Args:
        machines: those that trials may run on.
        per_trial_gb: says what a trial takes, 1e9 bytes; asked only where that matters.
    """
    smallest = min((GPU_GB.get(machine.gpu, 0.0) for machine in machines if machine.gpus), default=0.0)
    share = int(USED * smallest / (per_trial_gb() + CONTEXT_GB)) if smallest else 1
    return 1 / min(max(share, 1), MOST_PER_GPU)


def described(machines: Sequence[Machine], coming: Sequence[Machine], found: Room) -> str:
    """One line about what a search uses of a cluster."""
    gpus = _gpus(machines)
    now = f"{_counted(len(machines), 'machine')}, {gpus or _counted(_cores(machines), 'core')}"
    none = not at_once(machines, found.gpus)
    more = at_once(coming, found.gpus) * found.stacked
    ahead = max(min(more, found.most - found.trials * (not none)), 0)
    grown = f"{_counted(len(coming), 'machine')} with {_gpus(coming) or _counted(_cores(coming), 'core')}"
    at_once_now = "none of them for trials yet" if none else f"{_counted(found.trials, 'trial')} at once"
    return f"{now}, {at_once_now}" + f"; it may add {grown}, for {ahead} more at once" * bool(ahead)


def _machine(resources: Mapping[str, Any]) -> Machine:
    names = [name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR)]
    return Machine(float(resources.get("CPU", 0)), float(resources.get("GPU", 0)), min(names, default=""))


def _content(file: Path) -> dict[str, Any]:
    """What a YAML file says; nothing where it is none, or not ours to read."""
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _gpus(machines: Iterable[Machine]) -> str:
    """How many GPUs, and which; nothing where there are none."""
    having = [machine for machine in machines if machine.gpus]
    kinds = sorted({machine.gpu for machine in having if machine.gpu})
    count = sum(machine.gpus for machine in having)
    return _counted(int(count), "GPU") + (f" ({', '.join(kinds)})" if kinds else "") if having else ""


def _cores(machines: Iterable[Machine]) -> int:
    return int(sum(machine.cpus for machine in machines))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
