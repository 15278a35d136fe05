"""Starting configs that did well elsewhere, tried right after the arms."""

from collections.abc import Collection, Mapping
from typing import Any

from idat_tune import tasks
from idat_tune.recipes import RECIPES

# For the 19 tasks of VTAB-1K, and a user's own: the greedy portfolio of AdaptFormer over the published tuning logs of
# OSU-MLB/ViT_PEFT_Vision (36 configs on 19 tasks, ViT-B/16, no distillation; mean over tasks of the best validation
# accuracy so far: 72.3, 73.5, 74.0, 74.3, 74.6, where the best of all 36 per task gives 75.1). `parallel` is what sits
# where AdaptFormer does, beside every MLP, among the kinds that spaces search by default.
VTAB = tuple(
    {
        "adapter.kind": "parallel",
        "adapter.hidden_dim": hidden_dim,
        "adapter.scale": scale,
        "optim.lr": lr,
        "optim.weight_decay": 1e-4,
    }
    for hidden_dim, scale, lr in (
        (16, 0.2, 1e-3),
        (32, 0.05, 1e-2),
        (16, 0.1, 1e-3),
        (32, 0.2, 1e-2),
        (32, 0.1, 1e-3),
    )
)

# What is known for a kind of its own, for the same tasks. Of both FacTs: greedy from the same logs (mean over tasks of
# the best validation accuracy so far: 72.5, 73.4 with TT, 72.2, 73.4 with TK). Of the others: their published recipes.
OF_KIND = {
    kind: tuple(
        {
            "adapter.kind": kind,
            "adapter.hidden_dim": rank,
            "adapter.scale": scale,
            "optim.lr": lr,
            "optim.weight_decay": weight_decay,
        }
        for rank, scale, lr, weight_decay in points
    )
    for kind, points in {
        "fact_tt": ((32, 1.0, 1e-3, 1e-3), (8, 0.1, 1e-2, 1e-4)),
        "fact_tk": ((64, 1.0, 1e-3, 1e-4), (32, 1.0, 1e-3, 1e-4)),
    }.items()
} | {kind: (RECIPES[kind].settings,) for kind in ("arc", "mosa", "adapter_plus")}

# For the embedded tasks: greedy too, over 200 recorded configs, from the tasks that were recorded other than the task
# itself; `python -m benchmarks.portfolio` prints them. What is best on sprites_loc is best on it and digits together,
# because the configs differ far less on digits.
_FROM_SPRITES_LOC = (
    {
        "teacher": "glyph_base",
        "adapter.kind": "parallel_shared",
        "adapter.hidden_dim": 32,
        "optim.lr": 0.00727,
        "distill.loss": "mse",
        "distill.weight": 0.356,
        "adapter.scale": 7.49,
    },
    {
        "teacher": "glyph_small",
        "adapter.kind": "parallel",
        "adapter.hidden_dim": 32,
        "optim.lr": 0.00384,
        "distill.loss": "kl",
        "distill.temperature": 4.45,
        "distill.weight": 4.53,
        "adapter.scale": 2.18,
    },
    {
        "teacher": "glyph_base",
        "adapter.kind": "sequential",
        "adapter.hidden_dim": 32,
        "optim.lr": 0.0192,
        "distill.loss": "mae",
        "distill.weight": 0.21,
    },
    {
        "teacher": "glyph_small",
        "adapter.kind": "parallel",
        "adapter.hidden_dim": 32,
        "optim.lr": 0.0218,
        "distill.loss": "mse",
        "distill.weight": 0.351,
        "adapter.scale": 2.2,
    },
    {
        "teacher": "glyph_base",
        "adapter.kind": "parallel",
        "adapter.hidden_dim": 16,
        "optim.lr": 0.00721,
        "distill.loss": "kl",
        "distill.temperature": 6.59,
        "distill.weight": 10.9,
        "adapter.scale": 5.92,
    },
)
_FROM_DIGITS = (
    {
        "teacher": "glyph_base",
        "adapter.kind": "parallel",
        "adapter.hidden_dim": 16,
        "optim.lr": 0.00721,
        "distill.loss": "kl",
        "distill.temperature": 6.59,
        "distill.weight": 10.9,
        "adapter.scale": 5.92,
    },
    {
        "teacher": "glyph_base",
        "adapter.kind": "parallel_shared",
        "adapter.hidden_dim": 32,
        "optim.lr": 0.00727,
        "distill.loss": "mse",
        "distill.weight": 0.356,
        "adapter.scale": 7.49,
    },
    {
        "teacher": "glyph_small",
        "adapter.kind": "sequential",
        "adapter.hidden_dim": 8,
        "optim.lr": 0.0233,
        "distill.loss": "mae",
        "distill.weight": 0.52,
    },
    {
        "teacher": "none",
        "adapter.kind": "parallel",
        "adapter.hidden_dim": 32,
        "optim.lr": 0.0147,
        "adapter.scale": 0.0587,
    },
    {
        "teacher": "glyph_base",
        "adapter.kind": "sequential",
        "adapter.hidden_dim": 32,
        "optim.lr": 0.0048,
        "distill.loss": "cos",
        "distill.weight": 0.19,
    },
)
EMBEDDED = {"digits": _FROM_SPRITES_LOC, "sprites_loc": _FROM_DIGITS, "sprites_ori": _FROM_SPRITES_LOC}


def starts(task: str, kinds: Collection[str] = ()) -> tuple[Mapping[str, Any], ...]:
    """The starting configs for a task, best first, as flat mappings of dotted keys; the rest is as the task has it.

    They were chosen on other tasks: for an embedded one on the other embedded ones that were recorded, for all others
    on VTAB-1K. Where `kinds` says what kinds of adapter a search tries, those that are known for these come behind; of
    a single kind that has its own they come alone.

    Raises:
        BadInput: no task goes by that name.
    """
    known = tasks.get(task)
    if known.name in EMBEDDED:
        return EMBEDDED[known.name]
    own = tuple(point for kind in OF_KIND if kind in kinds for point in OF_KIND[kind])
    return own if own and len(kinds) == 1 else (*VTAB, *own)
