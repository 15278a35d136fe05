"""Starting configs that did well elsewhere, tried right after the arms."""

from collections.abc import Mapping
from typing import Any

from idat_tune import tasks

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


def starts(task: str) -> tuple[Mapping[str, Any], ...]:
    """The starting configs for a task, best first, as flat mappings of dotted keys; the rest is as the task has it.

    They were chosen on other tasks: for an embedded one on the other embedded ones that were recorded, for all others
    on VTAB-1K.

    Raises:
        BadInput: no task goes by that name.
    """
    known = tasks.get(task)
    return EMBEDDED.get(known.name, VTAB)
