"""What tracking costs the driver of a search, by trials at once: `python -m benchmarks.tracking`.

Real searcher, halving, journal and MLflow; results of trials are made up, and come as fast as the driver takes them,
which spends on each what Ray Tune would. `nothing` tracks nothing, `process` is what a search does, `thread` is the
same sender inside the driver. `python -m benchmarks.tracking search 16` runs a real search with so many workers, and
says what part of its time the driver gave to tracking, the wait at its end included.
"""

import json
import os
import queue
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from benchmarks.thousand import Anywhere, results
from idat_tune import tracking
from idat_tune.journal import EXPLORE, Journal
from idat_tune.search import Callback, SearchConfig, plan_search, search
from idat_tune.search.driver import begin
from idat_tune.search.manifest import JOURNAL, Manifest
from idat_tune.search.searcher import StagedSearcher
from idat_tune.search.tracked import Tracked
from idat_tune.tracking.sender import Sender, serve

AT_ONCE = (16, 64, 256)
MORE = 64  # trials that come after those that begin at once
EPOCHS = 100
TUNE = 0.0019  # seconds of CPU that Ray Tune and the way through it take per report, which are spent here too
WAYS = ("nothing", "process", "thread")
STORES = ("SQLite", "server")


class InThread:
    """A sender inside the driver, in place of a `tracking.Link`."""

    def __init__(self, search: tracking.Search, journal: Path):
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.said: list[dict[str, Any]] = []
        sender = Sender(search, Journal.followed(journal))
        tell = lambda **about: self.said.append(about)  # noqa: E731
        self.thread = threading.Thread(target=serve, args=(sender, self.lines, tell), daemon=True)
        self.thread.start()

    def tell(self, message: dict[str, Any]) -> None:
        self.lines.put(json.dumps(message))

    def heard(self) -> list[dict[str, Any]]:
        said, self.said = self.said, []
        return said

    def close(self) -> list[dict[str, Any]]:
        self.lines.put(None)
        self.thread.join()
        return self.heard()


def one(way: str, at_once: int) -> dict[str, float]:
    """A search with so many trials at once; figures of the driver while its trials report."""
    with tempfile.TemporaryDirectory() as out:
        config = SearchConfig.of(
            "digits", trials=at_once + MORE, sampler="random", fixed={"epochs": EPOCHS}, out=out, name="s"
        )
        plan = plan_search(config)
        plan.folder.mkdir(parents=True)
        tracking.lay_out(plan.out)
        journal, manifest = Journal(plan.folder / JOURNAL), Manifest(plan, "hash")
        journal.make()
        tracked = Tracked(plan, journal, manifest, Callback())
        if way == "process":
            tracked.start()
        if way == "thread":
            tracked.link = InThread(tracked.search, journal.path)  # type: ignore[assignment]
        begin(plan, journal)
        searcher = StagedSearcher(plan, journal, manifest, tracked, Callback(), Anywhere())  # type: ignore[arg-type]
        time.sleep(5)  # imports
        began, spent, before = time.perf_counter(), time.process_time(), _children()
        reports = play(searcher, at_once)
        wall, cpu = time.perf_counter() - began, time.process_time() - spent
        tracked.close()
        rest = time.perf_counter() - began - wall
        return {
            "reports": reports,
            "per_second": reports / wall,
            "ms": 1000 * cpu / reports,
            "rest": rest,
            "sender": _children() - before,
            "whole": float(not tracked.owed),
        }


def real(at_once: int) -> dict[str, float]:
    """A real search with so many workers, on the store that MLFLOW_TRACKING_URI names or on SQLite."""
    spent = dict.fromkeys(("start", "_tell", "log_trial", "close"), 0.0)

    def timed(name: str, plain: Any) -> Any:
        def method(self: Tracked, *arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return plain(self, *arguments)
            finally:
                spent[name] += time.perf_counter() - began

        return method

    for name in spent:
        setattr(Tracked, name, timed(name, getattr(Tracked, name)))
    with tempfile.TemporaryDirectory() as out:
        options: dict[str, Any] = {"trials": 3 * at_once, "sampler": "random", "fixed": {"epochs": 20}, "folds": 2}
        began = time.perf_counter()
        found = search("digits", max_concurrent=at_once, out=out, name="s", **options)
        wall = time.perf_counter() - began
        journal = Journal(Path(out) / "s" / JOURNAL)
    epochs = sum(len(record.epochs) for record in journal.records)
    figures = {"trials": len(journal.records), "epochs": epochs, "wall": wall, **spent}
    return {**figures, "part": sum(spent.values()) / wall, "whole": float(bool(found["finished"]))}


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def play(searcher: StagedSearcher, at_once: int) -> int:
    """Play Ray Tune, a report of each running trial in turn, until nothing more is to be explored; reports."""
    live: dict[str, tuple[Any, list[dict[str, Any]]]] = {}
    number = reports = 0
    exhausted = False
    while live or not exhausted:
        while not exhausted and len(live) < at_once:
            payload = searcher.suggest(f"t{number}")
            if not isinstance(payload, dict) or payload["stage"] != EXPLORE:
                exhausted = payload == Searcher.FINISHED or isinstance(payload, dict)
                break
            live[f"t{number}"] = (SimpleNamespace(trial_id=f"t{number}", config=payload), results(payload))
            number += 1
        for name, (trial, left) in list(live.items()):
            result, reports = left.pop(0), reports + 1
            until = time.thread_time() + TUNE
            while time.thread_time() < until:
                pass
            stopped = left and searcher.scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP
            if left and not stopped:
                searcher.on_trial_result(name, result)
            else:
                searcher.on_trial_complete(name, result)
                del live[name]
        if not live:
            break
    return reports


def served(folder: str) -> tuple["subprocess.Popen[bytes]", str]:
    """A server of MLflow's on a store of its own."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    out = Path(folder)
    tracking.lay_out(out)
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    words = [*tracking.server_command(out, "127.0.0.1", port), "--workers", "1"]
    silent = subprocess.DEVNULL
    server = subprocess.Popen(words, env=environment, stdout=silent, stderr=silent, start_new_session=True)
    for _ in range(300):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return server, f"http://127.0.0.1:{port}"
        time.sleep(0.2)
    raise SystemExit("the server does not answer")


def main() -> None:
    print(
        "| store | trials at once | sender | reports | reports per second | driver's CPU ms per report | "
        "s to wait at the end | sender's CPU s |\n|---|---|---|---|---|---|---|---|"
    )
    for kind in STORES:
        with tempfile.TemporaryDirectory() as folder:
            server, address = served(folder) if kind == "server" else (None, "")
            for at_once in AT_ONCE:
                for way in WAYS:
                    words = [sys.executable, "-m", "benchmarks.tracking", way, str(at_once)]
                    environment = {**os.environ, **({"MLFLOW_TRACKING_URI": address} if address else {})}
                    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
                    found = json.loads(done.stdout.splitlines()[-1])
                    figures = (
                        f"{found['reports']:,}",
                        f"{found['per_second']:.0f}",
                        f"{found['ms']:.2f}",
                        f"{found['rest']:.1f}" + ("" if found["whole"] or way == "nothing" else " (owes)"),
                        f"{found['sender']:.1f}",
                    )
                    print(f"| {kind} | {at_once} | {way} | {' | '.join(figures)} |", flush=True)
            if server:
                os.killpg(server.pid, 15)
                server.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["search"]:
        print(json.dumps(real(int(sys.argv[2]))))
    elif len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
