"""The only door to MLflow: a parent run per search, a child run per trial, artifacts."""

from idat_tune.tracking.link import Link
from idat_tune.tracking.place import RUN_ID, place, run_of_caller
from idat_tune.tracking.runs import PARENT, Search
from idat_tune.tracking.sender import send_all
from idat_tune.tracking.store import (
    check,
    embedded,
    is_file,
    lay_out,
    named,
    patient,
    plainly,
    reach,
    server_command,
    shown,
    store,
    uri,
)
from idat_tune.tracking.tracker import Tracker, follow_moved
from idat_tune.tracking.views import links

__all__ = [
    "PARENT",
    "RUN_ID",
    "Link",
    "Search",
    "Tracker",
    "check",
    "embedded",
    "follow_moved",
    "is_file",
    "lay_out",
    "links",
    "named",
    "patient",
    "place",
    "plainly",
    "reach",
    "run_of_caller",
    "send_all",
    "server_command",
    "shown",
    "store",
    "uri",
]
