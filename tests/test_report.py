"""The page of a search: whatever a search came to, it says what the result says, and nothing else."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import command
from played import HOSTILE, made, own_task

from idat_tune import tasks
from idat_tune.predictions import FOLDER
from idat_tune.report import pictures, scales, words
from idat_tune.report.evidence import OutOfFold
from idat_tune.report.mistakes import suspicious
from idat_tune.report.page import Html, html, page, table
from idat_tune.report.task import title, write
from idat_tune.search import searcher

LONG = "a_rather_long_name_of_a_scene_that_is_number_{}"


class Read(HTMLParser):
    """A page as a browser would take it apart."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.texts, self.open, self.pictures = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return "\n".join(self.texts)


@pytest.fixture(autouse=True, scope="module")
def played():
    """Searches need no Ray to be played, and own tasks are known in here alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searcher.ray, "put", lambda value: value)
        for name in ("TASKS", "_BY_KEY"):
            patch.setattr(tasks, name, dict(getattr(tasks, name)))
        own_task(2, "two", class_names=(HOSTILE, "B" * 120))
        own_task(397, "many", class_names=[LONG.format(label) for label in range(397)])
        yield


def embedded(**changes):
    return {"fixed": {"epochs": 4, "student": "glyph_base", **changes}}


CASES = {
    "digits": {},
    "two classes with names that would break a page": {"task": "two", **embedded()},
    "397 classes with long names": {"task": "many", **embedded()},
    "every trial failed": {"fails": lambda payload: True},
    "some trials failed": {"fails": lambda payload: "trial-0" in payload["id"]},
    "without confirm": {"folds": 0},
    "nothing beats the default": {"gain": -1.0, "best": 0.6},
    "without a teacher": {"fixed": {"epochs": 4, "teacher": "none"}},
    "one seed": {"seeds": 1},
    "a search that has not ended": {"most": 7},
    "enough trials to rank settings": {"trials": 56, "folds": 0},
}


@pytest.fixture(params=CASES, scope="module")
def searched(request, tmp_path_factory):
    return made(tmp_path_factory.mktemp("runs"), **CASES[request.param])


def fractions(value):
    """All numbers of a result, wherever they stand."""
    if isinstance(value, dict):
        return [one for inner in value.values() for one in fractions(inner)]
    if isinstance(value, list | tuple):
        return [one for inner in value for one in fractions(inner)]
    return [float(value)] if isinstance(value, int | float) else []


def test_the_page_is_whole_small_and_says_nothing_but_what_the_search_gave(searched):
    text = searched.text
    read = Read(text)
    assert read.open == []
    thumbnails = sum(len(found) for found in re.findall(r"base64,([^\"]+)", text))
    assert len(text) - thumbnails < 200_000
    # Nothing is fetched, nothing runs, nothing came in with a class name.
    names = {name for name, _ in read.tags}
    assert not names & {"script", "iframe", "object", "form", "base"}
    for name, attributes in read.tags:
        assert not [key for key in attributes if key.startswith("on")], (name, attributes)
        for key in ("src", "href"):
            assert attributes.get(key, "data:").startswith("data:")
    assert "\x1b" not in text
    assert len(read.ids) == len(set(read.ids))
    for name, attributes in read.tags:
        if name == "img":
            assert attributes["alt"]
        if name == "svg" and attributes.get("class") == "plot":
            assert attributes["role"] == "img"
            assert attributes["aria-label"].strip(". ")
    # Percent points, and percentages with two digits: all are numbers of the result, or counts beside them.
    known = [*fractions(searched.result), *(r.val_accuracy for r in searched.journal.records if r.val_accuracy)]
    points = {f"{100 * one:+.2f}" for one in known}
    said = re.findall(r"[+-]\d+\.\d\d(?!\d)", read.text)
    assert set(said) <= points
    shares = {f"{100 * one:.2f}" for one in known}
    for found, hits, count in re.findall(r"(\d+\.\d\d) %(?: \((\d+) of (\d+)\))?", read.text):
        assert found in shares or found == f"{100 * int(hits) / int(count):.2f}"
    assert searched.result["winner"] is None or "not ended" in read.text or said


def test_the_title_is_the_verdict(searched):
    result = searched.result
    heading = re.search("<h1>(.*?)</h1>", searched.text)[1]
    test = [c for c in result["comparisons"] if (c["ours"], c["theirs"], c["split"]) == ("winner", "default", "test")]
    if "has not ended" in heading or result["winner"] is None:
        return
    if result["winner"]["trial"] == "arm-default":
        assert heading == "Keep the default settings."
        assert "No reliable gain" in result["verdict"]
    else:
        assert f"{100 * test[0]['mean']:+.2f} points on test" in heading
        assert heading.startswith("Tuning paid") == test[0]["reliable"]


def test_of_the_title_every_case_reads_as_a_sentence():
    def of(mean, interval=(0.01, 0.03), reliable=True, split="test", trial="trial-001", **more):
        pair = {"ours": "winner", "theirs": "default", "split": split, "mean": mean, "pairs": 3}
        pair |= {"interval": interval, "reliable": reliable}
        return title({"winner": {"trial": trial}, "arms": {"default": {"trial": "d"}}, "comparisons": [pair], **more})

    assert of(0.023) == "Tuning paid: +2.30 points on test."
    assert of(-0.02, (-0.03, -0.01)) == "Tuning did not pay: -2.00 points on test."
    assert of(0.01, (-0.01, 0.03), False) == "No reliable gain from tuning: +1.00 points on test, within the noise."
    assert of(0.01, None, False) == "Tuning: +1.00 points on test, too few seeds to be sure."
    assert of(0.01, split="confirm") == "Not tested yet: +1.00 points on the splits."
    assert of(0.01, trial="d") == "Keep the default settings."
    assert title({"winner": None}) == "There is no student to hand over."
    assert title({"winner": None, "unfinished": True}) == "The search has not ended yet."


def test_everybody_who_was_confirmed_or_tested_stands_in_the_table(tmp_path):
    found = made(tmp_path)
    rows = found.result["contenders"]
    assert {name for row in rows for name in row["names"]} == {"winner", *found.result["arms"]}
    assert rows == sorted(rows, key=lambda row: -row["confirmed"]["mean"])
    for row in rows:
        assert row["trial"] in found.text
        against = row["minus_default"]["confirm"]
        if row["trial"] == "arm-default":
            assert against is None
        else:
            assert f"{words.points(against['mean'])} ({words.interval(against)})" in found.text
    # The same pair is the same number, whoever asks.
    winner = next(row for row in rows if "winner" in row["names"])
    pair = next(one for one in found.result["comparisons"] if (one["theirs"], one["split"]) == ("default", "test"))
    assert winner["minus_default"]["test"] == {**pair, "ours": winner["trial"]}


def test_without_its_predictions_or_its_tensors_a_page_says_so(tmp_path):
    found = made(tmp_path)
    for path in (found.folder / FOLDER).iterdir():
        path.unlink()
    for path in (found.folder / "final").iterdir():
        path.write_bytes(b"no tensors")
    found.journal.decide("done", result=found.result)
    text = write(found.folder, found.content, found.journal).read_text()
    assert "predictions.parquet is not there" in text
    assert "Most confident mistakes" not in text
    assert "Weights, layer by layer" not in text


def test_an_image_is_doubted_only_where_all_are_sure_of_the_same_other_class():
    def saying(*rows):
        labels, probability = np.array([0, 0, 0, 1, 1, 1]), np.full((6, 2), 0.5)
        for image, row in enumerate(rows):
            probability[image] = row
        return OutOfFold(labels, probability)

    sure, doubtful = [0.95, 0.05], [0.55, 0.45]
    right = [sure, sure, sure, [0.1, 0.9], [0.1, 0.9]]
    assert suspicious([saying(*right, sure), saying(*right, sure)]) == [5]
    assert suspicious([saying(*right, sure), saying(*right, [0.3, 0.7])]) == []  # one of them says what the label says
    assert suspicious([saying(*right, doubtful)]) == []  # less sure than of the class's own images


def test_text_is_escaped_wherever_it_enters_and_html_is_not_escaped_twice():
    assert html("<b>", Html("<b>")) == "&lt;b&gt;<b>"
    assert html(Html("<i>") + "<b>") == "&lt;i&gt;&lt;b&gt;"  # a sum is text
    assert "<script" not in page(HOSTILE, table([HOSTILE, "b"], [[HOSTILE, 1]], about=HOSTILE), kicker=HOSTILE)
    assert "<script" not in pictures.bars(HOSTILE, HOSTILE, [pictures.Bar(HOSTILE, 0.5, HOSTILE)])


@pytest.mark.parametrize("low", [1e-9, 1e-4, 0.3, 7.0, 6e5])
@pytest.mark.parametrize("wide", [1.0001, 1.7, 40.0, 1e6])
def test_an_axis_has_a_few_ticks_that_lie_on_it(low, wide):
    for scale in (scales.logarithmic([low, low * wide]), scales.linear([low, low * wide])):
        assert 1 <= len(scale.ticks) <= scales.MOST_TICKS
        assert all(0 <= scale.at(value) <= 1 for value, _ in scale.ticks)
        assert 0 < scale.at(low) <= scale.at(low * wide) < 1
        assert len({words for _, words in scale.ticks}) == len(scale.ticks)


def test_the_command_writes_pages_anew_and_knows_what_there_is(tmp_path):
    found = made(tmp_path, trials=4, folds=0)
    found.journal.decide("done", result=found.result)
    found.page.unlink()
    done = command("report", "s", "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"name": "s", "report": str(found.page)}]
    assert "points on test" in found.text
    refused = command("report", "s", "none", "--out", tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: no search at {tmp_path / 'none'}; there are s")
    refused = command("report", "s", "--out", tmp_path, "--format", "pdf")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: unknown format 'pdf'; known: html")
