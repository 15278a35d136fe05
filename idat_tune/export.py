"""A trained student as a folder of plain files; load it and predict with it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from idat_tune import data, reading, tasks, weights
from idat_tune.backbones import RANDOM
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput, shown
from idat_tune.kinds import KINDS
from idat_tune.model import AdaptedModel, build
from idat_tune.tasks import Task

MOST_CHARACTERS = 10_000_000  # of a file of an export
PIXELS = "pixels.json"  # how images become pixels beyond what the backbone says; absent from older exports
FILES = (
    "config.yaml",
    "adapter.safetensors",
    "metrics.json",
    "labels.json",
    "provenance.json",
    PIXELS,
    "README.md",
)
PACKAGES = ("idat-tune", "torch", "timm")


class Student(nn.Module):
    """A student ready to use, in eval mode: no teacher, no optimizer.

    student.transform(image)        PIL image -> bytes (channels, H, W), as the training images were made
    student(pixels)                 bytes (B, channels, H, W) -> logits (B, classes)
    student.predict([image, ...])   PIL images -> [(label, probability), ...]

    `intensity` is what became black and white in training images of more than 8 bits; see `data.decode`.
    """

    def __init__(
        self,
        model: AdaptedModel,
        config: RunConfig,
        labels: Sequence[str],
        metrics: Mapping[str, Any],
        intensity: tuple[float, float] | None = None,
    ):
        super().__init__()
        self.model = model
        self.config = config
        self.labels = list(labels)
        self.metrics = dict(metrics)
        self.transform = partial(_transform, spec=model.spec, intensity=intensity)
        self.intensity = intensity
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, classes) of pixels (B, channels, H, W) in 0..255; normalises them itself."""
        return self.model(pixels)

    def predict(self, images: Sequence[Image.Image]) -> list[tuple[str, float]]:
        """The most probable label of each image, and its probability."""
        device = self.model.device
        with torch.no_grad():
            pixels = torch.stack([self.transform(image) for image in images]).to(device)
            probability, index = self(pixels).softmax(dim=-1).max(dim=-1)
        return [(self.labels[i], p) for i, p in zip(index.tolist(), probability.tolist(), strict=True)]


def _transform(image: Image.Image, spec: Any, intensity: tuple[float, float] | None) -> Tensor:
    return torch.from_numpy(data.decode(image, spec.size, spec.channels, spec.interpolation, intensity))


def save(
    folder: Path,
    config: RunConfig,
    state: Mapping[str, Tensor],
    metrics: Mapping[str, Any],
    trained_with: Mapping[str, Mapping[str, Any]] | None = None,
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

    Raises:
        BadInput: the folder cannot be replaced, or the weights cannot be told.
    """
    folder = folder.absolute()
    check_replaceable(folder)
    provenance = _provenance(config, trained_with)
    partial_folder = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir()
    labels = label_names(config.task)
    (partial_folder / "config.yaml").write_text(yaml.safe_dump(config.flat(), sort_keys=False))
    save_file(dict(state), partial_folder / "adapter.safetensors")
    (partial_folder / "metrics.json").write_text(json.dumps(dict(metrics), indent=2) + "\n")
    (partial_folder / "labels.json").write_text(json.dumps(labels, indent=2) + "\n")
    (partial_folder / PIXELS).write_text(json.dumps({"intensity": data.intensity(config.task)}) + "\n")
    (partial_folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    (partial_folder / "README.md").write_text(_card(folder.name, config, metrics, provenance["weights"]))
    shutil.rmtree(folder, ignore_errors=True)
    partial_folder.rename(folder)


def check_replaceable(folder: Path) -> None:
    """Refuse to export over anything but an earlier export or an empty folder: what is there would be lost.

    Raises:
        BadInput: the folder above does not exist, or there is something else at `folder`.
    """
    folder = folder.absolute()
    if not folder.parent.is_dir():
        raise BadInput(f"{folder} cannot be written: the folder {folder.parent} does not exist")
    if folder.is_dir():
        earlier = (folder / "adapter.safetensors").is_file() and (folder / "config.yaml").is_file()
        if not earlier and any(folder.iterdir()):
            raise BadInput(f"{folder} holds something else than an export, which would be lost; name a new folder")
    elif folder.exists():
        raise BadInput(f"{folder} is a file; name a new folder to export into")


def label_names(task: str) -> list[str]:
    """A name for every class of a task; its number where no name is known."""
    known = tasks.get(task)
    return list(known.class_names) or [str(label) for label in range(known.classes)]


def _provenance(config: RunConfig, trained_with: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """What the student depends on: the weights of its backbone and of its teacher's, and versions."""
    held = trained_with or {}
    names = {"student": config.student, **({} if config.alone else {"teacher": config.teacher})}
    return {
        "weights": {
            role: {"backbone": name, **(held.get(name) or weights.identify(name).as_dict())}
            for role, name in names.items()
        },
        "versions": {name: version(name) for name in PACKAGES},
    }


def _card(name: str, config: RunConfig, metrics: Mapping[str, Any], held: Mapping[str, Mapping[str, Any]]) -> str:
    taught = "without a teacher" if config.alone else f"beside the teacher `{config.teacher}`"
    lines = [
        f"# {name}: {config.student} adapted to {tasks.get(config.task).title}",
        "",
        f"{_what_trained(config)}, trained {taught} by idat-tune. {_what_it_holds(config)}",
        "",
        *(_SELECTED_ON_TEST if config.selected_on_test else []),
        "```python",
        "import idat_tune",
        "from PIL import Image",
        "",
        'student = idat_tune.load("path/to/this/folder")',
        'student.predict([Image.open("image.png")])',
        "```",
        "",
        "| measured | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in metrics.items()),
        "",
        "| weights | of | file | sha256 |",
        "|---|---|---|---|",
        *(f"| {role} | `{of['backbone']}` | {of['file']} | {of['sha256'] or ''} |" for role, of in held.items()),
        "",
    ]
    return "\n".join(lines)


_SELECTED_ON_TEST = [
    "**Selected on test**: of all epochs the one with the best test accuracy was kept, as in the paper's protocol. "
    "Its test accuracy is no estimate of what new images give.",
    "",
]


def _what_trained(config: RunConfig) -> str:
    if config.adapter.kind == "full":
        return f"A `{config.student}`, all of it"
    if config.adapter.kind == "linear":
        return f"A linear head on a frozen `{config.student}`"
    hidden = (
        f" (hidden dimension {config.adapter.hidden_dim})"
        if "adapter.hidden_dim" in KINDS[config.adapter.kind].uses
        else ""
    )
    return f"A frozen `{config.student}` with {config.adapter.kind} adapters{hidden}"


def _what_it_holds(config: RunConfig) -> str:
    if config.adapter.kind == "full":
        return "`adapter.safetensors` holds the whole backbone and the head."
    return "`adapter.safetensors` holds the adapters and the head; the backbone comes from its own source."


def load(folder: str | Path, device: str = "cpu", merge: bool = False) -> Student:
    """The student of an export folder, in eval mode, with its transform, labels, config and metrics.

    Args:
        folder: as `save` wrote it.
        device: where the student goes.
        merge: fold the adapters into the backbone's weights, so that the student costs what the backbone costs; its
            logits then differ by rounding (below 1e-5) from those that were tested. For kinds that can (`kinds.KINDS`).

    Raises:
        BadInput: a file is missing or damaged, the tensors do not fit the config, or the backbone has other weights
            than the student was trained with; names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no export folder at {folder}; a search writes one at <out>/<name>/best")
    for name in FILES[:5]:  # older exports lack the rest
        if not (folder / name).is_file():
            raise BadInput(f"export folder {folder} is incomplete: {name} is missing; it holds {', '.join(FILES)}")
    intensity = _read(folder / PIXELS, _intensity) if (folder / PIXELS).is_file() else None
    labels = _read(folder / "labels.json", _labels)
    metrics = _read(folder / "metrics.json", _metrics)
    config = _read(folder / "config.yaml", lambda text: _config(reading.yaml_value(text), labels))
    try:
        state = load_file(folder / "adapter.safetensors")
    except (SafetensorError, OSError) as failure:
        raise BadInput(f"{folder / 'adapter.safetensors'} is damaged: {failure}; export it again") from None
    # Where everything was trained, the file holds everything: no pretrained weights are needed.
    whole = config.adapter.kind == "full"
    held = _read(folder / "provenance.json", _weights_of)
    if not whole:
        weights.check_same(
            config.student, held, f"the student in {folder} was trained with", ", or train it again on these"
        )
    backbone = RANDOM + config.student.removeprefix(RANDOM) if whole else config.student
    model = build(backbone, len(labels), config, seed=0)
    try:
        model.load_trained_state(state)
    except BadInput as failure:
        raise BadInput(f"{folder / 'adapter.safetensors'}: {failure}") from None
    if merge:
        model.merge(config.adapter.kind)
    return Student(model, config, labels, metrics, intensity).to(device)


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


def _weights_of(text: str) -> Mapping[str, Any]:
    """What a provenance says of the student's backbone."""
    held = reading.json_value(text)["weights"]["student"]
    told = isinstance(held, dict) and isinstance(held.get("file"), str)
    if not told or not isinstance(held.get("sha256"), str | None):
        raise ValueError("it does not say which weights the student was trained with")
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
