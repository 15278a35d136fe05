"""Where runs are tracked: a database of our own under --out, or what MLFLOW_TRACKING_URI names."""

import contextlib
import logging
import os
import re
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from idat_tune.errors import BadInput, TrackingFailed

SETTING = "MLFLOW_TRACKING_URI"
SERVERS = ("http", "https")
DATABRICKS = ("databricks", "databricks-uc", "uc")
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # of databases behind a network, unless the URI has one
# MLflow's own settings let one call to a dead server take four minutes. What the user has set stays.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a request that is repeated unseen makes a run twice
    "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "10",  # seconds
    # And nothing is printed that nobody asked for.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
WAY_OUT = (
    "name a database (sqlite:////absolute/path/mlflow.db) or a server (http://host:port), or unset it: "
    "runs are then tracked in mlflow.db under --out"
)


def uri(out: Path) -> str:
    """Where runs are tracked: MLFLOW_TRACKING_URI, or an SQLite store under `out`.

    Absolute, because Ray changes the working directory of its workers.
    """
    return os.environ.get(SETTING) or sqlite(store(out))


def store(out: Path) -> Path:
    """The file of the embedded SQLite store."""
    return out.absolute() / "mlflow.db"


def embedded(out: Path) -> bool:
    """Whether runs are tracked in the embedded store."""
    return uri(out) == sqlite(store(out))


def named(out: Path) -> str:
    """The store as the journal names it: where `out` lies does not matter to the embedded one."""
    return "embedded" if embedded(out) else shown(uri(out))


def is_file(given: str) -> bool:
    """Whether a store is a file of this machine."""
    return urlsplit(given).scheme.partition("+")[0] == "sqlite"


def sqlite(path: Path) -> str:
    """The URI of an SQLite file, whatever is in its path: `?`, `%` and `#` mean something in a URI."""
    escaped = quote(str(path), errors="surrogateescape")
    # Of `sqlite:///` MLflow makes the folder, and takes the escapes for its name.
    return f"sqlite:///{path}" if escaped == str(path) else f"sqlite+pysqlite:///{escaped}"


def server_command(out: Path, host: str, port: int) -> list[str]:
    """The arguments that start MLflow's UI on what `out` holds."""
    # Through this very Python, whose folder need not be on the path.
    mlflow = [sys.executable, "-m", "mlflow"]
    return [*mlflow, "server", "--backend-store-uri", uri(out), "--host", host, "--port", str(port)]


def check() -> None:
    """Refuse a MLFLOW_TRACKING_URI that can hold no runs.

    Raises:
        BadInput: it names a folder, nothing that MLflow knows, or something that wants more than is installed or set.
    """
    given = os.environ.get(SETTING)
    if not given:
        return
    try:
        with patient(), _quietly():
            reason = _unfit(given, urlsplit(given).scheme.lower().partition("+")[0])
    except Exception as failure:
        reason = f"which does not work here ({plainly(failure)})"
    if reason:
        raise BadInput(f"{SETTING} is '{shown(given)}', {reason}; {WAY_OUT}")


def _unfit(given: str, kind: str) -> str:
    """What is wrong with a URI of that scheme, if it shows; raises where it cannot be used here."""
    if given not in DATABRICKS and (kind == "file" or len(kind) < 2):  # C:\ is a scheme of one letter
        return "a folder, in which MLflow keeps no new runs"
    if kind in SERVERS:
        return "" if urlsplit(given).hostname else "which names no server"
    if kind == "sqlite":
        return "" if _sqlite_file(given) else "which is in memory and gone when the search ends"
    if kind in PORTS:
        import sqlalchemy

        sqlalchemy.create_engine(given)  # finds the driver, and connects to nothing
        return ""
    import mlflow

    mlflow.MlflowClient(tracking_uri=given).search_experiments(max_results=1)
    return ""


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Meanwhile nothing is logged: what is wrong is raised too."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


def _sqlite_file(given: str) -> Path | None:
    """The file that an SQLite URI names; None where it names memory."""
    from sqlalchemy.engine import make_url

    database = make_url(given).database
    return Path(database) if database and database != ":memory:" else None


def shown(given: str) -> str:
    """A URI without its password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", given)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Meanwhile MLflow waits for seconds, not minutes; a caller's own use of it goes on as before."""
    ours = {name: value for name, value in PATIENCE.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def reach(given: str) -> None:
    """Find out in seconds whether a database can be reached: MLflow tries for two minutes.

    Raises:
        TrackingFailed: it cannot.
    """
    parts = urlsplit(given)
    kind = parts.scheme.partition("+")[0]
    try:
        if kind == "sqlite":
            _reach_file(_sqlite_file(given))
        elif kind in PORTS and parts.hostname:
            socket.create_connection((parts.hostname, parts.port or PORTS[kind]), timeout=3).close()
    except (OSError, sqlite3.Error) as failure:
        raise TrackingFailed(f"{shown(given)} cannot be used: {failure}") from None


def _reach_file(path: Path | None) -> None:
    if path is None:
        return
    if not path.exists():
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        if not os.access(nearest, os.W_OK):
            raise PermissionError(f"{nearest} cannot be written")
        return
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as failure:
        raise TrackingFailed(
            f"{path} cannot be used ({failure}); move it away: the command of a search, given again, fills a new one"
        ) from None


def plainly(failure: BaseException) -> str:
    """Why MLflow failed, in a line."""
    text = str(failure)
    for words, meaning in (
        ("Connection refused", "connection refused"),
        ("timed out", "no answer in time"),
        ("Name or service not known", "no such host"),
        ("NameResolutionError", "no such host"),
    ):
        if words in text:
            return meaning
    first = text.strip().split("\n")[0].split(". ")[0]
    return first if len(first) <= 200 else f"{first[:197]}..."


def lay_out(out: Path) -> None:
    """Make the embedded store, if that is where runs are tracked and it is not there yet; takes seconds.

    Made beside and moved into its place when whole: MLflow refuses one that a crash left half made, and two searches
    that start at once do not disturb each other.
    """
    final = store(out)
    if not embedded(out) or final.exists():
        return
    import mlflow

    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f".{final.name}.*"):
        if not Path(f"/proc/{left.suffix[1:]}").exists():  # of a process that is no more
            left.unlink(missing_ok=True)
    partial = out.absolute() / f".{final.name}.{os.getpid()}"
    partial.unlink(missing_ok=True)
    mlflow.MlflowClient(tracking_uri=sqlite(partial)).search_experiments(max_results=1)
    try:
        os.link(partial, final)
    except FileExistsError:  # another search was faster
        pass
    except OSError:  # a file system without links
        partial.replace(final)
    partial.unlink(missing_ok=True)
