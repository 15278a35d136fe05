"""What came of searches as Markdown, CSV and LaTeX, and the paper's table beside it."""

import csv
import io
import re
import statistics

import pytest
import searched
from markdown_it import MarkdownIt

from idat_tune.report import published, tables
from idat_tune.report.formats import FORMATS, as_csv, latex, markdown, markdown_text
from idat_tune.report.outcomes import Outcome, dealt
from idat_tune.tasks import TASKS, VTAB

HOSTILE = [
    '=HYPERLINK("http://evil.example","x")',
    "+1+cmd|' /C calc'!A0",
    "@sum(1,2)",
    "-2+3",
    " \t=1+1",
    "<script>alert(1)</script>",
    "a|b\\|c",
    "*bold* _it_ `code` [link](http://evil.example) ~~x~~ &lt; $x$",
    r"\input{/etc/passwd} 50% #1 {a}^2~b --- $y$",
    "two\nlines\r\nand \x1b[31mred, \"quoted\"; 'x'",
]


def outcomes(*names, **about):
    return [Outcome(searched.result(name, **about)) for name in names]


def rows_of(table):
    """The rows of its CSV, by method or trial, as the csv module gives them back."""
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    return {row.get("method", row.get("trial")): row for row in rows}


def shown(text):
    """The cells of a Markdown table, as plain text that a reader of it sees."""
    html = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td|ul|li|h3)\b)", html), html  # no markup of a name's own
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [[unescaped(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def unescaped(text):
    for entity, plain in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        text = text.replace(entity, plain)
    return text


def test_the_means_of_the_published_figures_are_those_that_the_paper_prints():
    for row in published.TABLE:
        assert list(row.accuracy) == list(published.ORDER)
        assert row.over(published.ORDER) == pytest.approx(row.mean, abs=0.0055), row.method
    assert len(published.TABLE) == 18
    assert len(published.ORDER) == 19


def test_the_headline_of_the_paper_stands_in_the_table():
    known = {row.method: row for row in published.TABLE}
    ours, before = known["iDAT-S-kl"], known["Sequential Adapter*"]
    assert ours.mean - before.mean == pytest.approx(2.66)
    assert ours.group_mean == pytest.approx(76.76, abs=0.005)  # 2.5 points above the mean of the tasks
    assert ours.accuracy["clevr_dist"] - before.accuracy["clevr_dist"] == pytest.approx(28.1)
    assert ours.selected_on == before.selected_on == published.SELECTED
    assert known["SSF"].selected_on == published.CITED


def test_every_figure_of_the_table_is_that_of_the_result():
    results = searched.vtab()
    row = rows_of(tables.of_tasks([Outcome(result) for result in results]))["idat-tune: the winner"]
    for result in results:
        found = result["winner"]["test_accuracy"]
        assert float(row[result["task"]]) == pytest.approx(100 * found["mean"])
        assert float(row[f"{result['task']} std"]) == pytest.approx(100 * found["std"], abs=1e-6)
    groups = [
        statistics.fmean(100 * one["winner"]["test_accuracy"]["mean"] for one in results if of(one) == group)
        for group in VTAB
    ]
    overall = statistics.fmean(100 * one["winner"]["test_accuracy"]["mean"] for one in results)
    assert float(row["mean"]) == pytest.approx(overall)
    assert float(row["group mean"]) == pytest.approx(statistics.fmean(groups))
    assert (row["mean over"], row["natural mean over"]) == ("19", "7")


def of(result):
    return TASKS[result["task"]].group


def test_the_published_rows_stand_beside_ours_with_both_protocols():
    table = tables.of_tasks(outcomes(*published.ORDER))
    rows = rows_of(table)
    assert rows["iDAT-S-kl (iDAT)"]["mean"] == "74.21"
    assert rows["iDAT-S-kl (iDAT)"]["clevr_dist"] == "62.6"
    assert rows["iDAT-S-kl (iDAT)"]["selected on"] == "test, best epoch"
    assert rows["idat-tune: the winner"]["selected on"] == "validation"
    assert rows["idat-tune: the default"]["selected on"] == "not tuned"
    head = markdown(table)
    assert "selected on validation images, test opened once, 3 seeds, last epoch" in head
    assert "best epoch selected on the test split" in head


def test_a_task_that_was_not_tested_is_a_dash_and_means_say_over_how_many_they_are():
    table = tables.of_tasks([*outcomes("dtd", "svhn", "kitti"), *outcomes("eurosat", won="nobody")])
    row = rows_of(table)["idat-tune: the winner"]
    assert row["cifar"] == row["eurosat"] == row["specialized mean"] == row["group mean"] == ""
    assert row["mean over"] == "3"
    text = dict(zip(*(cells for cells in shown(markdown(table))[:2]), strict=True))
    assert text["CIFAR-100"] == text["EuroSAT"] == text["Specialized"] == "-"
    assert text["Mean of 19 tasks"] == f"{float(row['mean']):.2f} (over 3)"
    theirs = next(one for one in published.TABLE if one.method == "SSF")
    common = float(rows_of(table)["SSF (NeurIPS22)"]["common mean"])  # what compares with ours
    assert common == pytest.approx(theirs.over(["dtd", "svhn", "kitti"]))


def test_tasks_outside_the_benchmark_have_no_published_rows_and_do_not_enter_its_means():
    assert next(iter(rows_of(tables.of_tasks(outcomes("digits", "mine"))))) == "idat-tune: the winner"
    assert not any("iDAT" in name for name in rows_of(tables.of_tasks(outcomes("digits", "mine"))))
    both = rows_of(tables.of_tasks(outcomes("digits", "mine", "dtd")))
    assert both["idat-tune: the winner"]["mean"] == both["idat-tune: the winner"]["dtd"]
    assert both["SSF (NeurIPS22)"]["mine"] == ""


def test_one_seed_has_no_deviation():
    row = rows_of(tables.of_tasks(outcomes("digits", seeds=1)))["idat-tune: the winner"]
    assert row["digits std"] == ""
    assert "±" not in shown(markdown(tables.of_tasks(outcomes("digits", seeds=1))))[1][2]


def test_a_winner_without_a_teacher_stands_in_the_row_without_one_too():
    found = outcomes("digits", won="alone") + outcomes("dtd", won="default") + outcomes("svhn")
    rows = rows_of(tables.of_tasks(found))
    alone, taught = rows["idat-tune: the winner, no teacher"], rows["idat-tune: the winner with a teacher"]
    winner, default = rows["idat-tune: the winner"], rows["idat-tune: the default, no teacher"]
    assert alone["digits"] == winner["digits"] != taught["digits"]
    assert taught["svhn"] == winner["svhn"] != alone["svhn"]
    assert alone["dtd"] == default["dtd"]  # where the default won


def test_rows_that_would_be_the_same_stand_once():
    rows = rows_of(tables.of_tasks(outcomes("digits", "dtd")))
    assert "idat-tune: the winner with a teacher" not in rows


def test_an_arm_that_the_space_names_has_a_row_beside_the_paper():
    one = searched.result("dtd")
    summary = {
        **one["arms"]["default"],
        "trial": "arm-arc",
        "test_accuracy": {"mean": 0.7125, "std": 0.004, "seeds": 3},
    }
    one["arms"] = {**one["arms"], "arc": summary, "lora": None}
    table = rows_of(tables.of_tasks([Outcome(one)]))
    assert float(table["idat-tune: arc"]["dtd"]) == pytest.approx(71.25)
    assert "idat-tune: lora" not in table  # which was not tested


def test_two_searches_of_a_task_are_two_rows():
    one, two = (searched.vtab(seed, name) for seed, name in ((0, "tasks-1"), (1, "tasks-2")))
    found = [Outcome(result) for result in (*one, *two)]
    assert list(dealt(found)) == ["tasks-1", "tasks-2"]
    rows = rows_of(tables.of_tasks(found))
    assert float(rows["idat-tune (tasks-2): the winner"]["dtd"]) == pytest.approx(
        100 * two[2]["winner"]["test_accuracy"]["mean"]
    )
    loose = [Outcome(searched.result(task, name=name)) for task, name in (("dtd", "a"), ("dtd", "b"), ("svhn", "c"))]
    assert list(dealt(loose)) == ["a, c", "b"]


def test_the_table_of_one_task_has_every_contender_with_its_interval():
    result = searched.result("dtd")
    rows = rows_of(tables.of_task(Outcome(result)))
    for one in result["contenders"]:
        row, against = rows[one["trial"]], one["minus_default"]["test"]
        assert float(row["splits"]) == pytest.approx(100 * one["confirmed"]["mean"])
        assert int(row["parameters"]) == one["trainable_params"]
        if against:
            low, high = (100 * end for end in against["interval"])
            assert float(row["test gain"]) == pytest.approx(100 * against["mean"])
            assert (float(row["test gain low"]), float(row["test gain high"])) == pytest.approx((low, high))
    assert rows["trial-007"]["contender"] == "the winner"


def test_a_result_of_before_there_were_contenders_still_has_a_table():
    result = {key: value for key, value in searched.result("dtd", won="default").items() if key != "contenders"}
    rows = rows_of(tables.of_task(Outcome(result)))
    assert rows["arm-default"]["contender"] == "the winner = the default"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_plain_text_in_every_format(name):
    found = [Outcome({**searched.result("digits"), "name": name}), Outcome(searched.result(name))]
    found += [Outcome(searched.result("digits", seed=1, name="other"))]  # so that names of searches stand in rows
    for table in (tables.of_tasks(found), tables.of_task(found[0])):
        whole = as_csv(table)
        read = list(csv.reader(io.StringIO(whole), strict=True))
        assert len({len(row) for row in read}) == 1
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", whole)
        for cell in (cell for row in read for cell in row):
            assert not cell.lstrip().startswith(("=", "+", "@", "|", "%")), cell
            assert not cell.lstrip().startswith("-") or float(cell) <= 0, cell
        assert len({len(row) for row in shown(markdown(table))}) == 1
        rows = cells_of(latex(table))
        assert {len(row) for row in rows} == {len(table.columns)}


def cells_of(text):
    """The cells of a LaTeX table's rows, whose special characters are all escaped."""
    body = text.split(r"\hline")[-2]
    caption = re.search(r"\\caption\{(.*)\}\n", text)[1]
    for part in (body.replace(" & ", " ").replace("\\\\\n", "\n"), caption):
        plain = re.sub(r"\\[{}$&#%_]|\$(\\pm|-)\$|\\(text[a-z]+|`)\{\}|-\{\}-", "", part)
        assert not re.search(r'[\\{}$&#%_^~<>|"`±]', plain), plain
    return [line.removesuffix(r" \\").split(" & ") for line in body.strip().splitlines()]


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_a_name_as_it_is(name):
    text = markdown_text(name)
    assert shown(f"| a |\n|---|\n| {text} |\n")[1] == [
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name).strip()
    ]


def test_every_format_ends_with_a_line_end():
    for write in FORMATS.values():
        assert write(tables.of_tasks(outcomes("digits"))).endswith("\n")
