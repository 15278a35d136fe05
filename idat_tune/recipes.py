"""Recipes: a kind of adapter as its authors publish it; over a task's defaults, and below what is set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from idat_tune.errors import BadInput, shown, unknown

KIND = "adapter.kind"


@dataclass(frozen=True)
class Recipe:
    """What a kind's authors publish, as far as it is known, for all tasks alike; what it leaves out is as always."""

    settings: Mapping[str, Any]  # dotted keys of a run, the kind among them
    otherwise: str  # what its authors do that a run here does not, or what they publish no single value of


# No row says anything of a teacher: with one it is what inverse distillation adds to the kind, `teacher=none` is the
# kind as published. Kinds that have no row publish nothing that differs from the defaults, or it is not known.
RECIPES = {
    "ssf": Recipe({KIND: "ssf"}, "nothing: learning rate, decay and drop-path per task are the defaults"),
    "lora": Recipe({KIND: "lora", "adapter.hidden_dim": 8, "adapter.targets": "qv"}, "the scale is not known here"),
    "adaptformer": Recipe({KIND: "adaptformer", "adapter.hidden_dim": 64, "adapter.dropout": 0.1}, ""),
    "repadapter": Recipe({KIND: "repadapter", "adapter.hidden_dim": 8}, "the scale is chosen per task"),
    "convpass": Recipe({KIND: "convpass", "adapter.hidden_dim": 8}, "the scale is chosen per task"),
    "adapter_plus": Recipe(
        {
            KIND: "adapter_plus",
            "adapter.hidden_dim": 16,  # with the mean head 0.35 M, the size that its results are published for
            "optim.lr": 1e-3,
            "optim.weight_decay": 1e-4,
            "batch_size": 64,
            "model.drop_path": 0.1,
        },
        "images are normalised by ImageNet's mean and deviation",
    ),
    "res_adapter": Recipe(
        {KIND: "res_adapter", "adapter.hidden_dim": 32, "adapter.scale": 1.0}, "its other tuners are not public"
    ),
    "fact_tt": Recipe({KIND: "fact_tt", "adapter.dropout": 0.1}, "rank and scale are chosen per task"),
    "fact_tk": Recipe({KIND: "fact_tk", "adapter.dropout": 0.1}, "rank and scale are chosen per task"),
    "arc": Recipe(
        {
            KIND: "arc",
            "adapter.hidden_dim": 50,
            "adapter.dropout": 0.1,
            "optim.lr": 1e-2,
            "optim.weight_decay": 0.0,
        },
        "gradients are cut to a norm of 1, and warm-up rises with every step",
    ),
    "vera": Recipe({KIND: "vera", "adapter.hidden_dim": 256}, ""),
    "dora": Recipe({KIND: "dora", "adapter.hidden_dim": 8}, ""),
    "mona": Recipe(
        {
            KIND: "mona",
            "adapter.hidden_dim": 64,
            "adapter.dropout": 0.1,
            "optim.lr": 3.1e-5,
            "optim.weight_decay": 0.05,
        },
        "Swins alone, with crops and flips; no result on VTAB-1K",
    ),
    "mosa": Recipe(
        {
            KIND: "mosa",
            "adapter.hidden_dim": 16,
            "adapter.scale": 0.1,
            "adapter.dropout": 0.1,
            "optim.lr": 5e-3,
            "optim.weight_decay": 0.01,
            "batch_size": 128,
        },
        "two passes in a step, with half the KL both ways between them beside the first one's loss",
    ),
    "gist": Recipe(
        {KIND: "parallel_shared", "adapter.hidden_dim": 4, "adapter.scale": 0.1, "gist.token": True},
        "nothing: learning rate, decay and drop-path per task are the defaults",
    ),
}


def get(name: object) -> Recipe:
    """The recipe of that name.

    Raises:
        BadInput: there is none; with the nearest known one.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[str(name)]


def under(name: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recipe, if one is named, with changes on top.

    Raises:
        BadInput: there is no such recipe, or the changes make another kind of adapter of it.
    """
    if name is None:
        return dict(changes)
    settings = get(name).settings
    if changes.get(KIND, settings[KIND]) != settings[KIND]:
        raise BadInput(
            f"recipe {name} is one of {KIND} {settings[KIND]}, and {KIND} is set to {shown(changes[KIND])}; leave one "
            "of the two away"
        )
    return {**settings, **changes}
