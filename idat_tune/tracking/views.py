"""Views that MLflow's UI keeps for others: a link opens it on the tables and charts that a search is about.

The UI writes such a view as a tag of the experiment when somebody shares one. The format is its own, and described
nowhere; a test opens them in a browser. Where a version takes them no more, they are tags that nobody reads.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from idat_tune.tracking.runs import PARENT, ROLE, Search

TAG = "mlflow.sharedViewState."  # and the key of the view
TRIALS, CHARTS, OUTCOME = "trials", "charts", "outcome"
DRAWN = {CHARTS: "&compareRunsMode=CHART"}
SECTION = "idat-tune"
OTHERS = ("train", "val", "teacher", "confirmed", "test", "Model metrics", "System metrics")  # sections
FIGURES = ("score", "epochs_run", "trainable_params")  # how long it took the UI says by itself
TOLD = ("confirmed/accuracy", "test/accuracy", "trainable_params")


def views(search: Search, run: str, began: int) -> dict[str, str]:
    """The tags of the experiment that keep a search's views: explored trials best first, their charts, what came out.

    Args:
        search: which one.
        run: the id of its run.
        began: when it began, Unix time in ms.
    """
    trials = f"tags.`{PARENT}` = '{run}' AND tags.stage = 'explore'"
    settings = [_column("params", name) for name in search.searched]
    states: dict[str, dict[str, Any]] = {
        TRIALS: {
            **_ordered(trials, "score"),
            "selectedColumns": [*_columns("metrics", FIGURES), *settings, *_columns("tags", ("arm", "status"))],
        },
        CHARTS: {
            # Linear heads have so many more epochs that the curves of others would be a line upwards.
            **_ordered(f"{trials} AND params.`adapter.kind` != 'linear'", "score"),
            "selectedColumns": _columns("metrics", FIGURES),
            **_charts(search),
        },
        OUTCOME: {
            **_ordered(f"tags.`{PARENT}` = '{run}' AND tags.{ROLE} LIKE '%'", "test/accuracy"),
            "selectedColumns": [_column("tags", ROLE), _column("tags", "stage"), *_columns("metrics", TOLD), *settings],
        },
    }
    about = {"createdAt": began, "updatedAt": began}
    return {
        f"{TAG}{run}-{what}": json.dumps(
            {"name": f"{search.task} / {search.name}: {what}", **about, "state": _packed(state)}
        )
        for what, state in states.items()
    }


def links(experiments: Iterable[Mapping[str, Any]], address: str) -> list[tuple[str, str]]:
    """Names and links of the views of all searches, newest search first.

    Args:
        experiments: as MLflow's REST interface has them.
        address: of the server, with neither path nor slash behind it.
    """
    found = []
    for experiment in experiments:
        for tag in experiment.get("tags", ()):
            run, _, what = tag["key"].removeprefix(TAG).rpartition("-")
            if tag["key"].startswith(TAG) and what in (TRIALS, CHARTS, OUTCOME):
                about = json.loads(tag["value"])
                page = f"{address}/#/experiments/{experiment['experiment_id']}/runs?workflowType=machine_learning"
                link = f"{page}&viewStateShareKey={run}-{what}{DRAWN.get(what, '')}"
                found.append((-about["createdAt"], run, (TRIALS, CHARTS, OUTCOME).index(what), about["name"], link))
    return [(name, link) for *_, name, link in sorted(found)]


def _ordered(query: str, metric: str) -> dict[str, Any]:
    """Which runs, and in which order: that of a metric, the highest first."""
    return {
        "searchFilter": query,
        "orderByKey": _column("metrics", metric),
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
    }


def _charts(search: Search) -> dict[str, Any]:
    """Parallel coordinates of the settings that every run has, learning curves, and two clouds of points."""
    drawn: list[dict[str, Any]] = [
        {"type": "LINE", "metricKey": "val/accuracy", "selectedMetricKeys": ["val/accuracy"], "xAxisKey": "step"},
        _cloud("trainable_params", "METRIC"),
    ]
    if search.always:
        parallel = {"type": "PARALLEL", "selectedParams": list(search.always), "selectedMetrics": ["score"]}
        drawn.insert(0, {**parallel, "showAllRuns": True})
    if "optim.lr" in search.searched:
        drawn.insert(1, _cloud("optim.lr", "PARAM"))
    about = {"metricSectionId": SECTION, "isGenerated": False, "deleted": False}
    section = {"uuid": SECTION, "name": f"search {search.name}", "display": True, "isReordered": True, "columns": 2}
    # The UI adds a chart for every other metric, in sections by the first part of its name.
    others = [{"uuid": f"{SECTION}-{name}", "name": name, "display": False, "isReordered": True} for name in OTHERS]
    return {
        "compareRunCharts": [{"uuid": f"{SECTION}-{n}", **about, **chart} for n, chart in enumerate(drawn)],
        "compareRunSections": [section, *others],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
    }


def _cloud(name: str, kind: str) -> dict[str, Any]:
    """Score against a setting or a figure."""
    return {"type": "SCATTER", "xaxis": {"key": name, "type": kind}, "yaxis": {"key": "score", "type": "METRIC"}}


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _columns(kind: str, names: Iterable[str]) -> list[str]:
    return [_column(kind, name) for name in names]


def _packed(state: Mapping[str, Any]) -> str:
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
