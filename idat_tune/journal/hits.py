"""Which images a run named rightly, as text: what a line of the journal holds of them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# What stands behind a final run's id where two models were tested together, as the mean of their softmaxes.
BESIDE_TEACHER = "+teacher"  # its student and its teacher
TWO_SEEDS = "+seed"  # its student and that of the same config with another seed


def packed(hits: "np.ndarray") -> str:
    """Right or wrong by image (N,) as hexadecimal digits, four images each, after their number."""
    import numpy as np

    return f"{len(hits)}:{np.packbits(hits.astype(bool)).tobytes().hex()}"


def unpacked(text: str) -> "np.ndarray":
    """The inverse of `packed`: booleans (N,).

    Raises:
        ValueError: that was not given by it.
    """
    import numpy as np

    count, _, digits = text.partition(":")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8)).astype(bool)
    if not 0 <= len(bits) - int(count) < 8:
        raise ValueError(f"{len(bits)} bits are no {count} images")
    return bits[: int(count)]
