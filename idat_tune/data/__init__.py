"""The tasks' images: import, verify, cache and load them."""

# Light: submodules import numpy, pyarrow and PIL inside their functions.
from idat_tune.data.checks import Duplicates, Report
from idat_tune.data.folds import fold, fold_rows, joined
from idat_tune.data.importing import Imported
from idat_tune.data.loading import Images, batches, load
from idat_tune.data.pixels import decode
from idat_tune.data.sources import Choices
from idat_tune.data.store import content_hash, folder, register_own, require, task
from idat_tune.data.verifying import Listed, listing, verify
from idat_tune.data.ways import import_

__all__ = [
    "Choices",
    "Duplicates",
    "Images",
    "Imported",
    "Listed",
    "Report",
    "batches",
    "content_hash",
    "decode",
    "fold",
    "fold_rows",
    "folder",
    "import_",
    "joined",
    "listing",
    "load",
    "register_own",
    "require",
    "task",
    "verify",
]
