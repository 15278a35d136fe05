"""The one opening of the test split: all students of the final runs, and what they come to together, in one pass."""

# N images, C classes

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor

from idat_tune import data
from idat_tune.config import RunConfig
from idat_tune.engine.memory import watched
from idat_tune.engine.resident import Resident
from idat_tune.journal import COMPLETE, FINAL
from idat_tune.journal.hits import BESIDE_TEACHER, TWO_SEEDS, packed
from idat_tune.metrics import WORST
from idat_tune.model import AdaptedModel
from idat_tune.predictions import Predictions, Run, encoded
from idat_tune.run import evaluate_all, to_device
from idat_tune.worker.trial import HERE, Worker, check_weights, config_of, whatever_is_wrong_is_of_this_machine


@dataclass(frozen=True)
class Finalist:
    """A final run whose student is tested."""

    config: RunConfig
    contender: str | None
    student: AdaptedModel
    teacher: AdaptedModel | None  # None where there was none, or its tensors were not kept


def tested(worker: Worker, job: Mapping[str, Any]) -> dict[str, Any]:
    """Every student of the final runs, in one pass over the test images; they share what is frozen.

    With their teachers, as the mean of both softmaxes, and with another seed of themselves, which is the control: two
    models know more than one, whatever the second is.

    Raises:
        Unfit: as `check_weights`; or there are no test images here.
        OutOfMemory: what the worker held is free again.
    """
    config = config_of(job)
    check_weights(job, [given["config"]["student"] for given in job["students"].values()])
    resident = worker.resident(config)
    with watched(config, resident):
        finalists = {name: _finalist(resident, given) for name, given in job["students"].items()}
        spec = next(iter(finalists.values())).student.spec
        with whatever_is_wrong_is_of_this_machine():
            batches = data.batches(config.task, "test", spec.size, spec.channels, spec.interpolation)
        models = {name: (one.student, one.config) for name, one in finalists.items()}
        models |= {name + BESIDE_TEACHER: (one.teacher, one.config) for name, one in finalists.items() if one.teacher}
        found, labels = evaluate_all(models, (to_device(images, resident.device) for images in batches))
    logits = {name: one.logits for name, one in found.items()}
    rows = [[name, *found[name][:2], _hits(logits[name], labels)] for name in finalists]
    rows += [_together(name, *both, labels) for name, both in _pairs(finalists, logits).items()]
    kept = [[name, _encoded(name, one, labels, logits)] for name, one in finalists.items()]
    # As rows: Tune would flatten a mapping into its own keys.
    return {"epoch": 0, "score": WORST, "status": COMPLETE, "done": True, "tested": rows, "predictions": kept, **HERE}


def _finalist(resident: Resident, given: Mapping[str, Any]) -> Finalist:
    config, teacher = RunConfig.from_flat(given["config"]), None
    if given["teacher"] is None:
        student = resident.build_student(config, config.classes)
    else:
        student, teacher = resident.build_pair(config, config.classes)
        assert teacher is not None
        teacher.load_trained_state(load(ray.get(given["teacher"])))
    student.load_trained_state(load(ray.get(given["state"])))
    return Finalist(config, given["contender"], student, teacher)


def _pairs(finalists: Mapping[str, Finalist], logits: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Of every student with a teacher the two sets of logits that are taken together: with it, with another seed."""
    taught = {name: one for name, one in finalists.items() if one.teacher}
    pairs = {name + BESIDE_TEACHER: (logits[name], logits[name + BESIDE_TEACHER]) for name in taught}
    for name, one in taught.items():
        alike = [n for n, other in taught.items() if other.config.updated({"seed": one.config.seed}) == one.config]
        if len(alike) > 1:
            another = alike[(alike.index(name) + 1) % len(alike)]
            pairs[name + TWO_SEEDS] = (logits[name], logits[another])
    return pairs


def _together(name: str, one: Tensor, other: Tensor, labels: Tensor) -> list[Any]:
    mean = ((one.softmax(dim=-1) + other.softmax(dim=-1)) / 2).clamp_min(torch.finfo(torch.float32).tiny).log()
    right = int((mean.argmax(dim=-1) == labels).sum()) / len(labels)
    return [name, right, float(F.cross_entropy(mean, labels)), _hits(mean, labels)]


def _hits(logits: Tensor, labels: Tensor) -> str:
    return packed((logits.argmax(dim=-1) == labels).numpy())


def _encoded(name: str, one: Finalist, labels: Tensor, logits: Mapping[str, Tensor]) -> bytes:
    teacher = logits.get(name + BESIDE_TEACHER)
    run = Run(name, FINAL, one.contender, None, one.config.seed)
    said = (logits[name].numpy(), None if teacher is None else teacher.numpy())
    return encoded(one.config.task, Predictions(run, np.arange(len(labels)), labels.numpy(), *said))
