"""Compiled blocks: when they pay, and how to do without."""

from collections.abc import Sequence
from typing import Any

import torch

from idat_tune import adapters
from idat_tune.model import AdaptedModel

# What compiling costs the first worker of a node, as measured on a CPU; the others find it in torch's cache on disk.
# And what it saves of a step of the pair small and base at batch 32 on an H200: predicted, not yet measured.
SECONDS = 45.0
SAVED = 1 - 1 / 1.2
STEP = 8.5e-3  # seconds, of the pair small and base at batch 32 on an H200
RECOMPILATIONS = 64  # of one block: student's and teacher's, training or not, all tokens or the first


def pays(steps: int, device: torch.device) -> bool:
    """Whether compiling is worth it for a worker that has so many training steps before it."""
    return device.type == "cuda" and steps * STEP * SAVED > SECONDS


def compile_blocks(model: AdaptedModel, backend: str = "inductor") -> None:
    """Compile each transformer block where it is called as one; equal blocks share what is compiled."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILATIONS)
    for block in adapters.blocks_of(model.backbone):
        block.compile(dynamic=False, backend=backend)


def leave_uncompiled(models: Sequence[AdaptedModel]) -> None:
    """Take `compile_blocks` back."""
    for model in models:
        for block in adapters.blocks_of(model.backbone):
            uncompiled: Any = block
            uncompiled._compiled_call_impl = None
