"""Low-rank updates of frozen linear layers."""

# O outputs, D inputs of a linear layer, R rank; `...` batch and tokens

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import block_lists, blocks_of, scaled, width_of
from idat_tune.adapters.operations import Mergeable, Scaled, any_of, with_values
from idat_tune.config import AdapterConfig

DRAWN_FROM = 0  # seed of VeRA's frozen matrices
VERA_D = 0.1  # what its d starts at


def _pair(inputs: int, outputs: int, rank: int, generator: Generator | None) -> tuple[nn.Linear, nn.Linear]:
    """A and B of an update B A, which starts at zero."""
    down, up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
    nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5), generator=generator)
    nn.init.zeros_(up.weight)
    return down, up


class LoraQkv(Scaled):
    """LoRA on some of queries, keys and values of a fused qkv: W x + s B A x for each of them, B starting at zero.

    s is `adapter.scale`, which others write as alpha / rank; `adapter.hidden_dim` is the rank.
    """

    def __init__(self, operation: nn.Linear, config: AdapterConfig, generator: Generator | None, parts: str = "qv"):
        super().__init__(operation, config)
        self.third = operation.out_features // 3
        self.parts = parts
        for part in self.parts:
            down, up = _pair(operation.in_features, self.third, config.hidden_dim, generator)
            self.add_module(f"{part}_down", down)
            self.add_module(f"{part}_up", up)

    def _layers(self) -> dict[str, tuple[Any, Any]]:
        return {part: (getattr(self, f"{part}_down"), getattr(self, f"{part}_up")) for part in self.parts}

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., 3 D)."""
        out = dict(zip("qkv", self.operation(x).chunk(3, dim=-1), strict=True))
        for part, (down, up) in self._layers().items():
            out[part] = out[part] + scaled(up(down(x)), self.scale)
        return torch.cat(list(out.values()), dim=-1)

    def merged(self) -> nn.Module:
        """W' = W + s B A in the rows of each part."""
        old: Any = self.operation
        rows = dict(zip("qkv", old.weight.split(self.third), strict=True))
        for part, (down, up) in self._layers().items():
            rows[part] = rows[part] + self.scale * up.weight @ down.weight
        return with_values(old, torch.cat(list(rows.values())), old.bias)


class LoraLinear(Scaled):
    """LoRA on a linear layer: W x + s B A x, B starting at zero."""

    def __init__(self, operation: nn.Linear, config: AdapterConfig, generator: Generator | None):
        super().__init__(operation, config)
        self.down, self.up = _pair(operation.in_features, operation.out_features, config.hidden_dim, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., O)."""
        return self.operation(x) + scaled(self.up(self.down(x)), self.scale)

    def merged(self) -> nn.Module:
        """W' = W + s B A."""
        old: Any = self.operation
        return with_values(old, old.weight + self.scale * self.up.weight @ self.down.weight, old.bias)


def lora(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """LoRA (Hu et al., ICLR 2022) in every block on what `adapter.targets` names.

    qv: queries and values; qkv: keys too; all: beside these the output of attention and both layers of the MLP. Each
    of q, k and v has A and B of its own.
    """
    for block in any_of(blocks_of(backbone)):
        block.attn.qkv = LoraQkv(block.attn.qkv, config, generator, "qv" if config.targets == "qv" else "qkv")
        if config.targets == "all":
            block.attn.proj = LoraLinear(block.attn.proj, config, generator)
            block.mlp.fc1 = LoraLinear(block.mlp.fc1, config, generator)
            block.mlp.fc2 = LoraLinear(block.mlp.fc2, config, generator)


class DoraQkv(LoraQkv):
    """DoRA on queries and values of a fused qkv: m * (W + s B A) / |W + s B A|, row by row.

    m starts at the rows' own lengths, so that a fresh one is the identity. For the gradient the lengths that are
    divided by are constants, as its authors advise.
    """

    def __init__(self, operation: nn.Linear, config: AdapterConfig, generator: Generator | None):
        super().__init__(operation, config, generator)
        for part, weight_OD in self._rows().items():
            self.register_parameter(f"{part}_length", nn.Parameter(weight_OD.norm(dim=1)))

    def _rows(self) -> dict[str, Tensor]:
        """W of each part, in fp32 at least: lengths in bf16 would be off by a part in a few hundred."""
        old: Any = self.operation
        weight_OD = old.weight.detach()
        exact = weight_OD.to(torch.promote_types(weight_OD.dtype, torch.float32))
        every = dict(zip("qkv", exact.split(self.third), strict=True))
        return {part: every[part] for part in self.parts}

    def _updated(self) -> dict[str, Tensor]:
        """W + s B A of each part."""
        layers = self._layers()
        return {
            part: weight_OD + self.scale * layers[part][1].weight @ layers[part][0].weight
            for part, weight_OD in self._rows().items()
        }

    def _gains(self) -> dict[str, Tensor]:
        with torch.no_grad():
            norms = {part: weight_OD.norm(dim=1) for part, weight_OD in self._updated().items()}
        return {part: getattr(self, f"{part}_length") / norm for part, norm in norms.items()}

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., 3 D)."""
        old: Any = self.operation
        out = dict(zip("qkv", F.linear(x, old.weight).chunk(3, dim=-1), strict=True))
        gains = self._gains()
        for part, (down, up) in self._layers().items():
            out[part] = (out[part] + scaled(up(down(x)), self.scale)) * gains[part].to(x.dtype)
        joined = torch.cat(list(out.values()), dim=-1)
        return joined if old.bias is None else joined + old.bias

    def merged(self) -> nn.Module:
        """The rows of queries and of values replaced by what they have become."""
        old: Any = self.operation
        rows, gains = dict(zip("qkv", old.weight.split(self.third), strict=True)), self._gains()
        for part, updated_OD in self._updated().items():
            rows[part] = gains[part][:, None] * updated_OD
        return with_values(old, torch.cat(list(rows.values())), old.bias)


def dora(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """DoRA (Liu et al., ICML 2024) on queries and values of every block; `adapter.hidden_dim` is the rank."""
    for block in any_of(blocks_of(backbone)):
        block.attn.qkv = DoraQkv(block.attn.qkv, config, generator)


class Drawn(nn.Module):
    """A (R, D) and B (O, R) of VeRA: frozen, at Kaiming's uniform law, and shared by all layers of a stage.

    They come from one fixed seed, so that an export need not hold them.
    """

    a: Tensor
    b: Tensor

    def __init__(self, inputs: int, outputs: int, rank: int):
        super().__init__()
        for name, shape in (("a", (rank, inputs)), ("b", (outputs, rank))):
            value = torch.empty(shape)
            # Where only shapes are wanted nothing can be drawn.
            generator = None if value.is_meta else torch.Generator().manual_seed(DRAWN_FROM)
            self.register_buffer(name, nn.init.kaiming_uniform_(value, generator=generator), persistent=False)


class VeraLinear(Mergeable):
    """VeRA on a linear layer: W x + b * B (d * (A x)); b starts at zero and d at 0.1."""

    def __init__(self, operation: nn.Linear, drawn: Drawn):
        super().__init__(operation)
        self.drawn = drawn
        self.d = nn.Parameter(torch.full((len(drawn.a),), VERA_D))
        self.b = nn.Parameter(torch.zeros(operation.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., O)."""
        return self.operation(x) + F.linear(F.linear(x, self.drawn.a) * self.d, self.drawn.b) * self.b

    def merged(self) -> nn.Module:
        """W' = W + diag(b) B diag(d) A."""
        old: Any = self.operation
        return with_values(old, old.weight + self.b[:, None] * (self.drawn.b * self.d) @ self.drawn.a, old.bias)


def vera(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """VeRA (Kopiczko et al., ICLR 2024) on the fused queries, keys and values of every block.

    `adapter.hidden_dim` is the rank, published with 256. All blocks share A and B; in a Swin those of a stage do.
    """
    for blocks in block_lists(backbone):
        width = width_of(blocks[0])
        drawn = Drawn(width, 3 * width, config.hidden_dim)
        for block in any_of(list(blocks)):
            block.attn.qkv = VeraLinear(block.attn.qkv, drawn)
