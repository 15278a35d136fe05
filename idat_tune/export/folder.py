"""The files of an export and how they are written: whole or not at all, and over nothing else."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor

from idat_tune import adapters, data, tasks, weights
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.export.card import card

FOLDER, MERGED, ONNX, PROGRAM = "folder", "merged", "onnx", "torch-export"  # formats
ADAPTER = "adapter.safetensors"
# The file of the student, by format.
STUDENTS = {FOLDER: ADAPTER, MERGED: "model.safetensors", ONNX: "student.onnx", PROGRAM: "student.pt2"}
PIXELS = "pixels.json"  # how images become pixels beyond what the backbone says; absent from older exports
FILES = (
    "config.yaml",
    ADAPTER,
    "metrics.json",
    "labels.json",
    "provenance.json",
    PIXELS,
    "README.md",
)
TEACHER = "teacher.safetensors"  # beside these, where student and teacher were exported as one model
PACKAGES = ("idat-tune", "torch", "timm")


def save(
    folder: Path,
    config: RunConfig,
    state: Mapping[str, Tensor],
    metrics: Mapping[str, Any],
    trained_with: Mapping[str, Mapping[str, Any]] | None = None,
    teacher: Mapping[str, Tensor] | None = None,
    protocol: Mapping[str, Any] | None = None,
) -> None:
    """Write a student's trained tensors and all that is needed to use them; replaces the folder as a whole.

    Args:
        folder: where to; its parent must exist.
        config: the run that trained it.
        state: what was trained, as `AdaptedModel.trained_state` gives it: adapters and head. The backbone is not
            copied, unless it trained as a whole (adapter.kind full).
        metrics: what is known of it, plain values; `test_accuracy` among them where it was measured.
        trained_with: which weights its backbones had, by name, as `weights.Identity.as_dict`; those that this machine
            has unless given.
        teacher: what was trained of its teacher, if the two are to be one model.
        protocol: how it came about, as far as known: `trained_on` (a split), `chosen` (a sentence without its full
            stop), `test_openings` (how often the test split was opened).

    Raises:
        BadInput: the folder cannot be replaced, or the weights cannot be told.
    """
    folder = folder.absolute()
    check_replaceable(folder)
    labels = label_names(config.task)
    form = {"name": FOLDER, "adapters": "apart", "with_teacher": teacher is not None, "library": "idat-tune"}
    provenance = {
        "format": {**form, "file": ADAPTER},
        "weights": _weights(config, trained_with),
        "data": _images(config.task),
        "protocol": {"selected_on_test": config.selected_on_test, **(protocol or {})},
        "versions": {name: version(name) for name in PACKAGES},
    }
    with replacing(folder) as place:
        save_file(adapters.deployed(state), place / ADAPTER)
        if teacher is not None:
            save_file(adapters.deployed(teacher), place / TEACHER)
        (place / PIXELS).write_text(json.dumps({"intensity": data.intensity(config.task)}) + "\n")
        describe(place, folder.name, config, labels, metrics, provenance)


def describe(
    place: Path,
    name: str,
    config: RunConfig,
    labels: list[str],
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write what every format has beside its tensors: config, labels, metrics, provenance and the model card."""
    (place / "config.yaml").write_text(yaml.safe_dump(config.flat(), sort_keys=False))
    (place / "metrics.json").write_text(json.dumps(dict(metrics), indent=2) + "\n")
    (place / "labels.json").write_text(json.dumps(labels, indent=2) + "\n")
    (place / "provenance.json").write_text(json.dumps(dict(provenance), indent=2) + "\n")
    (place / "README.md").write_text(card(name, config, labels, metrics, provenance), encoding="utf-8")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place as a whole in the end, or is gone."""
    place = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
        for path in place.iterdir():  # on the disk before the folder has its name
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        place.rename(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Refuse to export over anything but an earlier export or an empty folder: what is there would be lost.

    Raises:
        BadInput: the folder above does not exist, or there is something else at `folder`.
    """
    folder = folder.absolute()
    if not folder.parent.is_dir():
        raise BadInput(f"{folder} cannot be written: the folder {folder.parent} does not exist")
    if folder.is_dir():
        if not is_export(folder) and any(folder.iterdir()):
            raise BadInput(f"{folder} holds something else than an export, which would be lost; name a new folder")
    elif folder.exists():
        raise BadInput(f"{folder} is a file; name a new folder to export into")


def is_export(folder: Path) -> bool:
    """Whether a folder holds an export, of any format."""
    return (folder / "config.yaml").is_file() and any((folder / name).is_file() for name in STUDENTS.values())


def label_names(task: str) -> list[str]:
    """A name for every class of a task; its number where no name is known."""
    known = tasks.get(task)
    return list(known.class_names) or [str(label) for label in range(known.classes)]


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights(config: RunConfig, trained_with: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """The weights that the student depends on: those of its backbone and of its teacher's."""
    held = trained_with or {}
    names = {"student": config.student, **({} if config.alone else {"teacher": config.teacher})}
    return {
        role: {"backbone": name, **(held.get(name) or weights.identify(name).as_dict())} for role, name in names.items()
    }


def _images(task: str) -> dict[str, Any]:
    """What the images of a task are, as far as they are here."""
    try:
        known, content = data.task(task), data.content_hash(task)
    except BadInput:
        return {"task": task, "classes": tasks.get(task).classes, "sha256": None, "images": None}
    sizes = {"train": known.train, "val": known.val, "test": known.test}
    return {"task": task, "classes": known.classes, "sha256": content, "images": sizes}
