"""A small search, the same for all that are compared: points spread over a space, chosen on val, tested by seed."""

import math
import os
import platform
import random
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.differences import Design, Difference, Outcome, Runs, difference, noise_of
from idat_tune.engine.resident import Resident
from idat_tune.errors import Diverged
from idat_tune.run import evaluate_all, run_on, to_device
from idat_tune.space import Choice, Domain, Space

Run = Mapping[str, Any]  # what `came_to` gives


def points(searched: Space, count: int) -> list[dict[str, Any]]:
    """A Latin hypercube: every range is cut into `count` parts, of which each point takes another.

    Where two spaces share a setting, so do their points of one number: what differs is what only one of them searches.
    """
    return [
        searched.propose(lambda label, domain, at=number: _value(label, domain, at, count)) for number in range(count)
    ]


def _value(label: str, domain: Domain, number: int, count: int) -> Any:
    place = random.Random(label).sample(range(count), count)[number]
    share = (place + 0.5) / count
    if isinstance(domain, Choice):
        return domain.values[int(share * len(domain.values))]
    assert not domain.integer, f"{label}: no space here has whole numbers"
    if domain.log:
        return math.exp(math.log(domain.low) + share * math.log(domain.high / domain.low))
    return domain.low + share * (domain.high - domain.low)


def came_to(config: RunConfig, resident: Resident, rows: torch.Tensor, images: Images) -> dict[str, Any]:
    """Learn from those rows, and look at the images once: hits, image by image, accuracy, loss, and what it took."""
    began = time.process_time()
    training = run_on(resident, config, rows, torch.arange(0))
    try:
        for _ in training:
            pass
    except Diverged:
        nothing = {"accuracy": 0.0, "loss": math.inf, "hits": "0" * len(images)}
        spent = time.process_time() - began
        return {**nothing, "seconds": spent, "cpu": spent, "trainable": training.student.trainable_params()}
    trained = time.process_time() - began
    models = {"": (training.student, training.config)}
    found, labels_N = evaluate_all(models, [to_device(images, resident.device)])
    hits = "".join(str(int(hit)) for hit in found[""].logits.argmax(-1) == labels_N)
    return {
        "accuracy": found[""].accuracy,
        "loss": found[""].loss,
        "hits": hits,
        "seconds": trained,
        "cpu": time.process_time() - began,
        "trainable": training.student.trainable_params(),
    }


def best(found: Sequence[Run]) -> int:
    """Which has the best accuracy; of those that are as good, the smallest loss."""
    return max(range(len(found)), key=lambda i: (found[i]["accuracy"], -found[i]["loss"]))


def against(ours: Mapping[int, Run], theirs: Mapping[int, Run], *others: Mapping[int, Run]) -> Difference:
    """Runs by seed, on the same test images: the difference, paired by seed and image.

    The others, of the same task, tell how much runs scatter.
    """
    both, design = (_outcomes(ours), _outcomes(theirs)), Design(len(next(iter(ours.values()))["hits"]), crossed=True)
    found = difference(*both, design, noise_of([*both, *map(_outcomes, others)], design))
    assert found is not None
    return found


def _outcomes(runs: Mapping[int, Run]) -> Runs:
    return {
        seed: Outcome(run["accuracy"], run["loss"], np.array([hit == "1" for hit in run["hits"]]))
        for seed, run in runs.items()
    }


def told(found: Difference) -> str:
    """A difference in points with its interval."""
    low, high = (100 * end for end in found.interval)
    if not math.isfinite(high):
        return f"{100 * found.mean:+.1f} (too few seeds for an interval)"
    return f"{100 * found.mean:+.1f} ({low:+.1f} to {high:+.1f})"


def verdict(found: Difference) -> int:
    """1 for a reliable gain, -1 for a reliable loss, 0 for neither."""
    return int(math.copysign(found.reliable, found.mean))


def command(module: str) -> str:
    """What was typed, but for the folder of runs, which is this machine's own."""
    words = sys.argv[1:]
    at = words.index("--runs") if "--runs" in words else len(words)
    return shlex.join(["python", "-m", module, *words[:at], *words[at + 2 :]])


def machine() -> str:
    """Cores, processor, threads and Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    processor = next(names, platform.processor() or "unknown make")
    python = ".".join(platform.python_version_tuple()[:2])
    return f"{os.cpu_count()} cores of {processor}, {torch.get_num_threads()} thread(s), no GPU, Python {python}"
