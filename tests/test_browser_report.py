"""The page of a search in a real browser: at every width, light, dark and printed, nothing is cut off or collides."""

import re

import browser
import pytest
from browser import Browser
from played import HOSTILE, made, own_task

from idat_tune import tasks
from idat_tune.search import searcher

pytestmark = browser.needed

# Pairs of texts of one picture whose boxes overlap; a pixel of each side is the box's own.
COLLISIONS = """
[...document.querySelectorAll('svg.plot')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()]);
  return boxes.flatMap(([words, a], i) => boxes.slice(i + 1)
    .filter(([, b]) => a.left + 1 < b.right && b.left + 1 < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
    .map(([other]) => `${svg.getAttribute('aria-label').slice(0, 40)}: ${words} | ${other}`));
})
"""
# What reaches out of the page: texts and marks of pictures, and whatever does not scroll in a box of its own.
OUTSIDE = """
[...document.querySelectorAll('svg.plot text, svg.plot circle, svg.plot rect, h1, p, pre, dd, li, figcaption, img')]
  .filter(one => !one.closest('.wide'))
  .map(one => [one.textContent.slice(0, 60), one.getBoundingClientRect()])
  .filter(([, box]) => box.width && (box.right > document.documentElement.clientWidth + 1 || box.left < -1))
  .map(([words, box]) => `${words}: ${box.left} to ${box.right}`)
"""
# The least contrast of ink on paper among all texts, by the formula of WCAG.
CONTRAST = """
(() => {
  const parts = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = colour => parts(colour).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const inks = [...document.querySelectorAll('h1, p, td, th, dt, dd, li, figcaption, svg text:not(.cell)')]
    .map(one => { const style = getComputedStyle(one); return one.tagName == 'text' ? style.fill : style.color; });
  return Math.min(...inks.map(light).map(ink => (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05)));
})()
"""
CASES = {
    "digits": {},
    "two": {"task": "two", "fixed": {"epochs": 4, "student": "glyph_base"}},
    "many": {"task": "many", "fixed": {"epochs": 4, "student": "glyph_base"}},
    "twenty": {"task": "twenty", "fixed": {"epochs": 4, "student": "glyph_base"}},
    "failed": {"fails": lambda payload: True},
    "rich": {"trials": 90, "folds": 0},
}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module", params=CASES)
def address(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searcher.ray, "put", lambda value: value)
        for name in ("TASKS", "_BY_KEY"):
            patch.setattr(tasks, name, dict(getattr(tasks, name)))
        own_task(2, "two", class_names=(HOSTILE, "天気の種類の番号" * 12))
        own_task(20, "twenty", class_names=[f"Wide Words of a Kind of Weather, Number {label}" for label in range(20)])
        own_task(397, "many", class_names=[f"a_rather_long_name_of_a_scene_that_is_number_{n}" for n in range(397)])
        yield made(tmp_path_factory.mktemp("runs"), **CASES[request.param]).page.as_uri()


@pytest.mark.parametrize(
    ("width", "dark", "media"),
    [(1280, False, ""), (1280, True, ""), (768, False, ""), (390, False, ""), (390, True, ""), (720, True, "print")],
)
def test_nothing_is_cut_off_or_collides_and_nothing_is_asked_for_or_said(chromium, address, width, dark, media):
    page = chromium.open(address, width, 844, dark, media)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate(COLLISIONS) == []
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate(CONTRAST) >= 4.5
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in page.requests if url.startswith("file:")]) == 1
    assert page.said == []


def test_on_a_phone_the_four_answers_leave_room_on_the_first_screen(chromium, address):
    page = chromium.open(address, 390, 844)
    boxes = page.evaluate(
        "[...document.querySelectorAll('.tiles > div')].map(one => one.getBoundingClientRect().toJSON())"
    )
    assert len({round(box["left"]) for box in boxes}) <= 2
    assert boxes[-1]["bottom"] - boxes[0]["top"] < 844 / 2
    assert boxes[-1]["bottom"] < 844


def test_without_script_and_closed_the_page_reads_and_what_is_folded_is_printed(chromium, address):
    page = chromium.open(address, 1280)
    closed = page.evaluate("document.querySelectorAll('details:not([open])').length")
    assert closed >= (2 if page.evaluate("document.body.innerText.includes('Inside the students')") else 1)
    hidden = "[...document.querySelectorAll('details > :not(summary)')].some(one => one.checkVisibility(%s))"
    rendered = hidden % "{contentVisibilityAuto: true, visibilityProperty: true}"
    assert not page.evaluate(rendered)
    page.resize(720, media="print")
    page.wait_for(rendered)
    ink = page.evaluate("getComputedStyle(document.body).color")
    page.resize(720, dark=True, media="print")
    page.wait_for("matchMedia('(prefers-color-scheme: dark)').matches")
    assert page.evaluate("getComputedStyle(document.body).color") == ink
    assert max(map(int, re.findall(r"\d+", ink))) < 80  # dark ink, whatever the screen shows
