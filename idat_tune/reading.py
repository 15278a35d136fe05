"""Text, YAML and JSON that people give: read within bounds, with one sentence for whatever is wrong with it."""

import codecs
import json
import re
from pathlib import Path
from typing import Any

import yaml

from idat_tune.errors import BadInput, shown

MOST_CHARACTERS = 200_000  # of a file that is written by hand; PyYAML takes about 10 s per million
MOST_NODES = 20_000  # once aliases are followed: a few lines of them can stand for billions
DEEPEST = 40

_STANDARD = "tag:yaml.org,2002:"
_MARKS = {  # with which a file may say its encoding; the longer ones first, as one begins with another
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class _Loader(yaml.SafeLoader):
    """YAML whose numbers are those of YAML 1.2: 1e-4 is one, 010 is ten, 1:30 and 2020-01-01 are text."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As PyYAML does, which would go on until Python's stack ends."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise BadInput(f"it is nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_OTHERWISE = [_STANDARD + name for name in ("int", "float", "timestamp", "value")]
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in _OTHERWISE]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Longer whole numbers stay text: whoever wants a number of them says what is wrong.
_Loader.add_implicit_resolver(_STANDARD + "int", re.compile(r"[-+]?[0-9][0-9_]{0,17}\Z"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _STANDARD + "float",
    re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
    list("-+.0123456789"),
)


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)).replace("_", ""))


_Loader.add_constructor(_STANDARD + "int", _whole_number)


def text(path: Path, what: str, most: int = MOST_CHARACTERS) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with their mark.

    Args:
        path: the file.
        what: what it is for, such as "space file"; begins every sentence.
        most: characters that it may have.

    Raises:
        BadInput: it is not there, no file, too long or not text.
    """
    try:
        if path.is_dir():
            raise BadInput(f"{what} {path} cannot be read: it is a folder; name a file")
        with path.open("rb") as file:
            content = file.read(4 * most + 1)
    except OSError as failure:
        raise BadInput(f"{what} {path} cannot be read: {failure.strerror}") from None
    except ValueError:
        raise BadInput(f"{what} {path} cannot be read: no file has such a name") from None
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        found = content.decode(encoding)
    except UnicodeDecodeError:
        found = "\0"
    if len(content) > 4 * most or len(found) > most:
        raise BadInput(f"{what} {path} is too long: at most {most:,} characters are read")
    if "\0" in found:
        raise BadInput(f"{what} {path} is not text; save it as UTF-8")
    return found


def yaml_value(content: str) -> Any:
    """What a YAML document says, aliases followed; None if it says nothing.

    Raises:
        BadInput: it is not valid YAML, has a key twice, or is too long, too deep or too large; names the line.
    """
    if len(content) > MOST_CHARACTERS:
        raise BadInput(f"it is too long: at most {MOST_CHARACTERS:,} characters are read")
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        return loader.construct_document(node)
    except yaml.YAMLError as failure:
        raise BadInput(f"it is not valid YAML: {_where(failure)}") from None
    except (ValueError, TypeError, OverflowError) as failure:  # of a tag such as `!!int x`
        raise BadInput(f"it is not valid YAML: {shown(failure)}") from None


def scalar(content: str) -> Any:
    """A number, a switch, nothing or a word as YAML reads it; whatever else it may be is the text itself."""
    try:
        found = yaml_value(content)
    except BadInput:
        return content
    return found if found is None or isinstance(found, str | bool | int | float) else content


def json_value(content: str) -> Any:
    """What JSON says.

    Raises:
        BadInput: it is not valid JSON, has a key twice, or is too deep.
    """
    try:
        return json.loads(content.removeprefix("\ufeff"), object_pairs_hook=_once)
    except RecursionError:
        raise BadInput("it is nested too deep") from None
    except ValueError as failure:
        raise BadInput(f"it is not valid JSON: {shown(failure)}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"'{shown(twice)}' stands there twice; keep one")
    return found


def _check(root: yaml.Node) -> None:
    """Refuse a key that comes twice, of which YAML would drop the first, and what grows without end."""
    sizes: dict[int, int] = {}  # of a node with all below it, by identity: aliases share theirs

    def size(node: yaml.Node, depth: int) -> int:
        if depth > DEEPEST:
            raise BadInput(f"it is nested more than {DEEPEST} deep, or refers to itself")
        if id(node) not in sizes:
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
                children = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[id(node)] = 1 + sum(size(child, depth + 1) for child in children)
            if sizes[id(node)] > MOST_NODES:
                raise BadInput(f"it holds more than {MOST_NODES:,} values, or stands for more by its aliases")
        return sizes[id(node)]

    size(root, 0)


def _check_keys(mapping: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode):
            line, earlier = key.start_mark.line + 1, lines.get((key.tag, key.value))
            if earlier is not None:
                where = f"in line {line}" if line == earlier else f"in lines {earlier} and {line}"
                raise BadInput(f"'{shown(key.value)}' stands twice, {where}; keep one")
            lines[key.tag, key.value] = line


def _where(failure: yaml.YAMLError) -> str:
    mark = getattr(failure, "problem_mark", None)
    problem = shown(getattr(failure, "problem", None) or str(failure).split("\n")[0], 200)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
