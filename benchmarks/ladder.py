"""What each step of the engine brings, side by side: `python -m benchmarks.ladder [--device cuda]`."""

import argparse
import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.released import Eager, Released
from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.engine.cut import Cut, Parts
from idat_tune.engine.graphs import Recorder
from idat_tune.engine.recorded import Recorded
from idat_tune.engine.recording import Epoch
from idat_tune.engine.resident import Resident

COMPARED = 20  # steps over which losses are held against those of R0
STEP_TFLOP = 2.775  # of ViT-S -> ViT-B at batch 32, for every rung: what a rung leaves out counts as done
PAIRS = {  # student, teacher, batch, images, steps of a round, rounds
    "cpu": ("random:vit_small_patch16_224", "random:vit_tiny_patch16_224", 8, 48, 1, 5),
    "cuda": ("random:vit_base", "random:vit_small", 32, 1000, 20, 5),
}
LABELS = {
    "R0": "released loop: two optimizers, two backward passes, autocast, plain attention, a sync per step",
    "R1": "R0 with one backward pass",
    "L0": "plain eager loop: one optimizer, no sync in the step",
    "L1": "+ resident pixels",
    "L2": "+ frozen weights in bf16, flat fused AdamW, attention by device",
    "L3": "+ prefix cache, last block for the class token only",
    "L4": "+ the step as one CUDA graph",
    "L5": "+ attention that joins no gradients",
    "L6": "+ teacher and student on two streams",
    "L7": "L6 with kernels whose bytes may differ from run to run",
    "S2": "L3, on CUDA L6, for 2 trials as one; per trial",
    "S4": "the same for 4 trials",
    "S8": "the same for 8 trials",
}
NEEDS_CUDA = ("L4", "L5", "L6", "L7", "S8")
ATTENTION = "devices.keep_side_by_side"
NO_WORK = ("detach", "empty", "_unsafe_view", "profiler", "_local_scalar_dense")  # operations that launch nothing


class Uncut(Resident):
    """Without prefix cache and without a shortened last block."""

    def cut(self, name: str, model: Any, config: RunConfig, whole: bool = False) -> tuple[Cut, Parts]:
        """The whole model."""
        return super().cut(name, model, config, whole=True)


class Lean:
    """The engine, with as much of it as a rung asks for."""

    def __init__(
        self, config: RunConfig, images: Images, device: torch.device, recorded: bool, runs: int = 1, **ways: Any
    ):
        self.left_out = ways.pop("left_out", ())  # names in `recording` and `devices` that do nothing instead
        resident = (Uncut if ways.pop("uncut", False) else Resident)(images, device, recorded=True, **ways)
        self.lr, self.weight, self.recorded, self.runs = config.optim.lr, config.distill.weight, recorded, runs
        configs = [config.updated({"seed": config.seed + run}) for run in range(runs)]
        with self._without():
            self.engines = [Recorded(of_one, resident, config.classes) for of_one in configs]
        self.device = device

    @contextmanager
    def _without(self) -> Iterator[None]:
        with ExitStack() as patches:
            for name in self.left_out:
                patches.enter_context(patch(f"idat_tune.engine.{name}", lambda *_: nullcontext()))
            yield

    def run(self, order: Tensor) -> Tensor:
        """Summed losses (4,) of steps on rows (steps, B); of the first trial, if there are several."""
        epochs = [Epoch(order.to(self.device), self.lr, self.weight)] * self.runs
        if self.recorded:
            with self._without():
                return Recorded.train_together(self.engines, epochs)[0]
        with self._without(), patch.object(Recorder, "recorded", lambda _, function, undone: function):
            return Recorded.train_together(self.engines, epochs)[0]

    def losses(self, order: Tensor) -> list[float]:
        """The loss of each step."""
        return [self.run(rows[None])[0].item() for rows in order]


class Stepwise:
    """R0, R1, L0, L1: loops that take a step at a time."""

    runs = 1

    def __init__(self, loop: Released | Eager):
        self.loop = loop

    def run(self, order: Tensor) -> None:
        """Steps on rows (steps, B)."""
        for index in order:
            self.loop.step(index)

    def losses(self, order: Tensor) -> list[float]:
        """The loss of each step."""
        return [float(self.loop.step(index)) for index in order]


def rung(name: str, config: RunConfig, images: Images, device: torch.device) -> Stepwise | Lean:
    """One way of training, ready to step."""
    if name in ("R0", "R1"):
        return Stepwise(Released(config, config.classes, images, device, backwards=2 if name == "R0" else 1))
    if name in ("L0", "L1"):
        return Stepwise(Eager(config, config.classes, images, device, resident=name == "L1"))
    ways: dict[str, dict[str, Any]] = {
        "L2": {"recorded": False, "two_streams": False, "uncut": True, "left_out": [ATTENTION]},
        "L3": {"recorded": False, "two_streams": False, "left_out": [ATTENTION]},
        "L4": {"recorded": True, "two_streams": False, "left_out": [ATTENTION]},
        "L5": {"recorded": True, "two_streams": False},
        "L6": {"recorded": True},
        "L7": {"recorded": True, "left_out": ["recording.repeating"]},
        **{f"S{runs}": {"recorded": device.type == "cuda", "runs": runs} for runs in (2, 4, 8)},
    }
    return Lean(config, images, device, **ways[name])


@dataclass
class Measured:
    """What a rung showed."""

    ready: float  # wall seconds until the first step was done: building, caching, recording
    losses: list[float]
    operations: int  # of a step of one trial
    syncs: int
    allocated: float  # GB at the peak, less what was there before
    reserved: float
    seconds: list[float] = field(default_factory=list)  # of a step: process time on a CPU, device time on CUDA


class Counter(TorchDispatchMode):
    """Counts operations that compute something, and those that wait for a value."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.syncs = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        self.syncs += "_local_scalar_dense" in name
        self.operations += not (function.is_view or any(part in name for part in NO_WORK))
        return function(*args, **(kwargs or {}))


def counted(way: Stepwise | Lean, order: Tensor, device: torch.device) -> tuple[int, int]:
    """Per step: operations (on CUDA launches of kernels, copies and graphs), and waits of the host for the device."""
    if device.type != "cuda":
        with Counter() as counter:
            way.run(order)
        return round(counter.operations / len(order)), round(counter.syncs / len(order))
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        way.run(order)
        torch.cuda.synchronize()
    names = [event.name for event in profiler.events()]
    launches = sum(name.startswith(("cudaLaunch", "cuLaunch", "cudaMemcpy", "cudaGraphLaunch")) for name in names)
    return round(launches / len(order)), round(names.count("cudaStreamSynchronize") / len(order))


def first_look(name: str, config: RunConfig, images: Images, order: Tensor, device: torch.device) -> tuple[Any, Any]:
    """A rung and what it shows beside its speed."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) if cuda else (0, 0)
    began = time.perf_counter()
    way = rung(name, config, images, device)
    losses = way.losses(order[:1])
    ready = time.perf_counter() - began
    losses += way.losses(order[1:COMPARED])
    peak = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if cuda else (0, 0)
    operations, syncs = counted(way, order[:2], device)
    held = [(now - then) / 1e9 for now, then in zip(peak, before, strict=True)]
    return way, Measured(ready, losses, operations // way.runs, syncs, *held)


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Process seconds on a CPU, which other processes share; device seconds on CUDA."""
    if device.type != "cuda":
        began = time.process_time()
        run()
        return time.process_time() - began
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def matrix_rate(device: torch.device) -> float:
    """TFLOP/s of a large bf16 product."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    return 2 * size**3 / min(timed(lambda: a @ b, device) for _ in range(5)) / 1e12


def climbed(
    names: list[str], config: RunConfig, device: torch.device, ways: dict[str, Any] | None = None
) -> dict[str, Measured]:
    """All rungs, timed in turn so that what else the machine does falls on all of them; they are left in `ways`."""
    *_, count, steps, rounds = PAIRS[device.type]
    random = np.random.default_rng(0)
    images = Images(random.integers(0, 256, (count, 3, 224, 224), np.uint8), random.integers(0, config.classes, count))
    batch = config.batch_size
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(count, generator=generator)[:batch] for _ in range(COMPARED)])
    ways, found = {} if ways is None else ways, {}
    for name in names:
        ways[name], found[name] = first_look(name, config, images, order, device)
    a_round = order[:steps]
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].seconds.append(timed(lambda way=way: way.run(a_round), device) / steps / way.runs)
    return found


def rows(found: dict[str, Measured], rate: float) -> list[dict[str, Any]]:
    """What was measured, a row per rung; `rate` is the device's in TFLOP/s."""
    base = found.get("R0")
    made = []
    for name, it in found.items():
        step = statistics.median(it.seconds)
        row = {
            "rung": name,
            "what": LABELS[name],
            "ms": 1e3 * step,
            "ratio": statistics.median(base.seconds) / step if base else None,
            "mfu": STEP_TFLOP / step / rate,
            "operations": it.operations,
            "syncs": it.syncs,
            "allocated_gb": it.allocated,
            "reserved_gb": it.reserved,
            "ready_s": it.ready,
            "losses": it.losses,
            "difference": max(abs(a - b) for a, b in zip(it.losses, base.losses, strict=True)) if base else None,
        }
        made.append(row)
    return made


def table(made: list[dict[str, Any]], cuda: bool) -> str:
    """Rows as Markdown."""
    columns = ["ms per step", "R0 / it", *(["MFU"] if cuda else []), "launches" if cuda else "operations", "syncs"]
    columns += [*(["peak allocated, reserved GB"] if cuda else []), "ready after s", "loss: largest difference"]
    lines = [f"| | | {' | '.join(columns)} |", "|---|---|" + "---:|" * len(columns)]
    for row in made:
        cells = [f"{row['ms']:.1f}", f"{row['ratio'] or float('nan'):.2f}", *([f"{row['mfu']:.0%}"] if cuda else [])]
        cells += [f"{row['operations']:,}", str(row["syncs"])]
        cells += [f"{row['allocated_gb']:.2f}, {row['reserved_gb']:.2f}"] if cuda else []
        cells += [f"{row['ready_s']:.1f}", f"{row['difference'] or 0:.4f}"]
        lines.append(f"| {row['rung']} | {row['what']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def config_for(device: torch.device, precision: str = "bf16") -> RunConfig:
    """The run that every rung trains."""
    student, teacher, batch, *_ = PAIRS[device.type]
    return RunConfig.for_task(
        "cifar", {"student": student, "teacher": teacher, "batch_size": batch, "precision": precision}
    ).updated({"device": device.type, "optim.lr": 1e-3, "model.drop_path": 0.0})


def main() -> None:
    """Print the ladder of a device, and what is measured beside it."""
    from benchmarks import trials

    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--device", default="cpu", choices=list(PAIRS))
    arguments.add_argument("--rungs", default=",".join(LABELS), help="which, separated by commas; R0 is the yardstick")
    arguments.add_argument("--precision", default="bf16", choices=["bf16", "fp32"], help="of L0 and up")
    given = arguments.parse_args()
    device = torch.device(given.device)
    torch.set_num_threads(1 if device.type == "cpu" else torch.get_num_threads())
    config = config_for(device, given.precision)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} cores, no GPU"
    date = datetime.datetime.now(datetime.UTC).date()
    print(f"{date}, {machine}, torch {torch.__version__}, Python {platform.python_version()}\n")
    print(f"## {config.student} with teacher {config.teacher}, batch {config.batch_size}, 224 px, {given.precision}\n")
    names = [name for name in given.rungs.split(",") if device.type == "cuda" or name not in NEEDS_CUDA]
    rate = matrix_rate(device)
    print(f"Matrix rate {rate:.2f} TFLOP/s (bf16).\n")
    print(table(rows(climbed(names, config, device), rate), device.type == "cuda"), "\n", flush=True)
    trials.report(config, device)


if __name__ == "__main__":
    main()
