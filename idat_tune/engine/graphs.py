"""A function without arguments as one CUDA graph: recorded once, then replayed; elsewhere, itself."""

import logging
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from idat_tune.engine.devices import broken

log = logging.getLogger(__name__)

Step = Callable[[], None]

WARM_UP = 3  # calls before a recording, in which libraries choose their kernels and take their workspaces


class Recorder:
    """Records for one device; all its recordings share their memory, as no two of them run at once."""

    def __init__(self, device: torch.device):
        self.device = device
        self.failures = 0  # functions that could not be recorded
        self._pool = self._new_pool()
        # One for all recordings: what one leaves free is of no use to the next in another stream.
        self._stream = self._new_stream()

    def _new_stream(self) -> Any:
        if self.device.type != "cuda":
            return None
        with torch.cuda.device(self.device):  # which need not be the current one
            return torch.cuda.Stream()

    def _new_pool(self) -> Any:
        return torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None

    def recorded(self, function: Step, undone: Callable[[], AbstractContextManager]) -> Step:
        """A callable that does what `function` does, with one launch on CUDA.

        Args:
            function: works in place on tensors that never move; it must not ask the device for a value.
            undone: a context after which the tensors are as before it, as recording calls the function.

        Raises:
            OutOfMemoryError: torch's own; there may be room another time.
            RuntimeError: the device can compute nothing any more.
        """
        if self.device.type != "cuda":
            return function
        try:
            with undone(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")  # as warm-up is
                return self._record(function)
        except torch.OutOfMemoryError:
            self._pool = self._new_pool()
            raise
        except RuntimeError as failure:
            if broken(self.device):
                raise
            self.failures += 1
            # The old one may be left in the state of recording.
            self._pool = self._new_pool()
            log.warning(
                "steps cannot be recorded here, computing them one by one (number %d of this process): %s",
                self.failures,
                str(failure).split("\n")[0],
            )
            return function

    def _record(self, function: Step) -> Step:
        # Not in the stream that torch keeps for all recordings, which is on the device that was current at the first.
        with torch.cuda.device(self.device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP):
                    function()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                function()
        return graph.replay
