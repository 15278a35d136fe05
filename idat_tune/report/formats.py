"""A table as Markdown, CSV or LaTeX; names that would be markup, formulas or commands there are plain text."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from idat_tune.errors import printable

NONE = "-"  # stands where there is no figure


@dataclass(frozen=True)
class Column:
    """A column, which CSV may split into several: a figure and its error, say."""

    title: str
    keys: tuple[str, ...]  # of its parts, in CSV
    group: str = ""  # of columns, whose name stands above theirs
    number: bool = True


@dataclass(frozen=True)
class Cell:
    """What is read, and the parts that it stands for: text, numbers, or None where there is none."""

    text: str = NONE
    parts: tuple[str | float | int | None, ...] = (None,)

    @classmethod
    def of(cls, text: str) -> "Cell":
        """Of words."""
        return cls(text, (text,))


@dataclass(frozen=True)
class Table:
    """Rows with what is to be known of them."""

    title: str
    notes: tuple[str, ...]  # sentences: how the figures came about
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def records(self) -> list[dict[str, Cell]]:
        """Its rows, by the first key of each column."""
        keys = [column.keys[0] for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]

    def only(self, wanted: Callable[[Column], bool]) -> "Table":
        """Some of its columns."""
        kept = [index for index, column in enumerate(self.columns) if wanted(column)]
        rows = tuple(tuple(row[index] for index in kept) for row in self.rows)
        return Table(self.title, self.notes, tuple(self.columns[index] for index in kept), rows)


def markdown(table: Table) -> str:
    """A heading, the notes, and a pipe table."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    lines = [
        f"### {markdown_text(table.title)}",
        "",
        *(f"- {markdown_text(note)}" for note in table.notes),
        "",
        line([markdown_text(column.title) for column in table.columns]),
        f"|{'|'.join('---:' if column.number else '---' for column in table.columns)}|",
        *(line([markdown_text(cell.text) for cell in row]) for row in table.rows),
    ]
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: nothing of it is markup, HTML, a link, or the end of a cell."""
    plain = re.sub(r"[\\<>|&@]|:(?=//)|(?<=www)\.", lambda found: f"&#{ord(found[0])};", printable(text))
    return re.sub(r"[`*_\[\]~$]", r"\\\g<0>", plain)


def as_csv(table: Table) -> str:
    """Comma-separated values with one head line of keys; numbers as they are, percent or counts."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([_csv_value(key) for column in table.columns for key in column.keys])
    for row in table.rows:
        writer.writerow([_csv_value(part) for cell in row for part in cell.parts])
    return written.getvalue()


def _csv_value(part: str | float | int | None) -> str | float | int:
    """A value that no spreadsheet takes for a formula; what looks like one has an apostrophe before it."""
    if part is None:
        return ""
    if not isinstance(part, str):
        return part
    text = printable(part)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


_FORMULA = ("=", "+", "-", "@", "|", "%", "＝", "＋", "－", "＠")  # that some spreadsheet begins one with


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\`{}",
    '"': "''",
    "--": r"-{}-",
    "±": r"$\pm$",
}


def latex(table: Table) -> str:
    """A floating table that is as wide as the page, with the notes as its caption; needs the package graphicx."""
    sides = "".join("r" if column.number else "l" for column in table.columns)
    titles = [(latex_text(column.title), column.number) for column in table.columns]
    head = [rf"\rotatebox{{90}}{{{title}}}" if number else title for title, number in titles]
    caption = " ".join(latex_text(note) for note in table.notes)
    lines = [
        r"% \usepackage{graphicx}",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{latex_text(table.title)}. {caption}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\hline",
        *_spans(table),
        " & ".join(head) + r" \\",
        r"\hline",
        *(" & ".join(map(_latex_cell, row)) + r" \\" for row in table.rows),
        r"\hline",
        r"\end{tabular}}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _spans(table: Table) -> list[str]:
    """The line with the names of groups of columns, if there are any."""
    spans = [(group, len(list(columns))) for group, columns in groupby(table.columns, key=lambda one: one.group)]
    cells = [rf"\multicolumn{{{wide}}}{{c}}{{{latex_text(group.capitalize())}}}" for group, wide in spans]
    return [" & ".join(cells) + r" \\"] if any(group for group, _ in spans) else []


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text)
    number = cell.parts and isinstance(cell.parts[0], float | int)
    return re.sub(r"-(?=\d)", "$-$", text) if number else text


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it is; no character of it is a command."""
    return re.sub(r'--|[\\{}$&#%_^~<>|`"±]', lambda found: _LATEX[found[0]], printable(text))


FORMATS = {"md": markdown, "csv": as_csv, "latex": latex}
