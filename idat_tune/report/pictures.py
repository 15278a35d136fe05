"""Pictures as SVG that is as wide as the page: places across are percentages, so that text stays legible on a phone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import east_asian_width

from idat_tune.report.page import Html, html, tag
from idat_tune.report.scales import Scale, linear

LONGEST = 27  # small letters of a name beside its figures, on a phone
FEW = 80  # dots that have a hover text each; more are drawn as one path
GRID = 1000  # steps of a path, across and down


@dataclass(frozen=True)
class Interval:
    """A row of a forest plot: an estimate with its interval."""

    name: str
    mean: float
    low: float | None  # None: no interval is known
    high: float | None
    shown: str  # the figures, as they stand beside it
    tone: str = "plain"  # winner, default, alone, other, linear, plain, faint


@dataclass(frozen=True)
class Dot:
    """A point; `name` is what is shown where a mouse rests on it."""

    x: Any
    y: Any
    name: str = ""
    tone: str = "plain"
    filled: bool = True
    large: bool = False


@dataclass(frozen=True)
class Curve:
    """A line through points (x, y), in the order of x."""

    points: Sequence[tuple[float, float]]
    name: str = ""
    tone: str = "plain"
    dash: str = ""  # as SVG has it: "6 3"


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart; `low` and `high` are the ends of its interval."""

    name: str
    value: float
    shown: str
    low: float | None = None
    high: float | None = None
    tone: str = "winner"


def picture(name: str, about: str, height: int, inner: str, padding: tuple[int, int, int, int]) -> Html:
    """An SVG with its text alternative; `padding` (top, right, bottom, left) is where the words of the axes stand."""
    edges = " ".join(f"{edge}px" for edge in padding)
    whole = height + padding[0] + padding[2]
    return Html(
        f'<svg class="plot" role="img" aria-label="{html(name)}. {html(about)}" '
        f'style="height:{whole}px;padding:{edges}">'
        f"<title>{html(name)}</title><desc>{html(about)}</desc>{inner}</svg>"
    )


def cut(name: str, most: float = LONGEST) -> str:
    """A name no longer than there is room for: its beginning and its end, by which names of one kind differ."""
    if _width(name) <= most:
        return name
    begin, end = "", ""
    while _width(begin) + _width(end) < most - 3 and len(begin) + len(end) < len(name):
        begin, end = name[: len(begin) + 1], name[len(name) - len(begin) :]
    return f"{begin}…{end}"


def _width(name: str) -> float:
    """About how many small letters wide it is."""
    return sum(2 if east_asian_width(c) in "WF" else 1.6 if c.isupper() or c in "mw@%—…" else 1 for c in name)


def figure(drawn: Html, caption: object = "", *beside: object) -> Html:
    """A picture with its legend and caption."""
    said = tag("figcaption", caption) if caption else ""
    return tag("figure", drawn, *beside, said) if drawn else Html()


def legend(entries: Iterable[tuple[str, str, str]]) -> Html:
    """What marks mean: (mark, tone, words) with mark `line`, `6 3` and the like (a dashed line), `dot` or `ring`."""
    items = []
    for mark, tone, words in entries:
        if mark in ("dot", "ring"):
            drawn = _circle("13", 6, 4.5, mark == "dot")
        else:
            dash = "" if mark == "line" else f' stroke-dasharray="{mark}"'
            drawn = f'<line x1="1" x2="25" y1="6" y2="6" stroke="var(--tone)" stroke-width="2.5"{dash}/>'
        items.append(f'<li><svg class="tone-{tone}" aria-hidden="true">{drawn}</svg>{html(words)}</li>')
    return Html(f'<ul class="legend">{"".join(items)}</ul>') if items else Html()


def forest(
    name: str, about: str, rows: Sequence[Interval], axis: str, zero: float | None = 0.0, among: Iterable[float] = ()
) -> Html:
    """A row per estimate: its name and figures, and under them the estimate on its interval.

    `among` are values that the axis spans as well, as those of other pictures that it is to be compared with.
    """
    if not rows:
        return Html()
    step, most = 42, 2 + 42 * len(rows)
    ends = [end for row in rows for end in (row.low, row.high, row.mean) if end is not None]
    scale = linear([*ends, *among, *([] if zero is None else [zero])], least=1.0)
    parts = [_vertical(scale, most)]
    if zero is not None:
        parts.append(f'<line class="zero" x1="{_x(scale, zero)}" x2="{_x(scale, zero)}" y1="0" y2="{most}"/>')
    for index, row in enumerate(rows):
        top = index * step
        marks = []
        if row.low is not None and row.high is not None:
            low, high = _x(scale, row.low), _x(scale, row.high)
            marks.append(_stroke(low, high, top + 30, top + 30, 2.5))
            marks += [_stroke(end, end, top + 25, top + 35, 2) for end in (low, high)]
        marks.append(_circle(_x(scale, row.mean), top + 30, 5, row.low is not None))
        text = f'<text y="{top + 16}">{html(cut(row.name))}</text>'
        figures = f'<text x="100%" y="{top + 16}" text-anchor="end">{html(row.shown)}</text>'
        parts.append(f'<g class="tone-{row.tone}"><title>{html(row.name, ": ", row.shown)}</title>')
        parts.append(f"{''.join(marks)}{text}{figures}</g>")
    parts.append(_below(axis, most))
    return picture(name, about, most, "".join(parts), (2, 12, 40, 12))


def bars(name: str, about: str, rows: Sequence[Bar], most: float = 1.0) -> Html:
    """A bar per row under its name and figure, from 0 to `most`."""
    if not rows:
        return Html()
    step = 34
    parts = []
    for index, row in enumerate(rows):
        top = index * step
        width = f"{100 * min(max(row.value / most, 0.0), 1.0):.2f}%"
        parts.append(
            f'<g class="tone-{row.tone}"><title>{html(row.name, ": ", row.shown)}</title>'
            f'<text y="{top + 14}">{html(cut(row.name))}</text>'
            f'<text x="100%" y="{top + 14}" text-anchor="end">{html(row.shown)}</text>'
            f'<rect y="{top + 20}" width="100%" height="7" rx="2" fill="var(--wash)"/>'
            f'<rect y="{top + 20}" width="{width}" height="7" rx="2" fill="var(--tone)" fill-opacity=".55"/>'
        )
        if row.low is not None and row.high is not None:
            low, high = (f"{100 * min(max(end / most, 0.0), 1.0):.2f}%" for end in (row.low, row.high))
            parts.append(
                f'<line x1="{low}" x2="{high}" y1="{top + 23.5}" y2="{top + 23.5}" '
                'stroke="var(--ink)" stroke-width="2"/>'
            )
        parts.append("</g>")
    return picture(name, about, step * len(rows), "".join(parts), (0, 0, 2, 0))


def scatter(
    name: str, about: str, dots: Sequence[Dot], x: Scale, y: Scale, axes: tuple[str, str] = ("", ""), height: int = 220
) -> Html:
    """Dots over two axes; the large ones lie on top."""
    if not dots:
        return Html()
    title = f'<text class="tick" x="-38" y="-8">{html(axes[1])}</text>' if axes[1] else ""
    inner = _vertical(x, height) + _horizontal(y, height) + title + _dots(dots, x, y, height) + _below(axes[0], height)
    return picture(name, about, height, inner, (24 if axes[1] else 8, 14, 38 if axes[0] else 20, 40))


def rows_of_dots(name: str, about: str, dots: Sequence[Dot], x: Scale, y: Scale, axis: str = "") -> Html:
    """Dots in a row for each choice on the y axis, whose name stands above its row."""
    step = 34
    height = step * len(y.choices)
    names = "".join(
        f'<text class="tick" y="{index * step + 12}">{html(cut(choice, 40))}</text>'
        f'<line class="axis" x1="0" x2="100%" y1="{index * step + 23}" y2="{index * step + 23}"/>'
        for index, choice in enumerate(y.choices)
    )
    lower = [Dot(dot.x, y.at(dot.y) + 6 / height, dot.name, dot.tone, dot.filled, dot.large) for dot in dots]
    inner = names + _dots(lower, x, Scale(0.0, 1.0, ()), height, down=True) + _ticks(x, height) + _below(axis, height)
    return picture(name, about, height, inner, (2, 14, 38 if axis else 20, 14))


def lines(
    name: str,
    about: str,
    curves: Sequence[Curve],
    x: Scale,
    y: Scale,
    axes: tuple[str, str] = ("", ""),
    height: int = 260,
) -> Html:
    """Curves over two axes; later ones lie on top."""
    if not any(curve.points for curve in curves):
        return Html()
    drawn = []
    for curve in curves:
        places = [f"{GRID * x.at(across):.0f} {GRID * (1 - y.at(up)):.0f}" for across, up in curve.points]
        path = f"M{places[0]}h0" if len(places) == 1 else f"M{'L'.join(places)}"
        dash = f' stroke-dasharray="{curve.dash}"' if curve.dash else ""
        title = f"<title>{html(curve.name)}</title>" if curve.name else ""
        width = ' stroke-width="1"' if curve.tone == "faint" else ""
        drawn.append(
            f'<g class="tone-{curve.tone}">{title}<path class="curve" stroke="var(--tone)" stroke-linecap="round" '
            f'd="{path}"{dash}{width}/></g>'
        )
    title = f'<text class="tick" x="-38" y="-8">{html(axes[1])}</text>' if axes[1] else ""
    inner = _vertical(x, height) + _horizontal(y, height) + title + _stretched("".join(drawn), height)
    return picture(name, about, height, inner + _below(axes[0], height), (24 if axes[1] else 8, 14, 38, 40))


def matrix(
    name: str, about: str, cells: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str]
) -> Html:
    """Counts by row and column, the darker the more of its row; the diagonal is framed. Names are short, as numbers."""
    count = len(rows)
    if not count:
        return Html()
    step, wide = 24, 100 / len(columns)
    parts = []
    for down, row in enumerate(cells):
        whole = sum(row) or 1
        middle = down * step + step / 2
        parts.append(f'<text class="tick" x="-6" y="{middle + 4:g}" text-anchor="end">{html(rows[down])}</text>')
        for across, value in enumerate(row):
            if not value and down != across:
                continue
            share = value / whole
            frame = ' stroke="var(--dim)"' if down == across else ""
            parts.append(
                f"<g><title>{html(f'{rows[down]} taken for {columns[across]}: {value:g} of {whole:g}')}</title>"
                f'<rect x="{across * wide:.2f}%" y="{down * step + 1}" width="{wide * 0.94:.2f}%" height="{step - 2}" '
                f'fill="rgba(var(--heat),{max(share, 0.06 if value else 0):.2f})"{frame}/>'
            )
            if count <= 12 and value:
                ink = ' style="fill:var(--paper)"' if share > 0.55 else ""
                parts.append(
                    f'<text class="tick cell" x="{(across + 0.47) * wide:.2f}%" y="{middle + 4:g}" '
                    f'text-anchor="middle"{ink}>{value:g}</text>'
                )
            parts.append("</g>")
    parts += [
        f'<text class="tick" x="{(across + 0.47) * wide:.2f}%" y="{count * step + 15}" text-anchor="middle">'
        f"{html(column)}</text>"
        for across, column in enumerate(columns)
    ]
    return picture(name, about, count * step, "".join(parts), (2, 2, 22, 30))


def _x(scale: Scale, value: object) -> str:
    return f"{100 * scale.at(value):.2f}%"


def _stroke(x1: str, x2: str, y1: float, y2: float, width: float) -> str:
    return f'<line x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}" stroke="var(--tone)" stroke-width="{width}"/>'


def _circle(x: str, y: float, radius: float, filled: bool) -> str:
    inside = "var(--tone)" if filled else "var(--paper)"
    return f'<circle cx="{x}" cy="{y:g}" r="{radius:g}" fill="{inside}" stroke="var(--tone)" stroke-width="1.5"/>'


def _vertical(scale: Scale, height: int) -> str:
    """Rules of the axis across, with what stands below them."""
    rules = "".join(
        f'<line class="axis" x1="{_x(scale, value)}" x2="{_x(scale, value)}" y1="0" y2="{height}"/>'
        for value, _ in scale.ticks
    )
    return rules + _ticks(scale, height)


def _ticks(scale: Scale, height: int) -> str:
    return "".join(
        f'<text class="tick" x="{_x(scale, value)}" y="{height + 15}" text-anchor="middle">{html(words)}</text>'
        for value, words in scale.ticks
    )


def _horizontal(scale: Scale, height: int) -> str:
    """Rules of the axis up, with what stands left of them."""
    parts = []
    for value, words in scale.ticks:
        down = height * (1 - scale.at(value))
        parts.append(
            f'<line class="axis" x1="0" x2="100%" y1="{down:.1f}" y2="{down:.1f}"/>'
            f'<text class="tick" x="-7" y="{down + 4:.1f}" text-anchor="end">{html(words)}</text>'
        )
    return "".join(parts)


def _below(axis: str, height: int) -> str:
    """What the axis across says, below its ticks."""
    return f'<text class="tick" x="50%" y="{height + 32}" text-anchor="middle">{html(axis)}</text>' if axis else ""


def _stretched(drawn: str, height: int) -> str:
    """A part of the picture whose places are of a grid."""
    return (
        f'<svg width="100%" height="{height}" viewBox="0 0 {GRID} {GRID}" preserveAspectRatio="none" '
        f'overflow="visible">{drawn}</svg>'
    )


def _dots(dots: Sequence[Dot], x: Scale, y: Scale, height: int, down: bool = False) -> str:
    """Dots, each with its hover text while they are few; the large ones last."""
    single = list(dots) if len(dots) <= FEW else [dot for dot in dots if dot.large]
    many = [] if len(dots) <= FEW else [dot for dot in dots if not dot.large]

    def up(dot: Dot) -> float:
        return y.at(dot.y) if down else 1 - y.at(dot.y)

    paths = []
    for tone, filled in dict.fromkeys((dot.tone, dot.filled) for dot in many):
        places = (dot for dot in many if (dot.tone, dot.filled) == (tone, filled))
        path = "".join(f"M{GRID * x.at(dot.x):.0f} {GRID * up(dot):.0f}h0" for dot in places)
        for stroke, width in (("var(--tone)", 8), *([] if filled else [("var(--paper)", 5)])):
            paths.append(
                f'<path class="tone-{tone}" d="{path}" stroke="{stroke}" stroke-width="{width}" '
                'stroke-linecap="round" vector-effect="non-scaling-stroke"/>'
            )
    circles = (
        f'<g class="tone-{dot.tone}"><title>{html(dot.name)}</title>'
        f"{_circle(_x(x, dot.x), height * up(dot), 6 if dot.large else 4, dot.filled)}</g>"
        for dot in sorted(single, key=lambda dot: dot.large)
    )
    return (_stretched("".join(paths), height) if paths else "") + "".join(circles)
