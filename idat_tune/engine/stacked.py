"""Linear layers of several runs at once, so that their models share one frozen backbone and one pass."""

# R runs, N rows of all runs, I inputs, O outputs

import torch
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """R linear layers, each for its own part of the batch: of R equal parts, the first is the first run's.

    Holds the parameters of the layer that it replaces, whose values must be (R, O, I) and (R, O) by the time it is
    called.
    """

    def __init__(self, linear: nn.Linear, runs: int):
        super().__init__()
        self.runs = runs
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, ..., I) -> (N, ..., O)."""
        x_RNI, weight_RIO = x.reshape(self.runs, -1, x.shape[-1]), self.weight.mT
        out_RNO = x_RNI @ weight_RIO if self.bias is None else torch.baddbmm(self.bias[:, None], x_RNI, weight_RIO)
        return out_RNO.view(*x.shape[:-1], -1)


def stack(model: nn.Module, runs: int) -> None:
    """Replace every linear layer that trains by that of so many runs, in place."""
    trained = _trained_layers(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and child in trained:
                setattr(parent, name, StackedLinear(child, runs))


def _trained_layers(model: nn.Module) -> set[nn.Linear]:
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    return {layer for layer in layers if all(value.requires_grad for value in layer.parameters())}
