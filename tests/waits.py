"""Watches for operations that make the host wait."""

from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Operations for which the host waits until the device has come to them."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(name in str(function) for name in ("_local_scalar_dense", "nonzero", "masked_select", "equal.default")):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))
