"""The tasks' images: import, verify, cache and load them."""

# Light: submodules import numpy, pyarrow and PIL inside their functions.
from idat_tune.data.cache import in_order
from idat_tune.data.checks import Report, cautions
from idat_tune.data.deep import check_range
from idat_tune.data.exporting import export, small
from idat_tune.data.folds import fold, fold_rows, joined
from idat_tune.data.importing import Imported
from idat_tune.data.leaks import Duplicates
from idat_tune.data.loading import Images, batches, load
from idat_tune.data.pixels import SUFFIXES, decode
from idat_tune.data.sources import Choices, read_bytes, read_image
from idat_tune.data.store import content_hash, folder, intensity, own_tasks, register_own, require, task
from idat_tune.data.trees import images_in
from idat_tune.data.verifying import Listed, Removed, listing, removable, remove, verify
from idat_tune.data.ways import import_

__all__ = [
    "SUFFIXES",
    "Choices",
    "Duplicates",
    "Images",
    "Imported",
    "Listed",
    "Removed",
    "Report",
    "batches",
    "cautions",
    "check_range",
    "content_hash",
    "decode",
    "export",
    "fold",
    "fold_rows",
    "folder",
    "images_in",
    "import_",
    "in_order",
    "intensity",
    "joined",
    "listing",
    "load",
    "own_tasks",
    "read_bytes",
    "read_image",
    "register_own",
    "removable",
    "remove",
    "require",
    "small",
    "task",
    "verify",
]
