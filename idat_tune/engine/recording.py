"""A function without arguments as one CUDA graph: recorded once, then replayed; elsewhere, itself."""

import logging
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

log = logging.getLogger(__name__)

WARM_UP = 3  # calls before a recording, in which libraries choose their kernels and take their workspaces


def recorded(
    function: Callable[[], None],
    device: torch.device,
    pool: Any,
    undone: Callable[[], AbstractContextManager],
) -> Callable[[], None]:
    """A callable that does what `function` does, with one launch on CUDA.

    Args:
        function: works in place on tensors that never move; it must not ask the device for a value.
        device: where it computes.
        pool: of graph memory, as `torch.cuda.graph_pool_handle` gives; one for all functions that never run at once.
        undone: a context after which the tensors are as before it, as recording calls the function.
    """
    if device.type != "cuda":
        return function
    try:
        with undone(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")  # as warm-up is
            return _record(function, device, pool).replay
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as failure:
        log.warning("steps cannot be recorded here, computing them one by one: %s", str(failure).split("\n")[0])
        return function


def _record(function: Callable[[], None], device: torch.device, pool: Any) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        function()
    return graph
