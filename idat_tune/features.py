"""What a student makes of images inside: a map of its features, and where its class token looks (Figure 5)."""

# N images, D features, H W patches

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FOLDER = "features"  # in the search folder
FOLD = 0  # the split whose val images are looked at: one student's, as maps of several do not fit together
MOST = 300  # images, spread evenly over the split
FEWEST = 8  # images of which a map can be made
PERPLEXITY = 30.0  # of t-SNE, unless there are few images


@dataclass(frozen=True)
class Features:
    """Of one run that confirms, of images that it was not trained on."""

    images: "np.ndarray"  # (N,) places in train and val together
    labels: "np.ndarray"  # (N,)
    places: "np.ndarray"  # (N, 2) by t-SNE of what the head is given
    attention: "np.ndarray | None"  # (N, H, W) of the class token in the last block, mean of all heads; sums below 1

    @property
    def is_mapped(self) -> bool:
        """Whether there is a map: images enough, which it could tell apart."""
        return bool((self.places != self.places[:1]).any())


def mapped(features: "np.ndarray") -> "np.ndarray":
    """(N, 2) places of features (N, D) by t-SNE, the same at each call; all one where they are alike, or too few."""
    import numpy as np

    told_apart = len(features) >= FEWEST and np.isfinite(features).all() and (features != features[:1]).any()
    if not told_apart:
        return np.zeros((len(features), 2), "float32")
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    with warnings.catch_warnings():  # of numbers that overflow on the way
        warnings.simplefilter("ignore")
        places: np.ndarray = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    return np.nan_to_num(places)


def encoded(found: Features) -> bytes:
    """A file of safetensors."""
    import numpy as np
    from safetensors.numpy import save

    tensors = {"images": found.images.astype("int64"), "labels": found.labels.astype("int64")}
    tensors["places"] = np.ascontiguousarray(found.places, "float32")
    if found.attention is not None:
        tensors["attention"] = np.ascontiguousarray(found.attention, "float16")
    return save(tensors)


def keep(folder: Path, trial: str, file: bytes) -> None:
    """Keep what `encoded` gave, in the folder of a search: whole or not at all."""
    path = _file(folder, trial)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(file)
    partial.replace(path)


def read(folder: Path, contender: str) -> Features | None:
    """What a search kept of a contender; None where that is nothing, or is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(_file(folder, f"confirm-{FOLD}-{contender}"))
        return Features(tensors["images"], tensors["labels"], tensors["places"], tensors.get("attention"))
    except (OSError, SafetensorError, KeyError):
        return None


def _file(folder: Path, trial: str) -> Path:
    return folder / FOLDER / f"{trial}.safetensors"
