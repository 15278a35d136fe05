"""The tasks' images: import, verify, cache and load them."""

# Light: submodules import numpy, pyarrow and PIL inside their functions.
from idat_tune.data.loading import Images, batches, load
from idat_tune.data.pixels import decode
from idat_tune.data.store import content_hash, folder, register_own, require, task

__all__ = [
    "Images",
    "batches",
    "content_hash",
    "decode",
    "folder",
    "load",
    "register_own",
    "require",
    "task",
]
