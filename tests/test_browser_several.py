"""The page over several tasks in a real browser: legible at every width, light, dark and printed."""

import browser
import pytest
import searched
from browser import Browser

from idat_tune.report import several

pytestmark = browser.needed

LONG = "a rather long name of a task of somebody's own, which goes on | and on"
CASES = {
    "two": lambda: [searched.result(task, seeds=2, name=f"two-{task}") for task in ("digits", "sprites_loc")],
    "nineteen": searched.vtab,
    "some": lambda: [
        searched.result("dtd"),
        searched.result("svhn", won="nobody"),
        searched.result("kitti", seeds=1),
        searched.result("digits", won="default"),
        searched.result(LONG, won="alone"),
        searched.result("x" * 80),
    ],
    "twice": lambda: searched.vtab() + searched.vtab(1, "another-name-2"),
    "none": lambda: [searched.result(task, won="nobody") for task in ("dtd", "digits")],
}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module", params=CASES)
def address(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return several.write(out / "all" / "report.html", CASES[request.param](), out).as_uri()


@pytest.mark.parametrize(
    ("width", "dark", "media"),
    [(1280, False, ""), (390, False, ""), (390, True, ""), (718, False, "print")],
)
def test_nothing_is_cut_off_or_overlaps_and_nothing_is_asked_for_or_said(chromium, address, width, dark, media):
    page = chromium.open(address, width, 844, dark, media)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.overlapping() == []
    assert page.cut_off() == []
    assert [url for url in page.requests if not url.startswith("data:")] == [address]
    assert page.said == []


def test_wide_tables_scroll_in_their_box_with_the_first_column_in_sight(chromium, tmp_path):
    address = several.write(tmp_path / "report.html", searched.vtab(), tmp_path).as_uri()
    page = chromium.open(address, 390, 844)
    scrolled = """
    [...document.querySelectorAll('.grid .wide')].filter(box => box.scrollWidth > box.clientWidth).map(box => {
      box.scrollLeft = 1000;
      return [box.scrollLeft, box.querySelector('td').getBoundingClientRect().left - box.getBoundingClientRect().left];
    })
    """
    found = page.evaluate(scrolled)
    assert len(found) >= 4
    assert all(far > 0 and abs(left) < 1 for far, left in found)


def test_on_paper_no_table_is_wider_than_the_page(chromium, tmp_path):
    address = several.write(tmp_path / "report.html", searched.vtab(), tmp_path).as_uri()
    page = chromium.open(address, 718, 1000, media="print")
    widths = page.evaluate("[...document.querySelectorAll('table')].map(one => one.getBoundingClientRect().right)")
    assert len(widths) >= 6
    assert max(widths) <= 719


def test_dark_is_dark_and_paper_is_white(chromium, tmp_path):
    address = several.write(tmp_path / "report.html", searched.vtab(), tmp_path).as_uri()
    shade = "getComputedStyle(document.querySelector('.grid td')).backgroundColor"
    assert chromium.open(address, 1280, dark=True).evaluate(shade) == "rgb(20, 23, 27)"
    assert chromium.open(address, 1280, dark=True, media="print").evaluate(shade) == "rgb(255, 255, 255)"
