"""Small images of a task, as far as they are still those of the search."""

# H W pixels, h w patches

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from idat_tune import data
from idat_tune.errors import BadInput
from idat_tune.report.evidence import Evidence
from idat_tune.report.page import Html, html

if TYPE_CHECKING:
    import numpy as np

SIDE = 64  # pixels, at most
TINT = (240, 140, 20)  # red, green, blue
MOST_TINT = 0.75  # of what is seen, where attention is highest


def small(evidence: Evidence, rows: Sequence[int]) -> tuple[dict[int, bytes], str]:
    """Images by their places in train and val together, PNG or JPEG; none, and why, where they cannot be had."""
    try:
        task = str(evidence.content["task"])
        embedded = evidence.task is not None and evidence.task.embedded  # whose images come with the package
        if not embedded and data.content_hash(task) != evidence.content["data_hash"]:
            raise BadInput("the images of this task are others than those of the search")
        return data.small(task, rows, SIDE), ""
    except BadInput as failure:
        return {}, f"Without pictures: {failure}"


def image(encoded: bytes, name: str) -> Html:
    """An image in the page itself."""
    kind = "png" if encoded.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
    return Html(f'<img alt="{html(name)}" src="{source}" width="{SIDE}" height="{SIDE}">')


def tinted(encoded: bytes, attention: "np.ndarray") -> bytes:
    """An image (H, W) in grey, the more in colour the higher attention (h, w) is there, which is stretched over it."""
    import numpy as np
    from PIL import Image

    attention = np.nan_to_num(attention)
    shown = Image.open(io.BytesIO(encoded)).convert("L")
    if max(shown.size) < SIDE:  # so that there is room for what lies between two patches
        factor = SIDE / max(shown.size)
        width, height = (max(1, round(side * factor)) for side in shown.size)
        shown = shown.resize((width, height), Image.Resampling.NEAREST)
    most = float(attention.max())
    stretched = Image.fromarray((attention / (most or 1.0)).astype("float32"))
    part = MOST_TINT * np.clip(np.asarray(stretched.resize(shown.size, Image.Resampling.BILINEAR)), 0, 1)[..., None]
    mixed = np.asarray(shown)[..., None] * (1 - part) + np.array(TINT) * part
    buffer = io.BytesIO()
    Image.fromarray(mixed.astype("uint8")).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
