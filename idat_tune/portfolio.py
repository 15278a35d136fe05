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

EMBEDDED: dict[str, tuple[Mapping[str, Any], ...]] = {}


def starts(task: str) -> tuple[Mapping[str, Any], ...]:
    """The starting configs for a task, best first, as flat mappings of dotted keys; the rest is as the task has it.

    They were chosen on other tasks: for an embedded one on the other embedded ones that were recorded, for all others
    on VTAB-1K.

    Raises:
        BadInput: no task goes by that name.
    """
    known = tasks.get(task)
    return EMBEDDED.get(known.name, VTAB)
