"""The model card of an export: what a reader of its folder, or of its page on the hub, should know."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from idat_tune import tasks, weights
from idat_tune.config import RunConfig
from idat_tune.errors import printable
from idat_tune.kinds import KINDS

MOST_CLASSES = 40  # that are named one by one
Z = 1.959964  # standard normal quantile of a two-sided interval of 95 %


def card(
    name: str, config: RunConfig, labels: Sequence[str], metrics: Mapping[str, Any], provenance: Mapping[str, Any]
) -> str:
    """The text of README.md: front matter as the hub reads it, then what it is, how to use it, and what is known.

    Args:
        name: of the export.
        config: the run that trained it.
        labels: its classes.
        metrics: what is known of it, as in metrics.json.
        provenance: as in provenance.json.
    """
    form, held = provenance["format"], provenance["weights"]
    taught = "without a teacher" if config.alone else f"beside the teacher `{config.teacher}`"
    lines = [
        "---",
        _front_matter(name, config, metrics, provenance),
        "---",
        "",
        f"# {_cell(name)}: {config.student} adapted to {_cell(tasks.get(config.task).title)}",
        "",
        f"{_what_trained(config)}, trained {taught} by idat-tune. {_what_it_holds(config, form)}",
        "",
        *([_PAIR.format(config.teacher), ""] if form["with_teacher"] else []),
        *(_SELECTED_ON_TEST if config.selected_on_test else []),
        *_USE[form["name"]],
        "",
        *_data(config.task, labels, provenance["data"]),
        *_protocol(config, metrics, provenance["protocol"]),
        *_results(metrics, provenance["data"]["images"] or {}),
        *(
            [f"The search's verdict: {_cell(verdict)}", ""]
            if (verdict := provenance["protocol"].get("verdict"))
            else []
        ),
        "## Weights",
        "",
        *_table(("weights", "of", "file", "sha256", "licence"), (_weights_row(role, of) for role, of in held.items())),
        "",
        _licence(held),
        "",
    ]
    return "\n".join(lines)


def _front_matter(name: str, config: RunConfig, metrics: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    form, known = provenance["format"], tasks.get(config.task)
    roles = provenance["weights"] if form["with_teacher"] else ("student",)
    bases = dict.fromkeys(weights.origin(provenance["weights"][role]["backbone"]).repository for role in roles)
    base = [repository for repository in bases if repository]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=known.name,
            dataset_name=known.title,
            dataset_split=split,
            metric_type="accuracy",
            metric_value=metrics[f"{split}_accuracy"],
            metric_name=_metric(split, config),
        )
        for split in ("test", "val")
        if metrics.get(f"{split}_accuracy") is not None
    ]
    about: dict[str, Any] = {"base_model_relation": "adapter" if form["adapters"] == "apart" else "finetune"}
    return ModelCardData(
        license="other",  # whoever publishes it chooses
        license_name="to-be-chosen-by-its-publisher",
        library_name=form["library"],
        pipeline_tag="image-classification",
        base_model=base[0] if len(base) == 1 else base or None,
        tags=["idat-tune", "inverse-distillation", f"adapter-{config.adapter.kind}", *_TAGS.get(form["name"], [])],
        metrics=["accuracy"],
        model_name=name,
        eval_results=results or None,
        **(about if base else {}),
    ).to_yaml()


def _metric(split: str, config: RunConfig) -> str:
    return f"{split} accuracy{', selected on test' * (split == 'test' and config.selected_on_test)}"


_TAGS = {"onnx": ["onnx"], "torch-export": ["torch.export"]}

_PYTHON = [
    "```python",
    "import idat_tune",
    'student = idat_tune.load("path/to/this/folder")  # or its name on the hub',
    'student.predict(["image.png"])  # [(label, probability)]',
    "```",
]
_EXAMPLE = "`python example.py image.png ...` prints the label of each image; it needs nothing of idat-tune."
_ANYWHERE = [
    "`preprocessing.json` says how an image becomes what the model takes: bytes (batch, channels, height, width). "
    "Normalisation is inside the model."
]
_USE = {
    "folder": _PYTHON,
    "merged": _PYTHON,
    "onnx": [f"{_EXAMPLE[:-1]}, only onnxruntime, numpy and pillow.", "", *_ANYWHERE],
    "torch-export": [
        _EXAMPLE,
        "",
        *_ANYWHERE,
        "",
        "`student.pt2` holds no pickled tensors, but `torch.export.load` would unpickle those of a file that has some. "
        "So load it only as it was written: `provenance.json` has its sha256.",
    ],
}

_SELECTED_ON_TEST = [
    "**Selected on test**: of all epochs the one with the best test accuracy was kept, as in the paper's protocol. "
    "Its test accuracy is no estimate of what new images give.",
    "",
]


_PAIR = (
    "**With its teacher**: the adapted `{}` is part of this model. Its probabilities are the mean of both, and so are "
    "the figures below."
)


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


def _what_it_holds(config: RunConfig, form: Mapping[str, Any]) -> str:
    file = f"`{form['file']}`"
    if form["adapters"] == "merged":
        return f"{file} holds the whole model, the adapters merged into the backbone's weights."
    if form["name"] != "folder":
        return f"{file} holds the whole model, backbone, adapters and head."
    if config.adapter.kind == "full":
        return f"{file} holds the whole backbone and the head."
    return f"{file} holds the adapters and the head; the backbone comes from its own source."


def _data(task: str, labels: Sequence[str], held: Mapping[str, Any]) -> list[str]:
    images = held["images"] or {}
    sizes = ", ".join(f"{count:,} {split}" for split, count in images.items()) or "not known here"
    shown = ", ".join(map(_cell, labels[:MOST_CLASSES]))
    more = f" and {len(labels) - MOST_CLASSES} more (`labels.json`)" if len(labels) > MOST_CLASSES else ""
    rows = [
        ("task", f"{_cell(tasks.get(task).title)} (`{_cell(task)}`)"),
        ("images", sizes),
        ("sha256 of images and labels", held["sha256"] or "not known here"),
        (f"{len(labels)} classes", shown + more),
    ]
    return ["## Data", "", *_table(("data", ""), rows), ""]


def _protocol(config: RunConfig, metrics: Mapping[str, Any], held: Mapping[str, Any]) -> list[str]:
    trained_on = _TRAINED_ON.get(held.get("trained_on", ""), "images of the task")
    recipe = (
        f"{config.total_epochs} epochs of batches of {config.batch_size}, learning rate {config.optim.lr:.3g}, weight "
        f"decay {config.optim.weight_decay:.3g}, seed {config.seed}"
    )
    said = [f"Trained on {trained_on}: {recipe}. All settings are in `config.yaml`."]
    if held.get("chosen"):
        said.append(f"{held['chosen']}.")
    if held.get("test_openings") is not None:
        times = held["test_openings"]
        said.append(f"The test split was opened {'once' if times == 1 else f'{times} times'}.")
    if metrics.get("trained_again"):
        said.append("Its tensors were trained again with the same config and seed after its figures were measured.")
    if metrics.get("trained_for_export"):
        said.append("It was trained for this export, and was not tested: the test split stayed closed.")
    return ["## Protocol", "", " ".join(said), ""]


_TRAINED_ON = {
    "train": "the train split",
    "trainval": "the train and val splits together",
}


def _results(metrics: Mapping[str, Any], images: Mapping[str, int]) -> list[str]:
    rows = []
    for split in ("test", "val"):
        accuracy = metrics.get(f"{split}_accuracy")
        if accuracy is not None:
            rows.append((f"{split} accuracy", f"{100 * accuracy:.2f} %", _over_images(accuracy, images.get(split))))
    if metrics.get("test_accuracy_mean") is not None:
        spread = metrics["test_accuracy_std"]
        over = f"standard deviation {100 * spread:.2f}" if spread is not None else ""
        named = f"test accuracy, mean of {metrics['test_seeds']} seeds"
        rows.append((named, f"{100 * metrics['test_accuracy_mean']:.2f} %", over))
    if metrics.get("confirmed_accuracy") is not None:
        error = metrics.get("confirmed_standard_error")
        over = f"standard error {100 * error:.2f}" if error is not None and math.isfinite(error) else ""
        named = f"accuracy on {metrics['confirmed_folds']} disjoint splits of the training images"
        rows.append((named, f"{100 * metrics['confirmed_accuracy']:.2f} %", over))
    if metrics.get("trainable_params") is not None:
        rows.append(("trained numbers", f"{metrics['trainable_params']:,}", ""))
    lines = _table(("measured", "", "95 % interval, or spread"), rows) if rows else ["Nothing was measured."]
    compared = [_comparison(one) for one in metrics.get("comparisons", [])]
    if compared:
        lines += ["", *_table(("compared", "on", "difference in points", "95 % interval"), compared)]
    return ["## Results", "", *lines, ""]


def _verdict(said: str | None) -> list[str]:
    return [f"The search's verdict: {_cell(said)}", ""] if said else []


def _over_images(accuracy: float, images: int | None) -> str:
    """Wilson's interval for the share of right answers: what other images of the same kind may give this student."""
    if not images:
        return ""
    centre = (accuracy + Z**2 / (2 * images)) / (1 + Z**2 / images)
    half = Z / (1 + Z**2 / images) * math.sqrt(accuracy * (1 - accuracy) / images + Z**2 / (4 * images**2))
    return f"{100 * (centre - half):.2f} to {100 * (centre + half):.2f} ({images:,} images)"


def _comparison(held: Mapping[str, Any]) -> tuple[str, ...]:
    names = " against ".join(held[side].replace("_", " ") for side in ("ours", "theirs"))
    where = "test" if held["split"] == "test" else "splits"
    interval = held["interval"]
    bounds = " to ".join(f"{100 * bound:+.2f}" for bound in interval) if interval else "too few for one"
    return names, where, f"{100 * held['mean']:+.2f}", bounds


def _weights_row(role: str, of: Mapping[str, Any]) -> tuple[str, ...]:
    return role, f"`{of['backbone']}`", of["file"], of["sha256"] or "", weights.origin(of["backbone"]).licence or ""


def _licence(held: Mapping[str, Mapping[str, Any]]) -> str:
    origins = {of["backbone"]: weights.origin(of["backbone"]).licence for of in held.values()}
    known = [f"`{backbone}` under {licence}" for backbone, licence in origins.items() if licence]
    published = f" Their weights were published {', '.join(known)}." if known else ""
    return (
        "Whoever publishes this model chooses its licence (`license` above), as far as those of the backbones and of "
        f"the images allow.{published}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    written = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in written]


def _cell(text: str) -> str:
    """What a user named, as part of a line or a table of Markdown."""
    return "".join(f"\\{c}" if c in r"\|`*_[]<>#" else c for c in printable(text))
