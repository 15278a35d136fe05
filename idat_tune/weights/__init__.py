"""Where pretrained weights are found: a folder of the user's own, the Hugging Face cache, the hub.

And what identifies them, and how a file of any usual layout gets into a timm model. Nothing pickled is ever loaded.
"""

from idat_tune.weights.files import FOLDER, available, find, here, in_cache, in_folder, missing
from idat_tune.weights.fitting import check, check_finite, load
from idat_tune.weights.identity import RULE, Identity, check_same, identify
from idat_tune.weights.names import timm_name
from idat_tune.weights.origin import Origin, origin

__all__ = [
    "FOLDER",
    "RULE",
    "Identity",
    "Origin",
    "available",
    "check",
    "check_finite",
    "check_same",
    "find",
    "here",
    "identify",
    "in_cache",
    "in_folder",
    "load",
    "missing",
    "origin",
    "timm_name",
]
