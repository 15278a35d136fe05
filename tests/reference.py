"""Writes docs/cli.md from the program's own help: `python tests/reference.py`, or `make docs`."""

import re

import typer.cli
from documentation import ROOT, command_of, program

PAGE = ROOT / "docs" / "cli.md"
TYPE = re.compile(r" <[\w\[\]]+>`")  # Python's, behind what has no name of its own
HEAD = """# The commands

What each command takes. `make docs` writes this page from the program's own help, which `--help` behind any command
shows.

With `--json` a command prints one JSON object on stdout, and everything else goes to stderr. Exit codes are 0 done, 1
failed, 2 wrong usage or bad input, 130 interrupted, with the state kept.

The shell (bash, zsh, fish or PowerShell) completes commands and options, and names of tasks, spaces, recipes, searches
and backbones, once it was told to; `idat-tune --show-completion` prints what that adds to its start file:

```bash needs a shell whose start file may be changed
idat-tune --install-completion
```

"""


def page():
    """The text of docs/cli.md."""
    group = program()
    context = group.make_context("idat-tune", [], resilient_parsing=True)
    body = typer.cli.get_docs_for_click(obj=group, ctx=context, name="idat-tune", indent=1)
    return HEAD + "\n".join(_linked(body.splitlines())).rstrip() + "\n"


def _linked(lines):
    """The lines, with each command in a list of commands as a link, and the first paragraph of its help, whole."""
    within = ""
    for line in lines:
        if heading := re.match(r"#+ `(.+)`$", line):
            within = heading[1]
        if item := re.match(r"\* `([a-z]+)`: ", line):
            words = [*within.split()[1:], item[1]]
            said = command_of(words).help.split("\n\n")[0]
            line = f"* [`{item[1]}`](#{'-'.join(['idat-tune', *words])}): {said}"
        name, mark, said = TYPE.sub("`", line).partition("`: ")
        yield name + mark + said.replace("<", r"\<")  # which Markdown would take for HTML


if __name__ == "__main__":
    PAGE.write_text(page())
