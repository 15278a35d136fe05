"""The shell of a page: text that is always escaped, sections, tiles, tables, and the style of it all."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from idat_tune.errors import printable

# Nothing is fetched and nothing runs, whatever a class name holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Html(str):
    """Text that is HTML already; any other is escaped where it enters a page."""


def html(*parts: object) -> Html:
    """Parts one after the other, as HTML."""
    return Html("".join(part if isinstance(part, Html) else escape(printable(str(part))) for part in parts))


def tag(name: str, *parts: object, **attributes: object) -> Html:
    """An element; `class_` and the like lose their underscore, the others stand for hyphens; None is left out."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    shown = "".join(f' {key}="{html(value)}"' for key, value in named.items())
    return Html(f"<{name}{shown}>{html(*parts)}</{name}>")


def breakable(text: str) -> Html:
    """A name that may go on in the next line after a slash, a dot or an underscore."""
    return Html(re.sub(r"([/._])(?=\w)", r"\1<wbr>", html(text)))


def paragraph(*parts: object, soft: bool = False) -> Html:
    """A paragraph; `soft` says something beside the matter. Nothing where it would be empty."""
    return Html() if not any(parts) else tag("p", *parts, class_="soft" if soft else None)


def code(text: object) -> Html:
    """A line to copy."""
    return Html(f"<pre><code>{html(text)}</code></pre>")


def section(heading: str, *parts: object) -> Html:
    """A part of the page under its heading; nothing where it would be empty."""
    inner = html(*parts)
    return Html(f"<section><h2>{html(heading)}</h2>{inner}</section>") if inner else Html()


def subsection(heading: str, *parts: object) -> Html:
    """A part of a section."""
    inner = html(*parts)
    return Html(f"<h3>{html(heading)}</h3>{inner}") if inner else Html()


def folded(heading: str, *parts: object) -> Html:
    """A part that is closed until it is asked for; printed open."""
    inner = html(*parts)
    return Html(f"<details><summary>{html(heading)}</summary>{inner}</details>") if inner else Html()


@dataclass(frozen=True)
class Tile:
    """One answer: what is asked, the figure, a few words on it."""

    asked: str
    figure: str
    note: str = ""


def tiles(shown: Sequence[Tile]) -> Html:
    """The answers side by side, or two by two where there is no room."""
    each = (
        f"<div><dt>{html(tile.asked)}</dt><dd><b>{html(tile.figure)}</b><span>{html(tile.note)}</span></dd></div>"
        for tile in shown
    )
    return Html(f'<dl class="tiles">{"".join(each)}</dl>')


def table(head: Sequence[object], rows: Iterable[Sequence[object]], align: str = "", about: str = "") -> Html:
    """A table, which scrolls in itself where it is too wide; nothing where it has no rows.

    Args:
        head: names of the columns.
        rows: cells, HTML or text.
        align: `l`, `n` (left, on one line) or `r` for each column; unless given, the first is to the left and the rest
            to the right.
        about: its caption.
    """
    sides = align or "l" + "r" * (len(head) - 1)

    def cells(kind: str, row: Sequence[object]) -> str:
        return "".join(
            tag(kind, cell, class_=None if side == "l" else side) for cell, side in zip(row, sides, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    if not body:
        return Html()
    caption = f"<caption>{html(about)}</caption>" if about else ""
    whole = f"<table>{caption}<thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
    return Html(f'<div class="wide" tabindex="0" role="group" aria-label="{html(about or "table")}">{whole}</div>')


def facts(pairs: Iterable[tuple[object, object]]) -> Html:
    """Names with what they stand for."""
    each = "".join(f"<dt>{html(name)}</dt><dd>{html(text)}</dd>" for name, text in pairs)
    return Html(f'<dl class="facts">{each}</dl>') if each else Html()


def bullets(sentences: Iterable[object]) -> Html:
    """A list."""
    each = "".join(f"<li>{html(sentence)}</li>" for sentence in sentences)
    return Html(f"<ul>{each}</ul>") if each else Html()


def page(title: str, *parts: object, kicker: str = "", footer: str = "") -> str:
    """A whole page of a title and what follows it; `kicker` is the small line above the title."""
    above = f'<p class="kicker">{html(kicker)}</p>' if kicker else ""
    below = f"<footer>{html(footer)}</footer>" if footer else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{html(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><header>{above}<h1>{html(title)}</h1></header>\n{html(*parts)}\n{below}</main></body></html>\n"
    )


# Tones are those of Okabe and Ito, which are told apart by people who see few colours; what matters differs in shape
# or dash as well.
_LIGHT = (
    "--paper:#fff;--ink:#1d2126;--soft:#5a636e;--rule:#d5dae0;--wash:#f5f7f9;--faint:#a9b1ba;--dim:#8b95a0;"
    "--winner:#0067a8;--default:#b25000;--alone:#00795b;--other:#a3457d;--linear:#6d5a00;--heat:0,103,168"
)
_DARK = (
    "--paper:#14171b;--ink:#e7eaee;--soft:#a2acb7;--rule:#343b43;--wash:#1d2227;--faint:#59636e;--dim:#7d8894;"
    "--winner:#5cb8f0;--default:#f0a04b;--alone:#3cc79d;--other:#e394c4;--linear:#d8c34a;--heat:92,184,240"
)
STYLE = (
    f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
@media print{{:root{{color-scheme:light;{_LIGHT}}}}}
"""
    + """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;overflow-wrap:break-word}
main{max-width:60rem;margin:0 auto;padding:1.5rem 1.25rem 3rem}
h1{font-size:1.9rem;line-height:1.2;margin:.1rem 0 .6rem;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:1.25rem;line-height:1.3;margin:2.4rem 0 .4rem;padding-top:.7rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.5rem 0 .3rem}
p{margin:.4rem 0 .7rem;max-width:46rem}
.kicker,.soft,footer,caption,figcaption{color:var(--soft)}
.kicker{margin:0;font-size:.9rem}
.soft,caption,figcaption{font-size:.875rem}
a{color:var(--winner)}
code,pre{font:.875rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{margin:.5rem 0 .8rem;padding:.6rem .8rem;background:var(--wash);border:1px solid var(--rule);border-radius:6px;
white-space:pre-wrap}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:.75rem;margin:1.1rem 0}
.tiles>div{background:var(--wash);border:1px solid var(--rule);border-radius:8px;padding:.7rem .85rem;min-width:0}
dt{font-weight:400}
dd{margin:0}
.tiles dt{color:var(--soft);font-size:.8125rem;line-height:1.3}
.tiles b{display:block;font-size:1.375rem;line-height:1.25;margin:.15rem 0;font-weight:650;
font-variant-numeric:tabular-nums}
.tiles span{display:block;font-size:.8125rem;line-height:1.35;color:var(--soft)}
.wide{overflow-x:auto;margin:.6rem 0 1rem}
table{border-collapse:collapse;font-size:.875rem;line-height:1.4;min-width:min(100%,20rem)}
caption{text-align:left;padding-bottom:.4rem}
th,td{text-align:left;padding:.32rem .9rem .32rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:500;color:var(--soft);vertical-align:bottom}
.r{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
th.r{white-space:normal}
.n{white-space:nowrap}
td:first-child{min-width:5.5rem}
.grid td:first-child,.grid th:first-child{position:sticky;left:0;background:var(--paper)}
.grid td:first-child{min-width:8.5rem;overflow-wrap:anywhere}
@media print{.grid table{font-size:8pt}.grid th,.grid td{padding-right:.5rem;overflow-wrap:anywhere}
.grid td:first-child{min-width:6rem}}
.facts{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.2rem 1.2rem;font-size:.875rem;
margin:.6rem 0}
.facts dt{color:var(--soft)}
.facts dd{min-width:0;overflow-wrap:anywhere}
ul{margin:.4rem 0 .8rem;padding-left:1.2rem;max-width:46rem}
li{margin:.25rem 0}
details{margin:.7rem 0;border:1px solid var(--rule);border-radius:8px;padding:0 .9rem}
summary{cursor:pointer;padding:.6rem 0;font-weight:500}
details[open]{padding-bottom:.6rem}
footer{margin-top:2.5rem;padding-top:.8rem;border-top:1px solid var(--rule);font-size:.8125rem}
figure{margin:.6rem 0 1rem}
figcaption{margin-top:.3rem}
svg.plot{display:block;width:100%;overflow:visible;font-family:inherit}
svg text{font-size:12px;fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
svg .cell{stroke:none}
svg .tick{fill:var(--soft);font-size:11px}
svg .axis{stroke:var(--rule);fill:none}
svg .zero{stroke:var(--dim);stroke-dasharray:3 3}
svg .curve{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1rem;list-style:none;padding:0;margin:.3rem 0;font-size:.8125rem;
color:var(--soft);max-width:none}
.legend li{margin:0;display:flex;align-items:center;gap:.4rem}
.legend svg{flex:none;width:26px;height:12px}
.key,.configs ul{font-size:.8125rem;line-height:1.45;color:var(--soft);max-width:none;margin:.3rem 0 .8rem}
.key{columns:9rem;padding-left:2rem}
.key li{margin:0;break-inside:avoid}
.strips{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:.4rem 2rem}
.strips figure{min-width:0;margin:.3rem 0}
.strips figcaption{margin:0;color:var(--ink)}
.shots{display:grid;grid-template-columns:repeat(auto-fill,minmax(5.8rem,1fr));gap:.8rem;margin:.6rem 0 1rem}
.shots figure{margin:0;min-width:0}
.shots img{display:block;width:64px;height:64px;object-fit:contain;image-rendering:pixelated;background:var(--wash);
border:1px solid var(--rule);border-radius:4px}
.shots figcaption{font-size:.75rem;line-height:1.35}
.tone-winner{--tone:var(--winner)}.tone-default{--tone:var(--default)}.tone-alone{--tone:var(--alone)}
.tone-other{--tone:var(--other)}.tone-linear{--tone:var(--linear)}.tone-plain{--tone:var(--dim)}
.tone-faint{--tone:var(--faint)}
@media (max-width:44rem){
body{font-size:15px}
main{padding:1rem 1rem 2rem}
h1{font-size:1.45rem}
h2{margin-top:1.8rem}
.tiles{grid-template-columns:1fr 1fr;gap:.5rem;margin:.8rem 0}
.tiles>div{padding:.5rem .6rem}
.tiles b{font-size:1.1rem}
.tiles dt,.tiles span{font-size:.75rem}
.facts{grid-template-columns:1fr;gap:0}
.facts dd{margin-bottom:.4rem}
}
@media print{
body{font-size:10.5pt}
main{max-width:none;padding:0}
.tiles b{font-size:1.05rem}
h2,h3,summary{break-after:avoid}
figure,tr,.tiles,.shots figure,pre{break-inside:avoid}
.wide{overflow:visible}
table{font-size:8.5pt}
.r,.n{white-space:normal}
details::details-content{content-visibility:visible;display:block;height:auto}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
)
