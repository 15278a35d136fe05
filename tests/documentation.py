"""The documentation, README.md and docs/*.md, as blocks, commands and links."""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
OURS = re.compile(r"\s*(?:[A-Z_]+=\S* )*idat-tune (?P<words>.*)")  # with variables of this command alone
ACTING = {"-h", "--help", "--install-completion", "--show-completion"}  # options that act while they are read
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: ```LANGUAGE needs WHAT, where `needs` says what a bare machine lacks for it."""

    page: Path
    line: int  # of its first line, from 1
    info: str
    text: str

    @property
    def language(self):
        return self.info.split(" ")[0]

    @property
    def needs(self):
        """What a bare machine lacks, as `a cluster`; empty where the block runs on any."""
        return self.info.partition(" needs ")[2]

    @property
    def place(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages():
    """README.md, then the others in the order in which it names them, then what it does not name."""
    named = [ROOT / target for target in LINK.findall(README.read_text()) if re.fullmatch(r"docs/\w+\.md", target)]
    return list(dict.fromkeys([README, *named, *sorted((ROOT / "docs").glob("*.md"))]))


@cache
def blocks(page):
    text = page.read_text()
    return [
        Block(page, text[: found.start("text")].count("\n") + 1, found["info"], found["text"])
        for found in FENCE.finditer(text)
    ]


def prose(page):
    """The text of a page without its blocks."""
    return FENCE.sub("", page.read_text())


def commands(block):
    """The words after `idat-tune` of each such command in a block of bash."""
    lines = block.text.replace("\\\n", " ").splitlines()
    calls = [OURS.match(part) for line in lines for part in line.split(" && ")]
    return [shlex.split(call["words"], comments=True) for call in calls if call]


def mentions(page):
    """The words of `idat-tune ...` in the running text, where some may be left out."""
    spans = re.findall(r"`(idat-tune [^`]+)`", prose(page))
    return [shlex.split(span)[1:] for span in spans]


def anchors(page):
    """What can stand behind # in a link to a page, as GitHub makes it from headings that differ."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain]


def program():
    """`idat-tune` as the group of commands that typer makes of it."""
    import typer.main

    from idat_tune.cli.commands import app

    return typer.main.get_command(app)


def parsed(words):
    """The command that these words name and its parameters, read as the program reads them, and not run.

    Raises:
        Exception: typer's UsageError, which says what is wrong with them; AssertionError for `ACTING` ones.
    """
    acting = ACTING & set(words)
    if acting - options_of(words):
        raise AssertionError(f"No such option: {acting}")
    command, context = program(), None
    name, words = "idat-tune", [word for word in words if word not in acting]
    if not words:
        return command, {}
    while True:
        context = command.make_context(name, words, parent=context)
        words = [*getattr(context, "_protected_args", []), *context.args]
        if not hasattr(command, "commands"):
            return command, context.params
        name, command, words = command.resolve_command(context, words)


def command_of(words):
    """The command that the first of these words name."""
    command = program()
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    return command


def options_of(words):
    """The options that the command of these words has."""
    return {name for parameter in command_of(words).params for name in (*parameter.opts, *parameter.secondary_opts)}
