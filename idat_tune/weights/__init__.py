"""Where pretrained weights are found, what identifies them, and how files of any usual layout get into timm models."""

from idat_tune.weights.files import FOLDER, available, find, here, in_cache, in_folder, missing
from idat_tune.weights.fitting import check, check_finite, load
from idat_tune.weights.identity import RULE, Identity, check_same, identify
from idat_tune.weights.names import timm_name

__all__ = [
    "FOLDER",
    "RULE",
    "Identity",
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
    "timm_name",
]
