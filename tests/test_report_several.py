"""The page over several tasks, and the commands that write it."""

import csv
import io
import json
import re
import statistics
from html.parser import HTMLParser

import pytest
import searched
import test_searcher
from conftest import command

from idat_tune.cli import outcome as of_searches
from idat_tune.errors import printable
from idat_tune.journal.state import DONE
from idat_tune.report import across, gains, published, several, words
from idat_tune.report.outcomes import BETTER, KEPT, MISSING, NOISE, UNSURE, UNTESTED, WORSE, Effect, Outcome
from idat_tune.search import finish, searcher
from idat_tune.search import plan as plans
from idat_tune.tasks import TASKS

HOSTILE = "\"><script>alert(1)</script> & '<b>' \x1b[2J"


class Read(HTMLParser):
    """What stands on a page: its text, its tables by row, its links, the words that stand for pictures."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tables, self.links, self.tags, self.pictures, self.bold = "", [], [], [], [], []
        self.open = []  # elements that text stands in
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        about = dict(attributes)
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "a":
            self.links.append(about["href"])
        elif tag == "svg" and about.get("class") == "plot":
            self.pictures.append(about["aria-label"])
        if tag in ("td", "th", "b"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            self.open.remove(tag)

    def handle_data(self, text):
        self.text += text
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += text
        if "b" in self.open:
            self.bold.append(text)

    def table(self, *head):
        """The rows of the first table whose head begins so, by their first cell."""
        found = next(one for one in self.tables if one[0][: len(head)] == list(head))
        return {row[0]: dict(zip(found[0], row, strict=True)) for row in found[1:]}


def page(results, links=None):
    return Read(several.of_tasks([Outcome(result) for result in results], links))


def outcome(*arguments, **about):
    return Outcome(searched.result(*arguments, **about))


def test_the_counts_are_those_of_the_results():
    results = searched.vtab()
    by = [{(c["ours"], c["theirs"]): c for c in one["comparisons"] if c["split"] == "test"} for one in results]
    paid = sum(bool((c := one.get(("winner", "default"))) and c["reliable"] and c["mean"] > 0) for one in by)
    asked = [
        one.get(("winner", "winner_alone")) or one.get(("winner_with_teacher", "winner")) or one[("default", "alone")]
        for one in by
    ]
    helped = sum(c["reliable"] and c["mean"] > 0 for c in asked)
    read = page(results)
    assert f"Beyond the noise, tuning paid on {paid} of 19 tasks, the teacher on {helped or 'none'}." in read.text
    assert f"{paid} of 19" in read.bold
    assert f"{helped} of 19" in read.bold


def test_every_task_stands_there_with_the_figures_of_its_result():
    results = searched.vtab()
    rows = page(results).table("Task", "Winner, %")
    assert list(rows) == [TASKS[name].title for name in published.ORDER]
    for result in results:
        row = rows[TASKS[result["task"]].title]
        test = result["winner"]["test_accuracy"]
        assert row["Winner, %"] == f"{100 * test['mean']:.2f} ± {100 * test['std']:.2f}"
        found = Outcome(result).comparison("winner", "default")
        if found:
            low, high = (100 * end for end in found["interval"])
            assert row["Tuning, points"] == f"{100 * found['mean']:+.2f} ({low:+.2f} to {high:+.2f})"
        else:
            assert row["Tuning, points"] == "the default won"
        assert row["Trials"] == str(sum(result["trials"].values()))


def test_both_means_are_named_and_right():
    results = searched.vtab()
    text = page(results).text
    for mean in means(results, "winner") + means(results, "default"):
        assert f"{mean:.2f} %" in text
    assert "mean of 19 tasks" in text
    assert "mean of the three groups' means" in text


def means(results, name):
    """Of the tasks, and of the groups' means."""
    each = {one["task"]: 100 * Outcome(one).test(name)["mean"] for one in results}
    groups = [
        statistics.fmean(value for task, value in each.items() if TASKS[task].group == group)
        for group in ("natural", "specialized", "structured")
    ]
    return [statistics.fmean(each.values()), statistics.fmean(groups)]


def test_forests_show_every_difference_with_its_interval():
    results = searched.vtab()
    read = page(results)
    pictures = " ".join(read.pictures)
    for result in results:
        for found in (Outcome(result).tuning.found, Outcome(result).teacher.found):
            if found:
                assert f"{words.points(found['mean'])} ({words.interval(found)})" in pictures
    for group in ("Natural", "Specialized", "Structured"):
        assert f"{group} tasks: points on test, the winner minus the default" in pictures


def test_the_published_table_stands_beside_with_both_protocols():
    read = page(searched.vtab())
    rows = read.table("Method", "Mean of 19 tasks")
    assert rows["iDAT-S-kl (iDAT)"]["Mean of 19 tasks"] == "74.21"
    assert rows["iDAT-S-kl (iDAT)"]["Selected on"] == "test, best epoch"
    assert rows["idat-tune: the winner"]["Selected on"] == "validation"
    assert read.table("Method", "CIFAR-100")["SSF (NeurIPS22)"]["CIFAR-100"] == "69.0"
    assert "best epoch selected on the test split" in read.text


@pytest.mark.parametrize(
    ("about", "kind"),
    [
        ({"gain": 0.2}, BETTER),
        ({"gain": -0.2}, WORSE),
        ({"gain": 0.0}, NOISE),
        ({"won": "default"}, KEPT),
        ({"won": "nobody"}, MISSING),
        ({"seeds": 1}, UNSURE),
    ],
)
def test_what_came_of_tuning_has_a_word(about, kind):
    found = outcome("kitti", **about)
    assert found.tuning.kind == kind
    word = {BETTER: "+", WORSE: "-", NOISE: "+0.00", UNSURE: "(1 seed)"}.get(kind, kind)
    assert word in page([found.result]).table("Task")["KITTI/distance"]["Tuning, points"]


def test_what_one_seed_cannot_tell_is_not_told():
    alone = [searched.result(task, seeds=1) for task in ("dtd", "svhn")]
    assert "Too few seeds to say on how many of 2 tasks tuning or the teacher paid." in page(alone).text
    both = [*alone, searched.result("kitti", gain=0.2)]
    assert "tuning paid on 1 of 3 tasks (2 with too few seeds to say), the teacher on" in page(both).text


def test_a_winner_that_was_not_tested_is_said_to_be_none():
    result = searched.result("dtd")
    result["comparisons"] = [one for one in result["comparisons"] if one["split"] == "confirm"]
    for one in (result["winner"], *result["arms"].values()):
        one["test_accuracy"] = None
    result["test_openings"] = 0
    assert Outcome(result).tuning.kind == UNTESTED
    read = page([result, searched.result("svhn")])
    assert "on 1 of 1 task" in read.text or "on none of 1 task" in read.text
    assert "Not tested: DTD." in read.text


def test_searches_that_have_no_result_yet_have_a_page():
    nothing = {"complete": 0, "stopped": 0, "failed": 0}
    about = ("task", "name", "trials", "winner", "arms", "contenders", "comparisons", "verdict", "test_openings")
    values = ("digits", "a-digits", nothing, None, {}, [], [], "The search has not ended.", 0)
    unfinished = {**dict(zip(about, values, strict=True)), "seconds": 0.0}
    read = page([unfinished, {**unfinished, "task": "sprites_loc", "name": "a-sprites_loc"}])
    assert "No task has been tested yet." in read.text
    assert "No winner: Digits, Sprites/loc." in read.text
    assert not read.pictures


def test_means_compare_the_same_tasks_only():
    results = [searched.result("dtd"), searched.result("svhn", won="nobody")]
    both = 100 * results[0]["arms"]["default"]["test_accuracy"]["mean"]
    assert (
        f"mean of 1 task {100 * results[0]['winner']['test_accuracy']['mean']:.2f} % with the winners, {both:.2f} %"
        in (page(results).text)
    )


def test_the_mean_difference_counts_the_default_as_no_gain_and_adds_up_independent_errors():
    def effect(kind, mean, half):
        return Effect(kind, {"mean": mean, "interval": half and [mean - half, mean + half]})

    def over(*effects, tasks=("dtd", "svhn", "kitti", "dmlab")):
        named = [Outcome({"name": str(at), "task": task}) for at, task in enumerate(tasks[: len(effects)])]
        return gains.over(named, {str(at): one for at, one in enumerate(effects)})

    found = over(effect(BETTER, 0.04, 0.03), effect(NOISE, 0.02, 0.04), Effect(KEPT), Effect(MISSING))
    assert (found.tasks, found.mean) == (3, pytest.approx(0.02))
    assert found.half_width == pytest.approx(0.05 / 3)
    assert over(effect(BETTER, 0.04, 0.03), effect(UNSURE, 0.02, None)).half_width is None
    assert over(Effect(KEPT), Effect(MISSING)) is None
    assert over(effect(BETTER, 0.04, 0.03), effect(NOISE, 0.02, 0.04), tasks=("dtd", "dtd")) is None


def test_the_settings_of_winners_are_bold_where_they_differ_and_left_out_where_unused():
    results = searched.vtab()
    read = page(results)
    rows = read.table("Task", "teacher")
    for result in results:
        row, config = rows[TASKS[result["task"]].title], result["winner"]["config"]
        assert row["adapter.kind"] == config["adapter.kind"]
        assert (row["adapter.scale"] == "-") == (config["adapter.kind"] == "sequential")
        assert (row["distill.temperature"] == "-") == (config["teacher"] == "none" or config["distill.loss"] != "kl")
        if config["optim.lr"] != result["arms"]["default"]["config"]["optim.lr"]:
            assert words.value(config["optim.lr"]) in read.bold
    assert "vit_small" not in read.bold


def test_where_the_default_won_everywhere_there_are_no_settings_to_show():
    read = page([searched.result(task, won="default") for task in ("dtd", "svhn")])
    assert "The default settings won everywhere." in read.text
    for one in (alone := searched.result("dtd", won="default"))["comparisons"]:
        one["split"] = "confirm"
    assert "tuning paid on none of 1 task." in page([alone]).text


def test_costs_are_means_over_tasks_in_gpu_seconds_where_there_was_a_gpu():
    results = [searched.result(task) for task in ("dtd", "svhn")]
    row = page(results).table("Contender")["the winner"]
    seconds = statistics.fmean(one["winner"]["training_seconds"] for one in results)
    params = statistics.fmean(one["winner"]["trainable_params"] for one in results)
    assert (row["GPU-seconds of a training"], row["parameters"]) == (f"{seconds:.1f}", f"{params:,.0f}")
    results[0]["gpus_per_trial"] = 0.0
    assert "seconds of a training" in page(results).table("Contender")["the winner"]


def test_costs_are_over_the_tasks_whose_winner_was_tested():
    results = [searched.result("dtd"), searched.result("svhn", won="nobody"), searched.result("kitti", won="alone")]
    results[2]["arms"]["linear"]["test_accuracy"] = None
    read = page(results)
    rows = read.table("Contender", "mean of 2 tasks, %")
    mean = statistics.fmean(100 * results[at]["arms"]["default"]["test_accuracy"]["mean"] for at in (0, 2))
    assert rows["the default"]["mean of 2 tasks, %"] == f"{mean:.2f}"
    assert "Not tested on all of them: a linear head." in read.text
    theirs = next(row for row in published.TABLE if row.method == "SSF").over(["dtd", "kitti"])
    assert f"SSF: {theirs:.2f} %" in " ".join(read.pictures)


def test_a_result_of_an_older_version_has_a_page():
    result = searched.result("dtd")
    for key in ("gpus_per_trial", "contenders"):
        del result[key]
    for one in (result["winner"], *result["arms"].values()):
        del one["training_seconds"]
    read = page([result, searched.result("svhn")])
    assert read.table("Contender")["the winner"]["seconds of a training"] == "-"


def test_settings_of_another_version_are_shown_as_they_are():
    assert across.in_use({"task": "gone", "seed": 1, "new.key": 3}) == {"new.key": 3}


def test_two_searches_of_a_task_are_told_apart():
    results = searched.vtab()[:3] + searched.vtab(1, "tasks-2")[:3]
    read = page(results)
    assert {"CIFAR-100 (tasks-1)", "CIFAR-100 (tasks-2)"} <= set(read.table("Task", "Winner, %"))
    assert "of 6 searches" in read.text
    assert "On test (tasks-2): mean of 3 tasks" in read.text


def test_names_that_are_markup_stay_text():
    results = [searched.result(HOSTILE, name=f"{HOSTILE}-x"), searched.result("dtd", name=HOSTILE)]
    results[1]["verdict"] = HOSTILE
    read = page(results, {HOSTILE: "../x/report.html"})
    assert "script" not in read.tags
    assert printable(HOSTILE) in read.text


def test_the_page_asks_for_nothing_and_every_picture_has_its_words():
    text = several.of_tasks([Outcome(result) for result in searched.vtab()])
    assert len(text.encode()) < 200_000
    assert "script" not in Read(text).tags
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?\s*(https?:|//)""", text)
    assert len(Read(text).pictures) >= 10
    assert all(len(words_) > 20 for words_ in Read(text).pictures)


def test_the_page_links_to_the_pages_that_are_there(tmp_path):
    names = ["a b#1-dtd", "other-svhn"]
    results = [searched.result(task, name=name) for task, name in zip(("dtd", "svhn"), names, strict=True)]
    (tmp_path / names[0]).mkdir()
    (tmp_path / names[0] / "report.html").write_text("x")
    written = several.write(tmp_path / "both" / "report.html", results, tmp_path)
    assert Read(written.read_text()).links == ["../a%20b%231-dtd/report.html"]
    assert Read(several.write(tmp_path / "report.html", results, tmp_path).read_text()).links == [
        "a%20b%231-dtd/report.html"
    ]


def stored(out, task, name):
    """A finished search in its folder, on results that were made up."""
    plan = test_searcher.a_plan(out, task=task, name=name)
    searching = test_searcher.begin(plan)
    test_searcher.run_all(searching)
    found = finish.kept(finish.result(plan, searching.journal, "", 61.0))
    searching.journal.decide(DONE, result=found)
    return {**found, "name": name}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two searches that were begun together, and one beside them."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searcher.ray, "put", lambda value: value)
        patch.setattr(plans, "LINEAR_RATES", ())
        found = [stored(out, task, f"both-{task}") for task in ("digits", "sprites_loc")]
        return out, [*found, stored(out, "digits", "both-other")]


def test_the_name_of_several_tasks_is_all_of_their_searches(both):
    out, results = both
    done = command("report", "both", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert [one["name"] for one in json.loads(done.stdout)] == ["both-digits", "both-sprites_loc", "both"]
    read = Read((out / "both" / "report.html").read_text())
    assert read.links == ["../both-digits/report.html", "../both-sprites_loc/report.html"]
    winner = results[1]["winner"]["test_accuracy"]
    assert read.table("Task", "Winner, %")["Sprites/loc"]["Winner, %"].startswith(f"{100 * winner['mean']:.2f}")


def test_searches_of_any_names_have_a_page_beside_them(both):
    out, _ = both
    done = command("report", "both-digits", "both-other", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out / "report.html")
    assert {"Digits (both)", "Digits (both-other)"} <= set(
        Read((out / "report.html").read_text()).table("Task", "Winner, %")
    )


def test_figures_are_printed_and_nothing_is_written(both):
    out, results = both
    before = sorted(out.rglob("*"))
    done = command("report", "both", "--out", out, "--format", "csv")
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    found = results[0]["winner"]["test_accuracy"]["mean"]
    assert float(rows["idat-tune: the winner"]["digits"]) == pytest.approx(100 * found, abs=1e-6)
    one = command("report", "both-digits", "--out", out, "--format", "latex")
    assert one.stdout.count(r"\begin{tabular}") == 1
    assert len(results[0]["contenders"]) <= one.stdout.count(r" \\")
    assert sorted(out.rglob("*")) == before


def test_what_cannot_be_asked_for_is_refused(both):
    out, _ = both
    refused = command("report", "both", "--out", out, "--format", "csv", "--json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--json says where pages were written" in refused.stderr
    refused = command("report", "bot", "--out", out)
    assert refused.returncode == 2
    assert "no search at" in refused.stderr


def test_a_page_that_cannot_be_written_fails_no_search(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert of_searches.page(tmp_path / "file", "both", searched.vtab()) is None
    assert "report both --out" in capsys.readouterr().err
    assert of_searches.page(tmp_path, "both", searched.vtab()) == tmp_path / "both" / "report.html"
