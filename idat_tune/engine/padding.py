"""Hidden dimensions rounded up, so that trials of different ones fit one recorded step."""

from torch import Tensor

from idat_tune.config import RunConfig
from idat_tune.kinds import KINDS

BUCKETS = (8, 16, 32, 64)


def padded(config: RunConfig, narrowest: int) -> int:
    """The hidden dimension to compute with: the next of BUCKETS, where the kind allows it and no block is narrower."""
    own = config.adapter.hidden_dim
    if not KINDS[config.adapter.kind].pads:
        return own
    return next((size for size in BUCKETS if own <= size <= narrowest), own)


def write(value: Tensor, place: Tensor) -> None:
    """Put a tensor into the first rows and columns of one that is as large or larger; the others become zero."""
    place.zero_()
    place[_corner(value)].copy_(value)


def read(place: Tensor, value: Tensor) -> None:
    """The inverse of `write`: fill `value` from the corner of its size."""
    value.copy_(place[_corner(value)])


def _corner(value: Tensor) -> tuple[slice, ...]:
    return tuple(slice(size) for size in value.shape)
