"""Reads an export folder; what is missing, damaged or does not fit is refused in a sentence."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from idat_tune import adapters, data, reading, tasks, weights
from idat_tune.backbones import RANDOM
from idat_tune.config import RunConfig
from idat_tune.engine.frozen import Frozen
from idat_tune.errors import BadInput, shown
from idat_tune.export import whole
from idat_tune.export.folder import ADAPTER, FILES, MERGED, ONNX, PIXELS, PROGRAM, STUDENTS, TEACHER
from idat_tune.export.student import Pair, Student
from idat_tune.model import AdaptedModel, build
from idat_tune.tasks import Task

MOST_CHARACTERS = 10_000_000  # of a file of an export


def load(folder: str | Path, device: str = "cpu", merge: bool | None = False, frozen: Frozen | None = None) -> Student:
    """The student of an export folder, in eval mode, with its transform, labels, config and metrics.

    Args:
        folder: as `save` wrote it.
        device: where the student goes.
        merge: fold the adapters into the backbone's weights, so that the student costs what the backbone costs; its
            logits then differ by rounding (below 1e-5) from those that were tested. For kinds that can (`kinds.KINDS`);
            None merges where they can.
        frozen: backbones on that device, to share with other students; of its own unless given.

    Raises:
        BadInput: a file is missing or damaged, the tensors do not fit the config, or the backbone has other weights
            than the student was trained with; names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no export folder at {folder}; a search writes one at <out>/<name>/best")
    file = _student_file(folder)
    for name in ("config.yaml", file, "metrics.json", "labels.json", "provenance.json"):  # older exports lack the rest
        if not (folder / name).is_file():
            raise BadInput(f"export folder {folder} is incomplete: {name} is missing; it holds {', '.join(FILES)}")
    intensity = _read(folder / PIXELS, _intensity) if (folder / PIXELS).is_file() else None
    labels = _read(folder / "labels.json", _labels)
    metrics = _read(folder / "metrics.json", _metrics)
    config = _read(folder / "config.yaml", lambda text: _config(reading.yaml_value(text), labels))
    if merge is None:
        merge = whole.merges(config, (folder / TEACHER).is_file())
    read = _whole if file == STUDENTS[MERGED] else partial(_apart, frozen=frozen)
    model = read(folder / file, config, len(labels), "student", merge)
    if not (folder / TEACHER).is_file():
        return Student(model, config, labels, metrics, intensity).to(device)
    teacher = read(folder / TEACHER, config, len(labels), "teacher", merge)
    return Student(Pair(model, teacher), config, labels, metrics, intensity).to(device)


def _student_file(folder: Path) -> str:
    """The name of the file that holds the student; that of an ordinary export if there is none."""
    found = [name for name in STUDENTS.values() if (folder / name).is_file()]
    if found and found[0] in (STUDENTS[ONNX], STUDENTS[PROGRAM]):
        raise BadInput(
            f"{folder} holds {found[0]}, which runs without this package, as its example.py does; to load a student, "
            "export it as folder or merged"
        )
    return found[0] if found else ADAPTER


def _apart(path: Path, config: RunConfig, classes: int, role: str, merge: bool, frozen: Frozen | None) -> AdaptedModel:
    """The student, or its teacher, from what was trained and a backbone of this machine."""
    # Where everything was trained, the file holds everything: no pretrained weights are needed.
    whole_file = config.adapter.kind == "full" and role == "student"
    backbone = config.student if role == "student" else config.teacher
    held = _read(path.with_name("provenance.json"), partial(_weights_of, role=role))
    if not whole_file:
        way_out = ", or train it again on these" if role == "student" else ", or export it without"
        weights.check_same(backbone, held, f"the {role} in {path.parent} was trained with", way_out)
    if whole_file:
        model = build(RANDOM + backbone.removeprefix(RANDOM), classes, config, seed=0)
    else:
        model = build(backbone, classes, config, 0, frozen.backbone if frozen else None)
    adapters.deploy(model.backbone)
    if frozen and not whole_file:
        frozen.place(model, torch.float32)  # what trained is the student's own from here
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as failure:
        raise BadInput(f"{path} is damaged: {failure}; export it again") from None
    try:
        model.load_trained_state(state)
    except BadInput as failure:
        raise BadInput(_misfit(path, role, failure)) from None
    if merge:
        model.merge(config.adapter.kind)
    return model


def _whole(path: Path, config: RunConfig, classes: int, role: str, merge: bool) -> AdaptedModel:
    """The student, or its teacher, from a file that holds all of it."""
    try:
        model, merged = whole.read(path, config.student if role == "student" else config.teacher, config, classes)
    except (SafetensorError, OSError) as failure:
        raise BadInput(f"{path} is damaged: {failure}; export it again") from None
    except BadInput as failure:
        raise BadInput(_misfit(path, role, failure)) from None
    if merge and not merged:
        model.merge(config.adapter.kind)
    return model


def _misfit(path: Path, role: str, failure: BadInput) -> str:
    return f"{path}: {failure}" if role == "student" else f"{path} is damaged: {failure}; export it again"


def _intensity(text: str) -> tuple[float, float] | None:
    held = reading.json_value(text)
    if not isinstance(held, dict) or "intensity" not in held:
        raise BadInput("it must hold the range of values of the images as `intensity`, or null")
    return data.check_range(held["intensity"])


def _labels(text: str) -> list[str]:
    labels = reading.json_value(text)
    if not isinstance(labels, list) or len(labels) < 2 or not all(isinstance(label, str) for label in labels):
        raise BadInput("it must hold a list of class names, two or more")
    return labels


def _metrics(text: str) -> dict[str, Any]:
    metrics = reading.json_value(text)
    if not isinstance(metrics, dict):
        raise BadInput("it must hold a mapping of names to values")
    return metrics


def _weights_of(text: str, role: str = "student") -> Mapping[str, Any]:
    """What a provenance says of the student's backbone, or of the teacher's."""
    held = reading.json_value(text)["weights"][role]
    told = isinstance(held, dict) and isinstance(held.get("file"), str)
    if not told or not isinstance(held.get("sha256"), str | None):
        raise ValueError(f"it does not say which weights the {role} was trained with")
    return held


def _config(flat: Any, labels: Sequence[str]) -> RunConfig:
    """The config; a task of somebody's own, which this machine need not know, is made known by its labels."""
    if not isinstance(flat, dict):
        raise BadInput("it must hold a mapping of settings to values")
    task = flat.get("task")
    if isinstance(task, str) and tasks.seek(task) is None:
        names = tuple(labels)
        tasks.register(Task(task, task, "own", len(names), 0, 5e-3, 5e-5, 0.0, class_names=names))
    return RunConfig.from_flat(flat)


def _read(path: Path, parse: Any) -> Any:
    content = reading.text(path, "file", MOST_CHARACTERS)
    try:
        return parse(content)
    except BadInput as failure:
        raise BadInput(f"{path} cannot be read: {failure}; export it again") from None
    except (ValueError, TypeError, AttributeError, KeyError) as failure:
        raise BadInput(f"{path} cannot be read: {shown(failure, 160)}; export it again") from None
