"""MLflow's own UI in a real browser: what the links of `ui` open, and what a run of a search says of itself."""

import re
import signal
import socket
import subprocess
import sys

import pytest
from browser import Browser, needed
from test_registry import CONFIG, searched
from test_searcher import no_linear_arm  # noqa: F401
from test_tracked import RESULT

from idat_tune.tracking.sender import send_all

pytestmark = [needed, pytest.mark.slow]
THEIRS = ("AG Grid", "users/current", "404")  # what MLflow's own pages complain of


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The name and link of every view, as `ui` prints them of a search; the server runs meanwhile."""
    out = tmp_path_factory.mktemp("ui")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RESULT["winner"], "config", {**CONFIG.flat(), "seed": 0})
        tracked = searched(out)
    send_all(tracked.search, tracked.journal.path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "idat_tune.cli", "ui", "--out", str(out), "--port", str(port), "--no-browser"]
    running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while len(lines) < 8:
            lines.append(running.stderr.readline().strip())
            assert lines[-1], lines
        yield dict(zip(lines[2::2], lines[3::2], strict=True))
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


def ours(page):
    """What the page complains of that is not MLflow's own doing."""
    bad = [line for line in page.said if line.startswith(("error", "exception"))]
    return [line for line in bad if not any(word in line for word in THEIRS)]


def rows(page):
    """The names of the runs in a table, from top to bottom."""
    page.wait_for("document.querySelectorAll('.ag-row a').length > 0")
    script = """[...document.querySelectorAll('.ag-row')]
        .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
        .map(row => row.querySelector('a')?.innerText).filter(Boolean)"""
    return page.evaluate(script)


def test_the_trials_stand_in_a_table_with_figures_the_best_first(told, browser, tmp_path):
    page = browser.open(told["digits / s: trials"], width=2600, height=1000)
    assert rows(page) == ["trial-001", "trial-000", "trial-002"]  # of which the last has no score
    text = page.text()
    assert "Model training" in text
    for column in ("score", "epochs_run", "trainable_params", "optim.lr", "adapter.kind", "teacher"):
        assert column in text
    assert "sequential" in text
    assert re.search(r"^0\.\d{4,}", text, re.M), text
    assert "Token usage" not in text
    assert ours(page) == []
    page.screenshot(tmp_path / "trials.png", whole=False)


def test_the_charts_are_drawn(told, browser, tmp_path):
    page = browser.open(told["digits / s: charts"], width=1600, height=1000)
    page.wait_for("document.querySelectorAll('.js-plotly-plot').length >= 3")
    page.wait_for("document.querySelector('.parcoords-line-layers, .parcoords') !== null")
    assert page.evaluate("document.querySelectorAll('.scatterlayer path.point, .gl-canvas').length") > 0
    assert {"optim.lr", "val/accuracy", "search s"} <= set(re.split(r"\n|(?= vs)", page.text()))
    assert ours(page) == []
    page.screenshot(tmp_path / "charts.png", whole=False)


def test_what_came_out_stands_in_a_table(told, browser, tmp_path):
    page = browser.open(told["digits / s: outcome"], width=1600, height=1000)
    assert sorted(rows(page)) == ["final-0-trial-000", "trial-000"]
    assert "0.9" in page.text().split("\n")  # on the test
    assert ours(page) == []
    page.screenshot(tmp_path / "outcome.png", whole=False)


def test_the_run_of_a_search_says_what_came_out(told, browser, tmp_path):
    link = told["digits / s: trials"]
    run = re.search(r"viewStateShareKey=(\w+)-trials", link)[1]
    page = browser.open(f"{link.partition('/runs?')[0]}/runs/{run}", width=1280, height=1400)
    page.wait_for("document.body.innerText.includes('winner_minus_default')")
    text = page.text()
    assert "fine" in text  # the verdict
    assert "90.00 %" in text
    assert ours(page) == []
    page.screenshot(tmp_path / "run.png", whole=False)


def test_the_registry_says_which_student_is_the_champion_and_why(told, browser, tmp_path):
    address = told["digits / s: trials"].partition("/#")[0]
    page = browser.open(f"{address}/#/models/idat-digits/versions/1", width=1280, height=1000)
    page.wait_for("document.body.innerText.includes('champion')")
    page.wait_for("document.body.innerText.includes('Champion: the first of this task.')")
    text = page.text()
    assert "90.00 %" in text
    assert ours(page) == []
    page.screenshot(tmp_path / "registry.png", whole=False)
